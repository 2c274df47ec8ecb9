"""What the objectives of both tasks share: a ranking loss and the id-text regularisation (Eq. 19). Pure PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.losses import TEMPERATURE, Steps, id_text_regularization
from recbole_lsvcr.model.sr import SRModel


@dataclass(frozen=True)
class Losses:
    """Scalars of one step: `total` is `ranking + η · regularization`."""

    total: Tensor
    ranking: Tensor  # L_VRT, or its counterpart for comments
    regularization: Tensor | None  # L_REG; None when η is 0


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Settings of Eq. 19.

    temperature: τ. regularization: η; 0 leaves L_REG out, as a model without ids demands. negatives: of L_REG, per
    direction.
    """

    temperature: float = TEMPERATURE
    regularization: float = 0.1
    negatives: int = 99

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature} is not accepted: give a number above 0.")
        if not self.regularization >= 0:
            raise ConfigError(f"regularization={self.regularization} is not accepted: give a number of at least 0.")
        if self.negatives < 1:
            raise ConfigError(f"negatives={self.negatives} is not accepted: give a number of at least 1.")

    def check(self, model: SRModel) -> None:
        """Raises ConfigError for a model without ids, where there is nothing to regularise."""
        if model.id_embedding is None and self.regularization:
            raise ConfigError("A model without video ids takes regularization=0 only.")

    def losses(self, ranking: Tensor, steps: tuple[Steps, ...], generator: torch.Generator | None) -> Losses:
        """Add L_REG to a ranking loss; `generator` (a CPU one) draws its negatives."""
        if not self.regularization:
            return Losses(ranking, ranking, None)
        regularization = id_text_regularization(
            steps, negatives=self.negatives, temperature=self.temperature, generator=generator
        )
        return Losses(ranking + self.regularization * regularization, ranking, regularization)
