"""`LSVCRComment`: the sequential recommendation model, fine-tuned for comments, as a RecBole context-aware model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_lsvcr.data.dataset import CANDIDATES, JointDataset
from recbole_lsvcr.model.comment import CommentObjective, comment_forward, comment_scores
from recbole_lsvcr.model.comment_base import CommentRecommender
from recbole_lsvcr.model.shell import FIELD_NAMES, SRShell
from recbole_lsvcr.model.streams import SRBatch


class LSVCRComment(SRShell, CommentRecommender):
    """LSVCR on the comment task (Eq. 1-7, 9, 17-19): which comments under the video being watched the user will like.

    The same SR model as `LSVCR`; comments are ranked by text alone, cosine scores at temperature τ. `video_context:
    off` hides the video history from it.
    """

    titles: Tensor

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.texts = dataset.texts
        self.sr = self.make_sr(config, dataset)
        self.objective = CommentObjective(
            temperature=config["temperature"],
            regularization=config["id_text_weight"] if config["use_id"] else 0.0,
            negatives=config["id_text_negatives"],
        )
        self.fields = {name: config[name] for name in FIELD_NAMES}
        self.video_context = bool(config["video_context"])
        self.register_buffer("titles", self.texts.titles, persistent=False)  # [n_items, H]

    def _batch(self, interaction: Interaction) -> SRBatch:
        batch = self.histories(self.fields, interaction)
        if self.video_context:
            return batch
        none = torch.zeros_like(batch.video_items[:, :1])
        return replace(batch, video_items=none, video_comments=none, video_len=torch.zeros_like(batch.video_len))

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """`(ranking loss, η L_REG)`, scalars whose sum is Eq. 19; the first alone without ids or with η = 0."""
        losses = self.objective(
            self.sr,
            self._batch(interaction),
            interaction[self.ITEM_ID],
            interaction[CANDIDATES],
            self.titles,
            self.texts.comments,
        )
        if losses.regularization is None:
            return losses.ranking
        return losses.ranking, self.objective.regularization * losses.regularization

    def preference(self, interaction: Interaction) -> Tensor:
        """Preference vectors s^c [B, d] under the videos in `item_id` (Eq. 9)."""
        watched = interaction[self.ITEM_ID]
        return comment_forward(self.sr, self._batch(interaction), watched, self.titles, self.texts.comments).preference

    def score_candidates(self, interaction: Interaction, comments: Tensor) -> Tensor:
        """Scores cos/τ [B, C] of the comments int64 [B, C]; 0 for padding and comments without text."""
        return comment_scores(
            self.sr, self.preference(interaction), comments, self.texts.comments, self.objective.temperature
        )
