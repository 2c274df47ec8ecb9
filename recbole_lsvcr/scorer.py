"""Any RecBole sequential model as a scorer of the evaluation: a batch of instances in, scores of every video out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from recbole.data.interaction import Interaction

if TYPE_CHECKING:
    from recbole_lsvcr.data.dataset import JointDataset
    from recbole_lsvcr.data.joint import InstanceBatch

PAIRS = 200_000  # (instance, video) pairs scored at a time by models that cannot rank the whole catalogue


class RecBoleScorer:
    """Adapts `full_sort_predict`, or `predict` where a model has no other, to `score_full`."""

    def __init__(self, model: Any, dataset: JointDataset, device: torch.device) -> None:
        self.model = model
        self.dataset = dataset
        self.device = device
        self.name = type(model).__name__
        self.full_sort = True

    def score_full(self, batch: InstanceBatch) -> torch.Tensor:
        """Scores [B, n_items] of a batch; column 0 is padding."""
        interaction = self.dataset.to_interaction(batch).to(self.device)
        n_items = self.dataset.item_num
        if self.full_sort:
            try:
                return self.model.full_sort_predict(interaction).view(len(interaction), -1)[:, :n_items]
            except NotImplementedError:
                self.full_sort = False
        return self._by_pairs(interaction, n_items)

    def _by_pairs(self, interaction: Interaction, n_items: int) -> torch.Tensor:
        items = torch.arange(n_items, device=self.device)
        rows = max(1, PAIRS // n_items)
        scores = []
        for start in range(0, len(interaction), rows):
            part = interaction[start : start + rows]
            size = len(part)
            pairs = part.repeat_interleave(n_items)
            pairs.update(Interaction({self.dataset.iid_field: items.repeat(size)}))
            scores.append(self.model.predict(pairs).view(size, n_items))
        return torch.cat(scores)
