"""`LSVCR`: the sequential recommendation model, fine-tuned for videos, as a RecBole sequential recommender."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.shell import FIELD_NAMES, SRShell, require_joint
from recbole_lsvcr.model.streams import SRBatch
from recbole_lsvcr.model.video import VideoObjective, video_forward, video_scores


class LSVCR(SRShell, SequentialRecommender):
    """LSVCR on the video task (Eq. 1-8, 17-19): text of both histories, gated ids, cosine scores at temperature τ.

    Reads a `JointDataset` and its text store; nothing of the language model that made the vectors is needed.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.texts = require_joint(self, dataset).texts
        self.sr = self.make_sr(config, dataset)
        use_id = bool(config["use_id"])
        self.fields = {name: config[name] for name in FIELD_NAMES}
        self.objective = VideoObjective(
            temperature=config["temperature"],
            regularization=config["id_text_weight"] if use_id else 0.0,
            negatives=config["id_text_negatives"],
            train_candidates=config["train_candidates"] if use_id else "all",
        )
        self.register_buffer("titles", self.texts.titles, persistent=False)  # [n_items, H]
        self._ranking: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def _batch(self, interaction: Interaction, with_target: bool) -> SRBatch:
        batch = self.histories(self.fields, interaction)
        return replace(batch, target=interaction[self.ITEM_ID]) if with_target else batch

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, Tensor]:
        """`(L_VRT, η L_REG)`, scalars whose sum is Eq. 19; L_VRT alone without ids or with η = 0."""
        losses = self.objective(self.sr, self._batch(interaction, True), self.titles, self.texts.comments)
        if losses.regularization is None:
            return losses.ranking
        return losses.ranking, self.objective.regularization * losses.regularization

    def _candidates(self) -> tuple[Tensor, Tensor]:
        """Projected titles and candidate vectors, both [n_items, d]; in evaluation made once for a state of the
        weights.
        """
        if torch.is_grad_enabled() or self.training:
            projected = self.sr.embed_text(self.titles)
            return projected, self.sr.video_candidates(projected)
        state = tuple(parameter._version for parameter in self.sr.parameters())
        if self._ranking is None or self._ranking[0] != state:
            projected = self.sr.embed_text(self.titles)
            self._ranking = (state, projected, self.sr.video_candidates(projected))
        return self._ranking[1], self._ranking[2]

    def forward(self, interaction: Interaction) -> Tensor:
        """Preference vectors s^v [B, d] (Eq. 8)."""
        return video_forward(
            self.sr, self._batch(interaction, False), self._candidates()[0], self.texts.comments
        ).preference

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores cos/τ of every video, [B, n_items]; column 0 is padding."""
        preference = self.forward(interaction)
        return video_scores(preference, self._candidates()[1], self.objective.temperature)

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores [B] of the videos in `item_id`."""
        preference = self.forward(interaction)
        wanted = self._candidates()[1][interaction[self.ITEM_ID]]  # [B, d]
        return torch.cosine_similarity(preference, wanted, dim=-1, eps=1e-12) / self.objective.temperature
