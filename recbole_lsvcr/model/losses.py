"""Contrastive losses over cosine similarities (Eq. 12, 17, 18). Pure PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07

# A shorter vector has no direction that float32 could carry: it counts as zero.
_SHORTEST_SQUARED = 1e-20


def normalize(x: Tensor) -> Tensor:
    """`x` [..., d] scaled to length 1. A zero vector (an empty text, an unseen id) stays zero, with zero gradient."""
    squared = x.square().sum(dim=-1, keepdim=True)
    has_direction = squared > _SHORTEST_SQUARED
    # The inner `where` keeps 1/sqrt(0) out of the backward pass, where 0 · inf would be NaN.
    return x * torch.where(has_direction, torch.where(has_direction, squared, 1.0).rsqrt(), 0.0)


def cosine_logits(x: Tensor, candidates: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """cos(x_i, y_j) / temperature [B, M] of `x` [B, d] and `candidates` [M, d]."""
    return (normalize(x) / temperature) @ normalize(candidates).T


def info_nce(
    x: Tensor,
    candidates: Tensor,
    targets: Tensor | None = None,
    *,
    temperature: float = TEMPERATURE,
    mask: Tensor | None = None,
) -> Tensor:
    """Eq. 12 averaged over rows: the softmax over `candidates` [M, d] for each row of `x` [B, d].

    `targets` int64 [B] holds each row's positive; None says that candidate i is row i's (in-batch negatives).
    `mask` bool [M] or [B, M] is True for the candidates that take part; a positive always has to.
    """
    logits = cosine_logits(x, candidates, temperature)
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    if targets is None:
        targets = torch.arange(x.shape[0], device=x.device)
    return F.cross_entropy(logits, targets)


def distinct_target_mask(targets: Tensor) -> Tensor:
    """Mask [B, B] for `info_nce`'s in-batch form: rows with the same target [B] are no negatives of each other."""
    same = targets.unsqueeze(1) == targets.unsqueeze(0)
    return ~same.fill_diagonal_(False)


class Steps(NamedTuple):
    """The steps of one stream, as `id_text_regularization` needs them."""

    ids: Tensor  # [B, n, d] ungated id embeddings
    text: Tensor  # [B, n, d] z, before position and LayerNorm
    items: Tensor  # [B, n] video of each step
    mask: Tensor  # [B, n] True at existing steps


def id_text_regularization(
    streams: Iterable[Steps],
    *,
    negatives: int = 99,
    temperature: float = TEMPERATURE,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_REG (Eq. 17): each step's id embedding and its own text find each other among shared negatives.

    Per stream, `negatives` of the batch's steps are drawn by `generator` (a CPU one; all steps when there are
    fewer) and serve every row in both directions, except rows of the same video. Rows and directions are averaged,
    streams summed; a stream without steps adds nothing.
    """
    losses = []
    for steps in streams:
        rows = steps.mask.flatten().nonzero().squeeze(1)
        drawn = torch.randperm(len(rows), generator=generator)[:negatives].to(rows.device)
        ids, text, items = steps.ids.flatten(0, 1), steps.text.flatten(0, 1), steps.items.flatten()
        if len(rows) < len(items):
            ids, text, items = ids[rows], text[rows], items[rows]
        losses.append(shared_negatives_contrast(ids, text, items, drawn, temperature=temperature))
    return torch.stack(losses).sum()


def shared_negatives_contrast(
    ids: Tensor, text: Tensor, items: Tensor, drawn: Tensor, *, temperature: float = TEMPERATURE
) -> Tensor:
    """Both directions of Eq. 17 for one stream: rows `ids`, `text` [R, d] of `items` [R], negatives `drawn` int64 [K].

    A row's negatives are the drawn rows of other videos. Without rows the loss is zero.
    """
    if len(items) == 0:
        return (ids.sum() + text.sum()) * 0.0
    ids, text = normalize(ids), normalize(text)
    own = (ids * text).sum(dim=-1) / temperature  # [R]
    same_video = items.unsqueeze(1) == items[drawn].unsqueeze(0)  # [R, K]
    loss = own.new_zeros(())
    for query, key in ((ids, text), (text, ids)):
        logits = ((query / temperature) @ key[drawn].T).masked_fill(same_video, -math.inf)
        loss = loss + (torch.cat([own.unsqueeze(1), logits], dim=1).logsumexp(dim=1) - own).mean()
    return loss / 2
