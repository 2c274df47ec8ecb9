"""Contrastive losses over cosine similarities (Eq. 12, 17, 18). Pure PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_lsvcr.model.layers import table_rows

TEMPERATURE = 0.07

# Logits in memory at a time (4 MiB): they stay in the processor's cache.
_LOGITS_AT_ONCE = 2**20

# A shorter vector has no direction that float32 could carry: it counts as zero.
_SHORTEST = 1e-10


class _Normalize(torch.autograd.Function):
    """x / |x| with half the passes over memory that autograd takes, and zero for a zero vector in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.where(length > _SHORTEST, length.reciprocal(), 0.0)
        unit = x * scale
        ctx.save_for_backward(unit, scale)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        unit, scale = ctx.saved_tensors
        along = (upstream * unit).sum(dim=-1, keepdim=True)
        return torch.addcmul(upstream, unit, along, value=-1).mul_(scale)


def normalize(x: Tensor) -> Tensor:
    """`x` [..., d] scaled to length 1. A zero vector (an empty text, an unseen id) stays zero, with zero gradient."""
    return _Normalize.apply(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)


def cosine_logits(x: Tensor, candidates: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """cos(x_i, y_j) / temperature [B, M] of `x` [B, d] and `candidates` [M, d]."""
    return (normalize(x) / temperature) @ normalize(candidates).T


class _SoftmaxLoss(torch.autograd.Function):
    """Mean over rows of `log(exp(p_i) + sum_j exp(query_i . keys_j)) - p_i`, with some pairs (i, j) left out.

    Works through the logits a slice at a time and keeps the gradients of its inputs instead of the logits, which
    for a whole catalogue are the largest tensors of a training step and are mostly spent on allocating memory.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, positive: Tensor, left_out: Tensor) -> Tensor:
        """`query` [R, d], `keys` [M, d], `positive` [R]; `left_out` int64 [L, 2], ascending in its first column."""
        rows, width = len(query), len(keys) + 1
        step = max(_LOGITS_AT_ONCE // width, 1)
        starts = range(0, rows, step)
        bounds = torch.searchsorted(left_out[:, 0].contiguous(), left_out.new_tensor([*starts, rows])).tolist()
        query_grad, keys_grad = torch.empty_like(query), torch.zeros_like(keys)
        positive_grad = -torch.ones_like(positive)
        buffer, total = query.new_empty(min(step, rows), width), query.new_zeros(())
        for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=True):
            some = slice(start, min(start + step, rows))
            logits = buffer[: some.stop - start]
            logits[:, 0] = positive[some]
            torch.mm(query[some], keys.T, out=logits[:, 1:])
            logits[left_out[first:last, 0] - start, left_out[first:last, 1] + 1] = -math.inf
            shares = logits.softmax(dim=1)
            # log sum exp through the largest share, which never underflows.
            total += (logits.amax(dim=1) - shares.amax(dim=1).log() - logits[:, 0]).sum()
            positive_grad[some] += shares[:, 0]
            torch.mm(shares[:, 1:], keys, out=query_grad[some])
            keys_grad.addmm_(shares[:, 1:].T, query[some])
        ctx.save_for_backward(query_grad, keys_grad, positive_grad)
        return total / rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query_grad, keys_grad, positive_grad = ctx.saved_tensors
        scale = upstream / len(query_grad)
        return query_grad * scale, keys_grad * scale, positive_grad * scale, None


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
    `mask` bool [M] or [B, M] is True for the candidates that take part; a row's positive always does.
    """
    rows = torch.arange(len(x), device=x.device)
    if targets is None:
        targets = rows
    if mask is not None and mask.dim() == 1:
        kept = mask.index_put((targets,), mask.new_ones(())).nonzero().squeeze(1)
        candidates, targets, mask = table_rows(candidates, kept), torch.searchsorted(kept, targets), None
    query, keys = normalize(x) / temperature, normalize(candidates)
    positive = (query * table_rows(keys, targets)).sum(dim=-1)
    # The positive stands apart from the other candidates, so it is left out among them.
    left_out = torch.stack([rows, targets], dim=1)
    if mask is not None:
        left_out = (~mask).index_put((rows, targets), mask.new_ones(())).nonzero()
    return _SoftmaxLoss.apply(query, keys, positive, left_out)


def dot_product_loss(query: Tensor, keys: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows of -log softmax(query_i . keys) at `targets` int64 [R]; `query` [R, d], `keys` [M, d], R >= 1."""
    rows = torch.arange(len(query), device=query.device)
    positive = (query * table_rows(keys, targets)).sum(dim=-1)
    return _SoftmaxLoss.apply(query, keys, positive, torch.stack([rows, targets], dim=1))


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
            ids, text, items = ids.index_select(0, rows), text.index_select(0, rows), items[rows]
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
    positive = (ids * text).sum(dim=-1) / temperature  # [R]
    same_video = (items.unsqueeze(1) == items[drawn]).nonzero()
    to_text = _SoftmaxLoss.apply(ids, table_rows(text, drawn) / temperature, positive, same_video)
    to_ids = _SoftmaxLoss.apply(text, table_rows(ids, drawn) / temperature, positive, same_video)
    return (to_text + to_ids) / 2
