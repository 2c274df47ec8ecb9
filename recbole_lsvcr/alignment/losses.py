"""The losses of preference alignment (Eq. 10-16) and what tells whether it works. Pure PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.losses import TEMPERATURE, cosine_logits, info_nce, normalize


@dataclass(frozen=True, kw_only=True)
class AlignmentObjective:
    """Eq. 16: `L_LM + λ L_SR + μ (L_SSC + L_VCC)`. A weight of 0 or a switch that is off leaves a loss out.

    lm: weight of L_LM (1 in the paper). sr: λ. contrast: μ. ssc, vcc: whether these losses take part (Table 4).
    """

    lm: float = 1.0
    sr: float = 1.0
    contrast: float = 0.5
    ssc: bool = True
    vcc: bool = True
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        for name in ("lm", "sr", "contrast"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)} is not accepted: give a loss weight of at least 0.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature} is not accepted: give a number above 0.")
        if not (self.lm or self.sr or (self.contrast and (self.ssc or self.vcc))):
            raise ConfigError("every alignment loss is switched off: give lm, sr or contrast a weight above 0.")

    @property
    def weights(self) -> dict[str, float]:
        """Loss name -> its weight in the sum; losses that are switched off are absent."""
        every = {"lm": self.lm, "sr": self.sr, "ssc": self.contrast * self.ssc, "vcc": self.contrast * self.vcc}
        return {name: weight for name, weight in every.items() if weight}


@dataclass(frozen=True)
class Representations:
    """What the contrastive losses see of B instances; rows of one batch or of one of its chunks."""

    preference: Tensor  # s [B, d], of the instance's task
    llm: Tensor  # s̃ [B, d]
    target: Tensor  # e [B, d]
    other: Tensor  # [B, d], the same extractor applied to the other fused sequence
    key: Tensor  # int64 [B]; equal keys are one target text


def contrastive_losses(
    rows: Representations, objective: AlignmentObjective, *, gather: bool = True
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`({"sr", "ssc", "vcc"}, health figures)`, scalars averaged over the rows of this process.

    Candidates are the rows of all processes, with gradients; every process must hold as many rows. Without `gather`
    they are those of this process: for held-out batches, which every process has alike.

    - L_SR (Eq. 11, 12): s finds its target e; rows with the same target text are no negatives of each other.
    - L_SSC (Eq. 13, 14): s finds its s̃ and the other way round.
    - L_VCC (Eq. 15): s̃ is nearer to the right sequence's extraction than to the wrong one's (two-way).

    Health: `retrieval` (share of rows whose s̃ is the nearest to s), `vcc_accuracy`, mean cosines of s with its own
    and with other rows' s̃.
    """
    first, group = 0, rows
    if gather and processes() > 1:
        first = dist.get_rank() * len(rows.preference)
        group = Representations(*(_gather(getattr(rows, field.name)) for field in fields(rows)))
    own = first + torch.arange(len(rows.preference), device=rows.preference.device)
    tau = objective.temperature
    found: dict[str, Tensor] = {}
    if "sr" in objective.weights:
        distinct = rows.key.unsqueeze(1) != group.key.unsqueeze(0)  # [B, M]; info_nce always keeps the positive
        found["sr"] = info_nce(rows.preference, group.target, own, temperature=tau, mask=distinct)
    if "ssc" in objective.weights:
        to_llm = info_nce(rows.preference, group.llm, own, temperature=tau)
        to_model = info_nce(rows.llm, group.preference, own, temperature=tau)
        found["ssc"] = (to_llm + to_model) / 2
    right, wrong = (_cosine(rows.llm, side) for side in (rows.preference, rows.other))
    if "vcc" in objective.weights:
        found["vcc"] = F.softplus((wrong - right) / tau).mean()  # two-way cross-entropy
    with torch.no_grad():
        cosines = cosine_logits(rows.preference, group.llm, 1.0)  # [B, M]
        positive = cosines.gather(1, own.unsqueeze(1)).squeeze(1)
        others = (cosines.sum(1) - positive) / max(cosines.shape[1] - 1, 1)
        health = {
            "retrieval": (cosines.argmax(1) == own).float().mean(),
            "vcc_accuracy": ((right > wrong).float() + (right == wrong).float() / 2).mean(),
            "cosine_own": positive.mean(),
            "cosine_others": others.mean(),
        }
    return found, health


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """cos [B] of the rows of x and y [B, d]."""
    return (normalize(x) * normalize(y)).sum(-1)


def language_model_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of the target tokens' cross-entropies (Eq. 10).

    `logits` [B, T, V] at positions whose NEXT tokens are to be predicted: row t is scored against `labels` [B, T]
    at t + 1, where -100 is no target.
    """
    wanted = labels[:, 1:]
    places = wanted != -100
    # Only target positions are made float32: the vocabulary may have 150,000 columns.
    return F.cross_entropy(logits[:, :-1][places].float(), wanted[places], reduction="sum")


def processes() -> int:
    """Processes that train together; 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def average_over_processes(x: Tensor) -> Tensor:
    """The mean of `x` over all processes (no gradient)."""
    if processes() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / processes()


def largest_over_processes(x: Tensor) -> Tensor:
    """The largest of each entry of `x` over all processes (no gradient)."""
    if processes() == 1:
        return x
    largest = x.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


class _Gather(torch.autograd.Function):
    """Rows of all processes, in the order of their ranks; gradients come back summed over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        ctx.rows = len(x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        total = upstream.contiguous().clone()
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.rows
        return total[first : first + ctx.rows]


def _gather(x: Tensor) -> Tensor:
    return _Gather.apply(x)
