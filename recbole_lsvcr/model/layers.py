"""Transformer pieces of the SR model: attention, encoder, the extractors of Eq. 8 and Eq. 9. Pure PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def init_weights(module: nn.Module, std: float) -> None:
    """Draws every weight matrix and embedding from N(0, std); biases are 0, LayerNorms are 1, a padding row is 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            nn.init.zeros_(part.weight[part.padding_idx])
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def keep_mask(shape: torch.Size, p: float, like: Tensor) -> Tensor:
    """Dropout's factor on the CPU: 0 with probability `p` (to 2**-16), else what keeps the expectation.

    Four 16-bit draws from one 64-bit number of the default generator. PyTorch's own CPU dropout draws one Bernoulli
    number at a time, which took a fifth of a training step.
    """
    count = shape.numel()
    drawn = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    kept = min(max(round((1.0 - p) * 2**16), 1), 2**16 - 1)
    mask = torch.empty(shape, dtype=like.dtype)
    torch.lt(drawn.view(shape), kept - 2**15, out=mask)
    return mask.mul_(2**16 / kept)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """As `torch.nn.functional.dropout`, with cheaper random numbers on the CPU."""
    if not training or p == 0.0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    return x * keep_mask(x.shape, p, x)


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`x` of any shape, thinned in training."""
        return dropout(x, self.p, self.training)


def causal_bias(length: int, like: Tensor) -> Tensor:
    """Additive mask [n, n]: step i sees the steps 0 … i. Padding stands on the right, so no real step sees it."""
    blocked = torch.ones(length, length, dtype=torch.bool, device=like.device).triu(1)
    return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill_(blocked, -math.inf)


def padding_bias(mask: Tensor, like: Tensor) -> Tensor:
    """Additive mask [B, 1, m] of `mask` [B, m] (True: a step that exists); every row needs one such step."""
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill_(~mask, -math.inf).unsqueeze(1)


def linear_of_pair(linear: nn.Linear, first: Tensor, second: Tensor) -> Tensor:
    """`linear([first ‖ second])` without making the concatenation; both [..., d]."""
    size = first.shape[-1]
    out = F.linear(first, linear.weight[:, :size], linear.bias)
    return torch.addmm(out.view(-1, out.shape[-1]), second.reshape(-1, size), linear.weight[:, size:].T).view_as(out)


def table_rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows [*index, d] of `table` [N, d]: an embedding look-up whose backward pass is cheap on the CPU as well."""
    if table.device.type != "cpu":
        return F.embedding(index, table)
    return table.index_select(0, index.reshape(-1)).view(*index.shape, table.shape[1])


def has_text(vectors: Tensor) -> Tensor:
    """1 or 0 [T]: whether a row of `vectors` [T, H] has a non-zero entry; rarely has to look beyond the first one."""
    found = vectors[:, 0] != 0
    doubtful = (~found).nonzero().squeeze(1)
    return found.index_put((doubtful,), (vectors[doubtful] != 0).any(dim=1)).to(vectors.dtype)


