"""`CommentGRU`: the last state of a GRU over the comment history (Cho et al. 2014; as a user model, An et al. 2019)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.baselines.base import CommentBaseline, UserInput


class CommentGRU(CommentBaseline):
    """The short-term user representation of LSTUR: a GRU reads the history, its last state is the user."""

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.gru = nn.GRU(self.hidden_size, self.hidden_size, batch_first=True)

    def user_vector(self, inputs: UserInput) -> Tensor:
        """[B, d]"""
        states, _ = self.gru(inputs.history)  # [B, m, d]; a state depends on earlier steps only
        last = (inputs.length - 1).view(-1, 1, 1).expand(-1, 1, self.hidden_size)
        return states.gather(1, last).squeeze(1)
