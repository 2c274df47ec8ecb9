"""The parts of MBHT (arXiv 2207.05584): multi-scale Transformer, hypergraph, the attention over both. Pure PyTorch.

Shapes: B sequences of J slots, d the model size; `exists` bool [B, J] is False in padding slots, whose values are zero
in every result and change no other one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_lsvcr.model.events import COMMENT, VIDEO
from recbole_lsvcr.model.layers import Dropout, PostNormLayer, padding_bias
from recbole_lsvcr.model.losses import normalize

# Of nodes that are equally similar the nearest one is chosen: what a slot of distance takes off a similarity. More than
# the error of a cosine in float32, so that a node is always the one most similar to itself.
_PER_SLOT = 1e-5


class AlongLength(nn.Module):
    """A learned matrix along the slots: [B, n, d] to [B, m, d]."""

    def __init__(self, slots: int, results: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(results, slots) * slots**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.weight, x)


class _Attention(nn.Module):
    """softmax(Q Kᵀ / √(d/heads)) V with several heads, without an output projection."""

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        # A bias of the keys would add the same to all scores of a query, which the softmax cancels.
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """[B, n, d] of `query` [B, n, d], `key` and `value` [B, m, d]; `bias` [B, 1, m] is added to the scores."""
        heads = (x.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for x in (query, key, value))
        q, k, v = heads  # [B, heads, n or m, d/heads]
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias.unsqueeze(1)
        return (self.dropout(scores.softmax(dim=-1)) @ v).transpose(1, 2).flatten(2)


class LowRankAttention(_Attention):
    """Low-rank self-attention: softmax(H W_Q (E H W_K)ᵀ / √d) (F H W_V), where E and F take J slots to ⌈J/C⌉."""

    def __init__(self, *, hidden_size: int, n_heads: int, slots: int, low_rank: int, dropout: float) -> None:
        super().__init__(hidden_size, n_heads, dropout)
        self.fewer_keys = AlongLength(slots, math.ceil(slots / low_rank))
        self.fewer_values = AlongLength(slots, math.ceil(slots / low_rank))

    def forward(self, hidden: Tensor, exists: Tensor) -> Tensor:
        """[B, J, d] of `hidden` [B, J, d]."""
        real = exists.unsqueeze(2)
        key, value = self.fewer_keys(self.key(hidden) * real), self.fewer_values(self.value(hidden) * real)
        return self.attend(self.query(hidden), key, value) * real


def aggregate(hidden: Tensor, exists: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Γ^p: the means [B, ⌈J/p⌉, d] of each `size` = p slots that follow each other, and which have an event.

    The last sub-sequence ends with the last slot, so the first one may be shorter; only slots that exist count.
    """
    missing = -hidden.shape[1] % size
    hidden = F.pad(hidden * exists.unsqueeze(2), (0, 0, missing, 0)).unflatten(1, (-1, size))
    count = F.pad(exists, (missing, 0)).unflatten(1, (-1, size)).sum(dim=2)  # [B, ⌈J/p⌉]
    return hidden.sum(dim=2) / count.clamp(min=1).unsqueeze(2), count > 0


class ScaleAttention(_Attention):
    """Self-attention of the sub-sequences of one scale: softmax(Γ W_Q (Γ W_K)ᵀ / √d) Γ W_V."""

    def __init__(self, *, hidden_size: int, n_heads: int, scale: int, dropout: float) -> None:
        super().__init__(hidden_size, n_heads, dropout)
        self.scale = scale

    def forward(self, hidden: Tensor, exists: Tensor) -> Tensor:
        """[B, ⌈J/p⌉, d] of `hidden` [B, J, d]; zero where a sub-sequence has no event."""
        pooled, real = aggregate(hidden, exists, self.scale)
        attended = self.attend(self.query(pooled), self.key(pooled), self.value(pooled), padding_bias(real, pooled))
        return attended * real.unsqueeze(2)


class MultiScaleLayer(PostNormLayer):
    """A layer of the multi-scale Transformer: H̃ = f(Ĥ ‖ H^p1 ‖ H^p2 …) W_D, then `PostNormLayer`.

    The outputs of all scales stand one after the other along the length, and f projects them to J slots again.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        n_heads: int,
        slots: int,
        low_rank: int,
        scales: Sequence[int],
        hidden_dropout: float,
        attn_dropout: float,
        **parts: Any,
    ) -> None:
        """`parts`: `inner_size`, `hidden_act` and `eps` of `PostNormLayer.add_parts`."""
        super().__init__()
        self.fine = LowRankAttention(
            hidden_size=hidden_size, n_heads=n_heads, slots=slots, low_rank=low_rank, dropout=attn_dropout
        )
        self.coarse = nn.ModuleList(
            ScaleAttention(hidden_size=hidden_size, n_heads=n_heads, scale=scale, dropout=attn_dropout)
            for scale in scales
        )
        self.fuse = AlongLength(slots + sum(math.ceil(slots / scale) for scale in scales), slots)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.add_parts(hidden_size=hidden_size, dropout=hidden_dropout, **parts)

    def forward(self, hidden: Tensor, exists: Tensor) -> Tensor:
        """[B, J, d] of `hidden` [B, J, d]; every row has an event."""
        scales = [self.fine(hidden, exists), *(attention(hidden, exists) for attention in self.coarse)]
        fused = self.output(self.fuse(torch.cat(scales, dim=1)))
        return self.combine(hidden, fused) * exists.unsqueeze(2)


class SelfGate(nn.Module):
    """X(0) = V ⊙ sigmoid(V W + r): what of its embedding an item takes into the hypergraph."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, hidden_size)

    def forward(self, items: Tensor) -> Tensor:
        """[..., d] of the item embeddings [..., d]."""
        return items * torch.sigmoid(self.gate(items))


