"""Any RecBole sequential or context-aware model as a scorer of the evaluation: instances in, scores out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender

if TYPE_CHECKING:
    from recbole_lsvcr.data.dataset import JointDataset
    from recbole_lsvcr.data.joint import InstanceBatch

PAIRS = 200_000  # (instance, candidate) pairs scored at a time by comment models that score nothing but pairs
STEPS = 400_000  # the same for video models: pairs times the steps of their histories, which DIN has states for


class _Scorer:
    """A model, the data set whose instances it is given, and where it computes."""

    def __init__(self, model: Any, dataset: JointDataset, device: torch.device) -> None:
        self.model = model
        self.dataset = dataset
        self.device = device
        self.name = type(model).__name__


class RecBoleScorer(_Scorer):
    """Adapts `full_sort_predict`, or `predict` where a model has no other, to `score_full`."""

    @property
    def ranks_all(self) -> bool:
        """Whether the model has a `full_sort_predict` of its own; RecBole's DIN and DIEN have none."""
        return type(self.model).full_sort_predict is not AbstractRecommender.full_sort_predict

    def score_full(self, batch: InstanceBatch) -> torch.Tensor:
        """Scores [B, n_items] of a batch; column 0 is padding."""
        interaction = self.dataset.to_interaction(batch).to(self.device)
        n_items = self.dataset.item_num
        if not self.ranks_all:
            return self._by_pairs(interaction, n_items)
        return self.model.full_sort_predict(interaction).view(len(interaction), -1)[:, :n_items]

    def _by_pairs(self, interaction: Interaction, n_items: int) -> torch.Tensor:
        items = torch.arange(n_items, device=self.device)
        rows = max(1, STEPS // (n_items * interaction[self.dataset.item_seq_field].shape[1]))
        scores = []
        for start in range(0, len(interaction), rows):
            part = interaction[start : start + rows]
            size = len(part)
            pairs = part.repeat_interleave(n_items)
            pairs.update(Interaction({self.dataset.iid_field: items.repeat(size)}))
            scores.append(self.model.predict(pairs).view(size, n_items))
        return torch.cat(scores)


class VideoCandidateScorer(RecBoleScorer):
    """For models of videos with a `score_candidates`: sampled rankings score the stored candidates and no others."""

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        """Scores [B, C] of the videos `items` int64[B, C]; padding has some score, which nobody reads."""
        interaction = self.dataset.to_interaction(batch).to(self.device)
        return self.model.score_candidates(interaction, items.to(self.device))


class CommentScorer(_Scorer):
    """Adapts `score_candidates`, or the `predict` of RecBole's own context-aware models, to lists of comments."""

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        """Scores [B, C] of the comments `items` int64[B, C]; 0 for padding."""
        interaction = self.dataset.to_interaction(batch)
        if not self.dataset.labelled:
            return self.model.score_candidates(interaction.to(self.device), items.to(self.device))
        items = items.cpu()
        pairs = self.dataset.pairs(interaction, items)
        parts = [pairs[first : first + PAIRS].to(self.device) for first in range(0, len(pairs), PAIRS)]
        scores = torch.zeros(items.shape, device=self.device)
        if parts:  # none: no instance of the batch has a candidate
            scores[(items > 0).to(self.device)] = torch.cat([self.model.predict(part).flatten() for part in parts])
        return scores


def scorer_of(model: Any, dataset: JointDataset, device: torch.device) -> RecBoleScorer | CommentScorer:
    """The scorer of a model for what the data set's instances are."""
    if dataset.kind == "comment":
        return CommentScorer(model, dataset, device)
    return (VideoCandidateScorer if hasattr(model, "score_candidates") else RecBoleScorer)(model, dataset, device)
