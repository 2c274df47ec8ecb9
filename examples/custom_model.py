"""A sequential model of one's own, written as RecBole wants it, and used by its import path:

    python run_lsvcr.py --config properties/quickstart.yaml --task video --model=examples.custom_model:MyGRU \\
        --output runs/my-gru

from the folder above `examples`. It is trained, resumed and ranked as all others are, on the same split and against the
same candidates. The defaults of its parameters stand beside it, in MyGRU.yaml; --hidden_size=32 changes one. What is
printed is the usual table:

    MyGRU on lsvcr-sample (synthetic data), test: 5,275 targets of 1,235 users
    ranking           Recall@5  Recall@10  NDCG@5  NDCG@10  MRR@10     MRR  targets
    all+uniform         0.2082     0.2990  0.1379   0.1670  0.1267  0.1475    5,275
    …

In a RecBole program: `recbole_lsvcr.register_model("examples.custom_model:MyGRU")`, then
`run_recbole(model="MyGRU", …)`.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn


class MyGRU(SequentialRecommender):
    """A GRU reads the videos of the history; its last state scores every video by their inner product."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = config["hidden_size"]
        self.items = nn.Embedding(self.n_items, size, padding_idx=0)
        self.dropout = nn.Dropout(config["dropout_prob"])
        self.gru = nn.GRU(size, size, batch_first=True)
        nn.init.normal_(self.items.weight, std=0.02)

    def forward(self, videos: Tensor, length: Tensor) -> Tensor:
        """The state [B, hidden_size] after the histories int64[B, L], `length` [B] videos of which are no padding."""
        states, _ = self.gru(self.dropout(self.items(videos)))
        return self.gather_indexes(states, length - 1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores of all videos [B, n_items]."""
        return self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]) @ self.items.weight.T

    def predict(self, interaction: Any) -> Tensor:
        """Scores of the videos `item_id` [B]."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None]).squeeze(1)

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Cross-entropy of the next video among all."""
        return torch.nn.functional.cross_entropy(self.full_sort_predict(interaction), interaction[self.POS_ITEM_ID])
