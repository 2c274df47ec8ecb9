"""`CommentDSSM`: two towers, the user's id and the comment's text; no history (Huang et al. 2013, CIKM)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.baselines.base import CommentBaseline, UserInput
from recbole_lsvcr.model.losses import normalize


class CommentDSSM(CommentBaseline):
    """Deep structured semantic model: tanh towers for user and comment, the cosine of both divided by τ.

    The user is an id embedding, as the paper's comparison has it ("does not involve user comment interaction history").
    A user without training records keeps the embedding it was initialised with.
    """

    reads_history = False

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        d = self.hidden_size
        self.user_embedding = nn.Embedding(dataset.joint.n_users, d, padding_idx=0)
        nn.init.normal_(self.user_embedding.weight, std=config["initializer_range"])
        self.user_tower = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d), nn.Tanh())
        self.comment_tower = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d), nn.Tanh())

    def user_vector(self, inputs: UserInput) -> Tensor:
        """[B, d]"""
        return normalize(self.user_tower(self.dropout(self.user_embedding(inputs.users)))) / self.temperature

    def comment_vector(self, comments: Tensor) -> Tensor:
        """[..., d]"""
        return normalize(self.comment_tower(comments))
