"""`CommentRecommender`: what every comment model of ours is to RecBole, whatever scores the comments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, ContextRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_lsvcr.data.dataset import CANDIDATES, COMMENT_ID, JointDataset
from recbole_lsvcr.model.comment import ranking_loss
from recbole_lsvcr.model.shell import require_joint


class CommentRecommender(ContextRecommender, ABC):
    """A context-aware recommender (user, video being watched, comment) that scores lists of comments at once.

    A model implements `score_candidates`; training is then the softmax over a record's positive and its sampled
    negatives (method: section 8), and `predict` scores the comment of each row. It reads a `JointDataset`.
    """

    input_type = InputType.POINTWISE
    reads_candidates = True

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        # ContextRecommender's own __init__ makes embedding tables of all users, videos and comments, which our models
        # have no use for.
        AbstractRecommender.__init__(self)
        require_joint(self, dataset)
        self.device = config["device"]
        self.USER_ID, self.ITEM_ID = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]

    @abstractmethod
    def score_candidates(self, interaction: Interaction, comments: Tensor) -> Tensor:
        """Scores [B, C] of the comments int64 [B, C] (0: padding, any finite score) for the instances of a batch."""

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """Cross-entropy of the positive among its sampled negatives: a scalar."""
        candidates = interaction[CANDIDATES]
        return ranking_loss(self.score_candidates(interaction, candidates), candidates)

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores [B] of the comments in `comment_id`."""
        return self.score_candidates(interaction, interaction[COMMENT_ID].unsqueeze(1)).squeeze(1)

    def forward(self, interaction: Interaction) -> Tensor:
        """As `predict`."""
        return self.predict(interaction)


class CommentRule(CommentRecommender):
    """A ranking without parameters that RecBole's trainer can run through its epochs: the loss is 0 and stays 0."""

    learns = False

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.unused = torch.nn.Parameter(torch.zeros(1))  # an optimiser needs one

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """0, with a gradient of 0."""
        return self.unused.sum() * 0.0
