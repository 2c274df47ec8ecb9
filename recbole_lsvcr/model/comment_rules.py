"""Popularity, newest comment and text similarity as comment models: nothing to train, evaluated like any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_lsvcr.data.comment_counts import CommentCounts
from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.comment_base import CommentRule
from recbole_lsvcr.model.losses import normalize


class CommentPop(CommentRule):
    """Comments by the interactions that other users had with them strictly before the instance's time.

    What a service would know at that moment, validation and test period included: a rule that stopped counting at the
    end of training would not know the comments of its own days, and would be too easily beaten.
    """

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.counts = CommentCounts(dataset.joint.tables)
        self.TIME = config["TIME_FIELD"]

    def score_candidates(self, interaction: Interaction, comments: Tensor) -> Tensor:
        """Counts [B, C] of the comments int64 [B, C]."""
        users, times = interaction[self.USER_ID].cpu().numpy(), interaction[self.TIME].cpu().numpy()
        counts = self.counts.before(comments.cpu().numpy(), users, times)
        return torch.from_numpy(counts.astype(np.float32)).to(comments.device)


class CommentNewest(CommentRule):
    """The newest comment first; comments without a posting time last."""

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        # Whole numbers stay exact in float32 scores up to 2^24 moments, times would not.
        _, order = np.unique(dataset.joint.tables.comment_time, return_inverse=True)
        self.order = order.astype(np.int32)  # [n_comments]

    def score_candidates(self, interaction: Interaction, comments: Tensor) -> Tensor:
        """Places [B, C] in order of posting of the comments int64 [B, C]."""
        return torch.from_numpy(self.order[comments.cpu().numpy()].astype(np.float64)).to(comments.device)


class CommentTextSim(CommentRule):
    """Comments by the cosine of their vector with the mean vector of the comments in the user's records."""

    reads_text = True
    reads_comments = True

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.texts = dataset.texts

    def score_candidates(self, interaction: Interaction, comments: Tensor) -> Tensor:
        """Cosines [B, C] of the comments int64 [B, C]; 0 where either side has no text."""
        history = interaction["record_comment_list"].flatten(1)  # [B, m K]
        distinct, places = torch.unique(torch.cat([history, comments], dim=1), return_inverse=True)
        vectors = normalize(self.texts.comments(distinct))
        written, ranked = places.split([history.shape[1], comments.shape[1]], dim=1)
        mean = normalize(F.embedding_bag(written, vectors, mode="sum"))  # [B, H]; the sum has the mean's direction
        return (vectors[ranked] @ mean.unsqueeze(2)).squeeze(2)
