"""`CommentATT`: additive attention over the comment history (the user encoder of NAML, Wu et al. 2019, IJCAI)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.baselines.base import AdditiveAttention, CommentBaseline, UserInput


class CommentATT(CommentBaseline):
    """The user is the attention-weighted mean of the history."""

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.attention = AdditiveAttention(self.hidden_size)

    def user_vector(self, inputs: UserInput) -> Tensor:
        """[B, d]"""
        return self.attention(inputs.history, inputs.mask)
