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
from recbole_lsvcr.errors import DataError
from recbole_lsvcr.model.sr import SRConfig, SRModel
from recbole_lsvcr.model.video import SRBatch, VideoObjective, video_forward, video_scores


class LSVCR(SequentialRecommender):
    """LSVCR on the video task (Eq. 1-8, 17-19): text of both histories, gated ids, cosine scores at temperature τ.

    Reads a `JointDataset` and its text store; nothing of the language model that made the vectors is needed.
    """

    input_type = InputType.POINTWISE
    reads_text = True
    reads_comments = True
    aligns = True

    @staticmethod
    def sr_config(config: Any, max_positions: int) -> SRConfig:
        """The SR model's sizes as the configuration names them, without ids and for text of width `text_size`."""
        return SRConfig(
            hidden_size=config["hidden_size"],
            text_size=config["text_size"],
            n_layers=config["n_layers"],
            n_heads=config["n_heads"],
            inner_size=config["inner_size"],
            hidden_dropout_prob=config["hidden_dropout_prob"],
            attn_dropout_prob=config["attn_dropout_prob"],
            hidden_act=config["hidden_act"],
            layer_norm_eps=config["layer_norm_eps"],
            initializer_range=config["initializer_range"],
            max_positions=max_positions,
        )

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        if not isinstance(dataset, JointDataset):
            raise DataError(
                f"LSVCR reads the joint data set, but was given a {type(dataset).__name__}; create it with "
                "recbole_lsvcr.data.dataset.JointDataset "
                "(run_recbole and run_lsvcr.py do)"
            )
        self.texts = dataset.texts
        use_id = bool(config["use_id"])
        sizes = self.sr_config(config, max(dataset.joint.max_videos, dataset.joint.max_records))
        encoder_size = None if self.texts.aligned else self.texts.size
        self.sr = SRModel(replace(sizes, encoder_size=encoder_size, n_items=self.n_items if use_id else None))
        if use_id:
            self.sr.seen.copy_(torch.from_numpy(dataset.seen_items))
        self.objective = VideoObjective(
            temperature=config["temperature"],
            regularization=config["id_text_weight"] if use_id else 0.0,
            negatives=config["id_text_negatives"],
            train_candidates=config["train_candidates"] if use_id else "all",
        )
        self.register_buffer("titles", self.texts.titles, persistent=False)  # [n_items, H]
        self._ranking: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def _batch(self, interaction: Interaction, with_target: bool) -> SRBatch:
        return SRBatch(
            video_items=interaction[self.ITEM_SEQ],
            video_comments=interaction["video_comment_list"],
            video_len=interaction[self.ITEM_SEQ_LEN],
            record_items=interaction["record_item_list"],
            record_comments=interaction["record_comment_list"],
            record_len=interaction["record_length"],
            target=interaction[self.ITEM_ID] if with_target else None,
        )

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
