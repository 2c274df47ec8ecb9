"""Popularity, newest video and text similarity as RecBole models: nothing to train, evaluated like any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import nn

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.model.rankings import newest_scores, release_order, text_similarity


class TrivialRanking(SequentialRecommender):
    """A ranking without parameters that RecBole's `Trainer` can run through its epochs: the loss is 0 and stays 0."""

    input_type = InputType.POINTWISE
    learns = False

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.unused = nn.Parameter(torch.zeros(1))  # an optimiser needs one

    def calculate_loss(self, interaction: Interaction) -> torch.Tensor:
        """0, with a gradient of 0."""
        return self.unused.sum() * 0.0

    def predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of the videos `item_id` [B]: float32[B]."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None]).squeeze(1)

    def _of_joint(self, dataset: Any, name: str) -> Any:
        value = getattr(dataset, name, None)
        if value is None:
            raise ConfigError(
                f"model {type(self).__name__} needs the joint data set (its `{name}`), but got a "
                f"{type(dataset).__name__}; run it with run_lsvcr.py, or give recbole_lsvcr's JointDataset"
            )
        return value


class Popularity(TrivialRanking):
    """Videos by their number of training interactions."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        counts = self._of_joint(dataset, "joint").train_item_count
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.float32)), persistent=False)

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of every video, float32[B, n_items]."""
        return self.counts.expand(len(interaction), -1).clone()


class Newest(TrivialRanking):
    """The newest video that exists at the instance's time; what is uploaded later ranks last."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.TIME = config["TIME_FIELD"]
        self.moments, order = release_order(self._of_joint(dataset, "item_time"))
        self.register_buffer("order", torch.from_numpy(order), persistent=False)

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of every video, float32[B, n_items]; the times must be exact (float64)."""
        return newest_scores(self.order, self.moments, interaction[self.TIME].double().cpu().numpy())


class TextSim(TrivialRanking):
    """Videos by the cosine of their title's vector with the mean title vector of the history."""

    reads_text = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        vectors = np.array(self._of_joint(dataset, "title_vectors")(), dtype=np.float32)
        self.register_buffer("titles", torch.from_numpy(vectors), persistent=False)

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of every video, float32[B, n_items]."""
        return text_similarity(interaction[self.ITEM_SEQ], self.titles)
