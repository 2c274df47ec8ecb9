"""`CommentZAM`: the zero attention model of personalised search (Ai et al. 2019, arXiv 1908.11322)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.baselines.base import CommentBaseline, UserInput


class CommentZAM(CommentBaseline):
    """The query attends to the history and to a zero vector, which takes what the history does not deserve.

    The query q is the title of the video being watched. Attention `f(q, i) = (i · tanh(W_f q + b_f)) W_h` with one
    product a head; a zero vector has `exp(0) = 1` in the softmax. The user under this query is `q + Σ a_i i`, and the
    query alone without a history.
    """

    reads_query = True
    replaces_empty = False

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.n_heads = int(config["n_heads"])
        self.query_heads = nn.Linear(self.hidden_size, self.n_heads * self.hidden_size)  # W_f, b_f
        self.reduce = nn.Linear(self.n_heads, 1, bias=False)  # W_h

    def user_vector(self, inputs: UserInput) -> Tensor:
        """[B, d]"""
        heads = torch.tanh(self.query_heads(inputs.query)).view(-1, self.n_heads, self.hidden_size)
        logits = self.reduce(inputs.history @ heads.transpose(1, 2)).squeeze(2)  # [B, m]
        logits = logits.masked_fill(~inputs.mask, -torch.inf)
        with_zero = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
        weights = with_zero.softmax(dim=1)[:, 1:]
        return inputs.query + (weights.unsqueeze(1) @ inputs.history).squeeze(1)