class Similarity(nn.Module):
    """The metric of items: β(v, v') = 1/N Σ_n cos(w_n ⊙ v, w_n ⊙ v') over N channels with learned weights w_n."""

    def __init__(self, *, hidden_size: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(channels, hidden_size))

    def forward(self, items: Tensor) -> Tensor:
        """β [B, J, J] of the item embeddings `items` [B, J, d]."""
        channels = normalize(items.unsqueeze(2) * self.weight).flatten(2)  # [B, J, N d]
        return channels @ channels.transpose(1, 2) / len(self.weight)


def semantic_hyperedges(similarity: Tensor, exists: Tensor, size: int) -> Tensor:
    """M^p [B, J, J]: column j is the hyperedge of the `size` nodes most similar to node j, weighted by similarity β.

    Node j is one of them; nodes that are not similar (β <= 0) are none, and of equally similar ones the nearest are.
    """
    slots = similarity.shape[1]
    both = exists.unsqueeze(1) & exists.unsqueeze(2)
    slot = torch.arange(slots, device=similarity.device)
    distance = (slot.unsqueeze(0) - slot.unsqueeze(1)).abs()
    order = (similarity.detach().float() - _PER_SLOT * distance).masked_fill(~both, -math.inf)
    chosen = torch.zeros_like(both).scatter_(1, order.topk(min(size, slots), dim=1).indices, True)
    return torch.where(chosen & both, similarity, 0.0).clamp(min=0.0)


def behaviour_hyperedges(items: Tensor, behaviours: Tensor, mask_token: int) -> Tensor:
    """M^q [B, J, J] of 0 and 1: one hyperedge for each item met under both behaviours, all its events in it.

    It is the column of the item's first event; other columns are empty. `items`, `behaviours` int64 [B, J]: masked
    events are of no known item.
    """
    known = (items > 0) & (items != mask_token)
    same = (items.unsqueeze(2) == items.unsqueeze(1)) & known.unsqueeze(1)
    watched = (same & (behaviours == VIDEO).unsqueeze(2)).any(dim=1)  # [B, J] somewhere in the sequence
    commented = (same & (behaviours == COMMENT).unsqueeze(2)).any(dim=1)
    first = ~same.tril(-1).any(dim=2)
    return (same & (watched & commented & first).unsqueeze(1)).float()


def hypergraph_convolution(nodes: Tensor, incidence: Tensor) -> Tensor:
    """X' = D_v⁻¹ M D_e⁻¹ Mᵀ X [B, J, d] of `nodes` [B, J, d] and `incidence` M [B, J, E].

    D_v and D_e hold the sums of M's rows and columns. A node without hyperedges becomes zero.
    """
    of_edges = incidence.transpose(1, 2) @ nodes
    of_edges = of_edges * _inverse(incidence.sum(dim=1)).unsqueeze(2)
    return incidence @ of_edges * _inverse(incidence.sum(dim=2)).unsqueeze(2)


def window_means(nodes: Tensor, known: Tensor, before: int, after: int) -> Tensor:
    """x̄ [B, J, d]: for every slot the mean of the nodes [B, J, d] of the `before` slots before it and the `after` slots
    after it; only those `known` bool [B, J] count, and none gives zero."""
    slots = torch.arange(nodes.shape[1], device=nodes.device)
    distance = slots.unsqueeze(0) - slots.unsqueeze(1)
    near = (distance >= -before) & (distance <= after) & (distance != 0)
    weight = (near & known.unsqueeze(1)).to(nodes.dtype)  # [B, J, J]
    return weight @ nodes * _inverse(weight.sum(dim=2)).unsqueeze(2)


def _inverse(degrees: Tensor) -> Tensor:
    """1 / degrees, 0 where there is none; with finite gradients everywhere."""
    some = degrees > 0
    return torch.where(some, degrees.masked_fill(~some, 1.0).reciprocal(), 0.0)


class CrossViewAggregation(nn.Module):
    """g = α_1 h + α_2 x with α = softmax over both views e of aᵀ W_a e, for every slot."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, hidden_size, bias=False)
        self.weight = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, sequential: Tensor, hypergraph: Tensor) -> Tensor:
        """[..., d] of two views [..., d]."""
        views = torch.stack([sequential, hypergraph], dim=-2)  # [..., 2, d]
        return (self.weight(self.inner(views)).softmax(dim=-2) * views).sum(dim=-2)
