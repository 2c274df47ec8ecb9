"""How well a causal language model tells the next token of texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_lsvcr.alignment.corpus import tokens
from recbole_lsvcr.encoding.batches import token_batches


def perplexity(model: Any, tokenizer: Any, texts: pl.Series, block: int) -> float:
    """Of texts by themselves, cut at `block` tokens: exp of the mean loss of their tokens behind the first."""
    ids = [row[:block] for row in tokens(tokenizer, texts.to_list())]
    lengths = np.array([len(row) for row in ids])
    total = 0.0
    model.eval()
    for batch in token_batches(lengths, 16 * block):
        real = torch.arange(int(lengths[batch].max())) < torch.from_numpy(lengths[batch])[:, None]
        padded = torch.zeros(real.shape, dtype=torch.int64)
        padded[real] = torch.tensor([token for row in batch for token in ids[row]])
        with torch.inference_mode():
            mask = real.to(model.device)
            loss = next_token_loss(model, padded.to(model.device), mask)
        total += float(loss) * int(real[:, 1:].sum())
    return math.exp(min(total / max(int((lengths - 1).sum()), 1), 80.0))


def next_token_loss(model: Any, ids: Tensor, real: Tensor | None) -> Tensor:
    """Mean cross-entropy of every token [b, n] behind the first of its row; `real` (bool [b, n]): all but padding."""
    logits = model(input_ids=ids, attention_mask=None if real is None else real.long(), use_cache=False).logits
    targets = ids[:, 1:] if real is None else ids[:, 1:].masked_fill(~real[:, 1:], -100)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten())
