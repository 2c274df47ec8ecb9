"""A Hugging Face model as a text encoder (Eq. 1): the mean over a text's tokens of the last, normed hidden state.

`transformers` is not imported here: model and tokenizer are handed in, from `pretrained.py` or from alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recbole_lsvcr.encoding.batches import token_batches
from recbole_lsvcr.errors import ConfigError, StoreError

POOLINGS = ("mean", "first", "last")
BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
SLICE = 4096


@dataclass
class TokenCount:
    """What has gone through the model since the encoder was made: texts, their tokens, and the tokens with padding."""

    texts: int = 0
    tokens: int = 0
    padded: int = 0

    @property
    def padding_share(self) -> float:
        """Share of padding in all that the model computed."""
        return 1 - self.tokens / self.padded if self.padded else 0.0


class LanguageModelEncoder:
    """Texts -> vectors through a base model: one that gives `last_hidden_state`, without a language-model head.

    Args:
        model: base model (nn.Module) on its device, in its precision; `encode` puts its training mode back.
        tokenizer: the model's; its pad token and padding side do not matter: padding is done here, right and masked.
        name: what the user called it. fingerprint: changes whenever the vectors would.
        pooling: `mean` over all tokens (the method's), the `first` or the `last` token.
        max_tokens: longer texts are cut; less where the model has fewer positions.
        batch_tokens: tokens of one batch, padding included; None: 2,048 on a CPU, 16,384 on a GPU.
        head: applied to the pooled states [n, H] (alignment's `text_mlp`).
    Raises:
        ConfigError: an argument out of range. StoreError: a model that is no encoder or causal language model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        pooling: str = "mean",
        max_tokens: int = 512,
        batch_tokens: int | None = None,
        head: Callable[[torch.Tensor], torch.Tensor] | None = None,
        alignment: str | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling is {pooling!r}; accepted: {', '.join(POOLINGS)}")
        specials = tokenizer.num_special_tokens_to_add()
        if max_tokens <= specials:
            raise ConfigError(f"max_tokens is {max_tokens}; it must exceed the tokenizer's {specials} special tokens")
        if batch_tokens is not None and batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}; give an integer of at least 1, or nothing")
        self.model, self.tokenizer, self.name, self.fingerprint = model, tokenizer, name, fingerprint
        self.pooling, self.head, self.alignment = pooling, head, alignment
        first = next(model.parameters())
        self.device, self.precision = first.device, str(first.dtype).removeprefix("torch.")
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cuda"])
        self.max_tokens = min([max_tokens, *_positions(model, tokenizer)])
        self.vocabulary = _vocabulary(model, name)
        self.pad_id = _pad_id(model, tokenizer, self.vocabulary)
        self.count = TokenCount()
        self.dim = self._probe()

    def describe(self) -> dict[str, Any]:
        """What identifies the vectors, for a store's manifest."""
        return {
            "encoder": self.name,
            "encoder_fingerprint": self.fingerprint,
            "pooling": self.pooling,
            "max_tokens": self.max_tokens,
            "precision": self.precision,
            "language_model": True,
            "aligned": self.head is not None,
            **({} if self.alignment is None else {"alignment": self.alignment}),
        }

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors of `texts`, float32 [n, dim], in their order; a text without any token is the zero vector.

        Raises:
            StoreError: tokens the model does not have, or a batch that does not fit in the GPU's memory.
        """
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        ids = self.tokenize(texts)
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                pooled = self.states(ids)
                return (pooled if self.head is None else self.head(pooled)).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise StoreError(
                f"a batch of {self.batch_tokens} tokens does not fit in the memory of {self.device}; "
                "give fewer batch_tokens"
            ) from error
        finally:
            self.model.train(training)

    def tokenize(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[list[int]]:
        """Token ids per text, cut at `max_tokens`, without padding."""
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=special_tokens,
            split_special_tokens=True,  # somebody may have written "</s>"
            truncation=True,
            max_length=self.max_tokens,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def states(
        self, ids: Sequence[Sequence[int]], *, batches: list[np.ndarray] | None = None, recompute: bool = False
    ) -> torch.Tensor:
        """Pooled states of tokenised texts, float32 [n, H], in their order; with gradients unless switched off.

        `batches`: indices of each batch; None: batches of like length within `batch_tokens`. `recompute`: keep nothing
        of a batch for its gradients but its tokens and result, and compute the rest again.
        """
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        batches = token_batches(lengths, self.batch_tokens) if batches is None else batches
        # `checkpoint` draws dropout again as before on the devices of its tensor arguments.
        run = partial(checkpoint, self._pooled, use_reentrant=False) if recompute else self._pooled
        pooled = [run(*self._padded([ids[i] for i in batch], lengths[batch])) for batch in batches]
        order = torch.from_numpy(np.argsort(np.concatenate(batches), kind="stable")).to(self.device)
        return torch.cat(pooled)[order]

    def unknown_share(self, texts: list[str]) -> float:
        """Share of the texts' tokens, special ones aside, that are the unknown token; 0 for a tokenizer without one."""
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            return 0.0
        tokens = misses = 0
        for start in range(0, len(texts), SLICE):
            for ids in self.tokenize(texts[start : start + SLICE], special_tokens=False):
                tokens += len(ids)
                misses += ids.count(unknown)
        return misses / tokens if tokens else 0.0

    def _padded(self, ids: list[Sequence[int]], lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """One batch on the model's device: tokens, int64 [b, n]; which of them are real, bool [b, n]; if all are."""
        longest = max(1, int(lengths.max()))
        real = np.arange(longest) < lengths[:, None]
        padded = np.full(real.shape, self.pad_id, np.int64)
        padded[real] = np.concatenate([np.asarray(row, np.int64) for row in ids])
        if padded.max() >= self.vocabulary:
            raise StoreError(
                f"the tokenizer of {self.name} gives token {padded.max()}, its model has only {self.vocabulary}: "
                "they do not belong together; save the model's own tokenizer beside it"
            )
        self.count.texts += len(ids)
        self.count.tokens += int(lengths.sum())
        self.count.padded += padded.size
        tokens, mask = (torch.from_numpy(array).to(self.device) for array in (padded, real))
        return tokens, mask, bool(real.all())

    def _pooled(self, tokens: torch.Tensor, mask: torch.Tensor, is_full: bool) -> torch.Tensor:
        """Pooled states of one batch, float32 [b, H]."""
        # Without padding no mask is needed, and attention may take its fastest path.
        attention = None if is_full else mask.long()
        hidden = self.model(input_ids=tokens, attention_mask=attention).last_hidden_state  # [b, n, H]
        return pool(hidden, mask, self.pooling)

    def _probe(self) -> int:
        """The size of a vector, by encoding one token: a model of another kind is found here."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                pooled = self.states([[self.pad_id]])
                return int((pooled if self.head is None else self.head(pooled)).shape[-1])
        except (AttributeError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self.name} cannot encode text: {type(self.model).__name__} ({error}); "
                "accepted: an encoder or a causal language model"
            ) from error
        finally:
            self.model.train(training)
            self.count = TokenCount()


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str = "mean") -> torch.Tensor:
    """Pool `hidden` [b, n, H] over the tokens of `mask` (bool [b, n], right-padded) in float32; no token: zeros [H]."""
    lengths = mask.sum(1)
    if pooling == "mean":
        weights = mask.float() / lengths.clamp(min=1)[:, None]
        return torch.bmm(weights[:, None], hidden.float())[:, 0]
    position = torch.zeros_like(lengths) if pooling == "first" else (lengths - 1).clamp(min=0)
    picked = hidden[torch.arange(len(hidden), device=hidden.device), position].float()
    return picked * (lengths > 0)[:, None]


def positions_behind_padding(model: nn.Module) -> list[tuple[int, int]]:
    """First position and number of rows of every table of learned positions behind a padding row, as RoBERTa's is."""
    return [
        (module.padding_idx + 1, module.num_embeddings)
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None
    ]


def _positions(model: nn.Module, tokenizer: Any) -> list[int]:
    """Every limit that the tokenizer and the model set to the number of tokens."""
    config = getattr(model, "config", None)
    limits = [getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None)]
    # Fewer tokens fit than the configuration says.
    limits += [rows - first for first, rows in positions_behind_padding(model)]
    return [limit for limit in limits if isinstance(limit, int) and limit > 0]


def _vocabulary(model: Any, name: str) -> int:
    """How many tokens the model has an embedding for."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError) as error:
        raise StoreError(
            f"{name} cannot encode text: {type(model).__name__} has no token embeddings; "
            "accepted: an encoder or a causal language model"
        ) from error


def _pad_id(model: nn.Module, tokenizer: Any, vocabulary: int) -> int:
    """A token id to fill up with; it is masked, so any will do, but RoBERTa counts positions by its own."""
    candidates = (
        getattr(getattr(model, "config", None), "pad_token_id", None),
        getattr(tokenizer, "pad_token_id", None),
    )
    return next((int(i) for i in candidates if isinstance(i, int) and 0 <= i < vocabulary), 0)
