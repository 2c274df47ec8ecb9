"""A step whose memory does not grow with the contrastive batch: the language model is run twice, a part at a time.

First without gradients, for the states that the losses need; the small rest of the step then gives the gradients of
these states; each part is run again with the same random numbers, and its states' gradients are sent through it. The
sum is the gradient of the plain step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recbole_lsvcr.alignment.collate import AlignmentBatch
from recbole_lsvcr.alignment.losses import processes
from recbole_lsvcr.alignment.pair import AlignedPair, AlignmentLosses, LLMStates
from recbole_lsvcr.encoding.batches import token_batches

Precision = Callable[[], AbstractContextManager[object]]


def cached_backward(
    pair: AlignedPair,
    batch: AlignmentBatch,
    *,
    draw: int,
    seed: int,
    rows_at_once: int,
    scale: float = 1.0,
    precision: Precision = nullcontext,
) -> AlignmentLosses:
    """Losses of a batch, whose gradients are added to the parameters' `.grad`, times `scale`.

    Call `pair` itself, not a wrapper around it: under data-parallel training `average_gradients` comes afterwards.

    Args:
        draw: see `AlignedPair.forward`. seed: of dropout in the language model, differing between processes and steps.
        rows_at_once: instructions in memory at a time (short texts: the pair's token budget).
        precision: makes the context (autocast) that every forward pass runs in.
    """
    parts = _parts(pair, batch, rows_at_once)
    with torch.no_grad(), precision():
        first = [part.run(seed) for part in parts]
    states = _Leaves.of(pair, batch, parts, first)
    with precision():
        losses = pair.align(batch, states.values, draw)
    (losses.total * scale).backward()
    for part in parts:
        if part.is_text and pair.short_text_grad == "none":
            continue
        with precision():
            again, lm_sum = part.run(seed)
        upstream = states.gradient(part).to(again.dtype)
        surrogate = (again * upstream).sum() + lm_sum * states.lm_gradient
        if surrogate.requires_grad:
            surrogate.backward()
    return replace(losses, total=losses.total.detach())


def average_gradients(module: torch.nn.Module) -> None:
    """Every trained parameter's gradient becomes the mean over the processes; one with none counts as zero."""
    if processes() == 1:
        return
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in trained:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    flat = torch.cat([weight.grad.flatten().float() for weight in trained if weight.grad is not None])
    dist.all_reduce(flat)
    flat /= processes()
    for weight, part in zip(trained, flat.split([weight.numel() for weight in trained]), strict=True):
        assert weight.grad is not None
        weight.grad.copy_(part.view_as(weight.grad))


@dataclass(frozen=True)
class _Part:
    """One pass of the language model: some short texts, or some instructions."""

    pair: AlignedPair
    rows: Tensor  # int64, of the texts or of the batch
    number: int
    texts: list[list[int]] | None = None
    instructions: AlignmentBatch | None = None

    @property
    def is_text(self) -> bool:
        return self.texts is not None

    def run(self, seed: int) -> tuple[Tensor, Tensor]:
        """States [R, H] and the sum of L_LM, by random numbers that depend on the seed and the part alone."""
        torch.manual_seed((seed * 1_000_003 + self.number) % 2**63)
        if self.texts is not None:
            states = self.pair.texts.states(self.texts, batches=[np.arange(len(self.texts))])
            return states, states.new_zeros(())
        assert self.instructions is not None
        return self.pair.instruct(self.instructions)


@dataclass(frozen=True)
class _Leaves:
    """The states of the first pass as leaves of the small rest's graph."""

    values: LLMStates

    @classmethod
    def of(
        cls, pair: AlignedPair, batch: AlignmentBatch, parts: list[_Part], first: list[tuple[Tensor, Tensor]]
    ) -> _Leaves:
        weight = pair.contrast_adapter.weight
        texts = weight.new_zeros(len(batch.texts), pair.contrast_adapter.in_features)
        instruction = weight.new_zeros(len(batch.input_ids), pair.contrast_adapter.in_features)
        lm_sum = weight.new_zeros(())
        for part, (states, part_sum) in zip(parts, first, strict=True):
            (texts if part.is_text else instruction)[part.rows] = states.to(weight.dtype)
            lm_sum = lm_sum + part_sum.to(weight.dtype)
        return cls(LLMStates(texts.requires_grad_(), instruction.requires_grad_(), lm_sum.requires_grad_()))

    def gradient(self, part: _Part) -> Tensor:
        """What the losses say of a part's states [R, H]."""
        leaf = self.values.texts if part.is_text else self.values.instruction
        return torch.zeros_like(leaf)[part.rows] if leaf.grad is None else leaf.grad[part.rows]

    @property
    def lm_gradient(self) -> Tensor:
        """The factor of the sum of L_LM in the total."""
        grad = self.values.lm_sum.grad
        return torch.zeros_like(self.values.lm_sum) if grad is None else grad


def _parts(pair: AlignedPair, batch: AlignmentBatch, rows_at_once: int) -> list[_Part]:
    """The passes of a step: short texts by the token budget, instructions of similar length together."""
    device = batch.input_ids.device
    ids = pair.texts.tokenize(batch.texts) if batch.texts else []
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    chosen = token_batches(lengths, pair.texts.batch_tokens) if ids else []
    parts = [
        _Part(pair, torch.from_numpy(rows).to(device), number, texts=[ids[row] for row in rows])
        for number, rows in enumerate(chosen)
    ]
    order = batch.attention_mask.sum(1).argsort(descending=True, stable=True)
    for rows in order.split(rows_at_once):
        parts.append(_Part(pair, rows, len(parts), instructions=batch.instructions_of(rows)))
    return parts