class TextMLP(nn.Module):
    """`text_mlp` of Eq. 1, 2: from the H columns of a language model's states to E. An empty text stays zero."""

    def __init__(self, *, encoder_size: int, text_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(encoder_size, encoder_size // 4)
        self.outer = nn.Linear(encoder_size // 4, text_size)

    def forward(self, vectors: Tensor, projection: Tensor | None = None) -> Tensor:
        """[T, E] of `vectors` [T, H]; with `projection` [d, E] the projected texts [T, d].

        The last layer is linear, so it is multiplied with the projection first: the E columns are never made.
        """
        weight: Tensor = self.outer.weight
        bias: Tensor = self.outer.bias
        if projection is not None:
            weight, bias = projection @ weight, projection @ bias
        return F.linear(F.gelu(self.inner(vectors)), weight, bias) * has_text(vectors).unsqueeze(1)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with dropout on its weights and an output projection.

    The query, key and value projections are one matrix, applied at once when a sequence attends to itself.
    """

    def __init__(self, *, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.hidden_size, self.n_heads, self.dropout = hidden_size, n_heads, dropout
        self.projection = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, query: Tensor, memory: Tensor | None, bias: Tensor) -> Tensor:
        """[B, n, d]: `query` [B, n, d] attends to `memory` [B, m, d] (None: to itself).

        `bias` is added to the attention scores: [n, m] or [B, 1, m].
        """
        size, head = self.hidden_size, self.hidden_size // self.n_heads
        weight, offset = self.projection.weight, self.projection.bias
        if memory is None:
            q, k, v = self.projection(query).split(size, dim=-1)
        else:
            q = F.linear(query, weight[:size], offset[:size])
            k, v = F.linear(memory, weight[size:], offset[size:]).split(size, dim=-1)
        contexts = []
        # One product per head on strided views: bringing the heads to the front would copy q, k, v and the result.
        for q_head, k_head, v_head in zip(q.split(head, -1), k.split(head, -1), v.split(head, -1), strict=True):
            scores = torch.baddbmm(bias, q_head, k_head.transpose(1, 2), alpha=head**-0.5)  # [B, n, m]
            contexts.append(torch.bmm(dropout(scores.softmax(dim=-1), self.dropout, self.training), v_head))
        return self.output(torch.cat(contexts, dim=-1))


class PostNormLayer(nn.Module):
    """What a Transformer layer does with what was attended to: dropout, residual and LayerNorm after it, and the
    feed-forward part likewise (post-LayerNorm)."""

    def add_parts(self, *, hidden_size: int, inner_size: int, dropout: float, hidden_act: str, eps: float) -> None:
        """Make the layer's modules, after those of its attention: weights are drawn in this order."""
        self.attention_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.inner = nn.Linear(hidden_size, inner_size)
        self.outer = nn.Linear(inner_size, hidden_size)
        self.outer_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = Dropout(dropout)
        self.activation = ACTIVATIONS[hidden_act]

    def combine(self, query: Tensor, attended: Tensor) -> Tensor:
        """[B, n, d] of a layer's input `query` [B, n, d] and what it attended to [B, n, d]."""
        hidden = self.attention_norm(query + self.dropout(attended))
        return self.outer_norm(hidden + self.dropout(self.outer(self.activation(self.inner(hidden)))))


class TransformerLayer(PostNormLayer):
    """Attention, then `PostNormLayer`.

    With `memory` it is the cross-attention layer of the fusion (Eq. 6, 7), without it a layer of Eq. 4, 5.
    """

    def __init__(
        self, *, hidden_size: int, n_heads: int, hidden_dropout: float, attn_dropout: float, **parts: Any
    ) -> None:
        """`parts`: `inner_size`, `hidden_act` and `eps` of `PostNormLayer.add_parts`."""
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size=hidden_size, n_heads=n_heads, dropout=attn_dropout)
        self.add_parts(hidden_size=hidden_size, dropout=hidden_dropout, **parts)

    def forward(self, query: Tensor, memory: Tensor | None, bias: Tensor) -> Tensor:
        """[B, n, d] of `query` [B, n, d] and `memory` [B, m, d] or None; `bias` as in `MultiHeadAttention`."""
        return self.combine(query, self.attention(query, memory, bias))


class VideoExtractor(nn.Module):
    """Eq. 8: the mean of a sequence weighted by softmax(f(step)).

    f has no bias in its last layer: the softmax cancels it, so it could never be trained.
    """

    def __init__(self, *, hidden_size: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, 2 * hidden_size)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(2 * hidden_size, eps=eps)
        self.weight = nn.Linear(2 * hidden_size, 1, bias=False)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """[B, d] of `sequence` [B, n, d]; `mask` [B, n] is True at existing steps, one at least per row."""
        scores = self.weight(F.gelu(self.norm(self.dropout(self.inner(sequence)))))  # [B, n, 1]
        weights = scores.transpose(1, 2).masked_fill(~mask.unsqueeze(1), -math.inf).softmax(dim=-1)  # [B, 1, n]
        return torch.bmm(weights, sequence).squeeze(1)


class CommentExtractor(nn.Module):
    """Eq. 9: the video being watched attends to a sequence; residual with that query, then LayerNorm."""

    def __init__(
        self, *, hidden_size: int, n_heads: int, hidden_dropout: float, attn_dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size=hidden_size, n_heads=n_heads, dropout=attn_dropout)
        self.dropout = Dropout(hidden_dropout)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)

    def forward(self, sequence: Tensor, mask: Tensor, query: Tensor) -> Tensor:
        """[B, d] of `sequence` [B, m, d] and `query` [B, d]; `mask` [B, m] as in `VideoExtractor`."""
        attended = self.attention(query.unsqueeze(1), sequence, padding_bias(mask, sequence)).squeeze(1)
        return self.norm(query + self.dropout(attended))
