"""`MBHT`: Multi-Behavior Hypergraph-Enhanced Transformer (Yang et al., KDD 2022, arXiv 2207.05584), a baseline.

The behaviours are watching a video, which is predicted, and commenting under one (a comment record: likes, replies).
Written from summaries of the paper, not its full text; not checked against it are that Ĥ has J rows in the fusion, that
the last convolution's states are taken, the number of metric channels and how often the last position is masked.
What is ours, where the paper is silent or its data differ:
  * The behaviours come as two histories; `merge_events` puts the newest `max_events` in order, a record at its last
    interaction. By default none is dropped, so that the videos are those that other models read.
  * A sequence ends in the last slot, padding is in front: the matrices along the length (E, F, f) then tell recent
    events from old ones, and the mask token of inference has one place.
  * E and F are shared by the heads, and so is f; each scale has its own W_Q, W_K, W_V. Embeddings are normalised and
    thinned before the first layer, as in BERT4Rec.
  * Hypergraph nodes are the events, starting from item + behaviour embeddings; similarities below 0 make no hyperedge
    (degrees stay positive), and the last convolution's states are taken.
  * A training sequence ends with the target. In a share `ft_ratio` of them the target alone is masked, as at inference;
    in the others random videos are, and comments under these are hidden, since a record next to a masked video names
    it, and no such record is there at inference.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.events import Events, append_video, draw_masks, hide, merge_events
from recbole_lsvcr.model.layers import Dropout, init_weights
from recbole_lsvcr.model.losses import dot_product_loss
from recbole_lsvcr.model.mbht_layers import (
    CrossViewAggregation,
    MultiScaleLayer,
    Similarity,
    behaviour_hyperedges,
    hypergraph_convolution,
    semantic_hyperedges,
)
from recbole_lsvcr.model.shell import require_joint


class MBHT(SequentialRecommender):
    """A multi-scale Transformer and a hypergraph over one sequence of both behaviours, trained by masked videos.

    B instances in J slots: `max_events` and one more for the target or its mask token, whose id is `n_items`.
    """

    input_type = InputType.POINTWISE
    reads_comments = True
    reads_times = True

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        joint = require_joint(self, dataset).joint
        size, eps = config["hidden_size"], config["layer_norm_eps"]
        self.max_events: int = config["max_events"] or joint.max_videos + joint.max_records
        self.mask_ratio, self.ft_ratio = config["mask_ratio"], config["ft_ratio"]
        self.hyperedge_size, self.n_convolutions = config["hyperedge_size"], config["n_hypergraph_layers"]
        self.mask_token = self.n_items

        self.item_embedding = nn.Embedding(self.n_items + 1, size, padding_idx=0)
        self.behaviour_embedding = nn.Embedding(3, size, padding_idx=0)
        self.position_embedding = nn.Embedding(self.max_events + 1, size)
        self.norm = nn.LayerNorm(size, eps=eps)
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.layers = nn.ModuleList(
            MultiScaleLayer(
                hidden_size=size,
                n_heads=config["n_heads"],
                inner_size=config["inner_size"],
                slots=self.max_events + 1,
                low_rank=config["low_rank"],
                scales=config["scales"],
                hidden_dropout=config["hidden_dropout_prob"],
                attn_dropout=config["attn_dropout_prob"],
                hidden_act=config["hidden_act"],
                eps=eps,
            )
            for _ in range(config["n_layers"])
        )
        self.similarity = Similarity(hidden_size=size, channels=config["metric_channels"])
        self.aggregation = CrossViewAggregation(size)
        init_weights(self, config["initializer_range"])

    def events(self, interaction: Interaction) -> Events:
        """The newest events of both histories in order of time, [B, J - 1]."""
        return merge_events(
            interaction[self.ITEM_SEQ],
            interaction["video_time_list"],
            interaction["record_item_list"],
            interaction["record_time_list"],
            length=self.max_events,
        )

    def encode(self, events: Events) -> Tensor:
        """The states g [B, J, d] of `events` [B, J], mask tokens among them; every row has an event."""
        exists = events.items > 0
        nodes = self.item_embedding(events.items) + self.behaviour_embedding(events.behaviours)
        return self.aggregation(self._sequential(nodes, exists), self._hypergraph(nodes, events, exists))

    def _sequential(self, nodes: Tensor, exists: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(nodes + self.position_embedding.weight)) * exists.unsqueeze(2)
        for layer in self.layers:
            hidden = layer(hidden, exists)
        return hidden

    def _hypergraph(self, nodes: Tensor, events: Events, exists: Tensor) -> Tensor:
        similarity = self.similarity(self.item_embedding(events.items))
        semantic = semantic_hyperedges(similarity, exists, self.hyperedge_size)
        behaviours = behaviour_hyperedges(events.items, events.behaviours, self.mask_token)
        incidence = torch.cat([semantic, behaviours.to(semantic.dtype)], dim=2)  # M = M^p ‖ M^q, [B, J, 2J]
        for _ in range(self.n_convolutions):
            nodes = hypergraph_convolution(nodes, incidence)
        return nodes

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The cross-entropy of the masked videos among all videos, a scalar."""
        events = append_video(self.events(interaction), interaction[self.ITEM_ID])
        masked = draw_masks(events, mask_ratio=self.mask_ratio, last_ratio=self.ft_ratio)
        states = self.encode(hide(events, masked, self.mask_token))[masked]
        # Without row 0, which is padding, a video's row is its id - 1.
        return dot_product_loss(states, self.item_embedding.weight[1 : self.n_items], events.items[masked] - 1)

    def forward(self, interaction: Interaction) -> Tensor:
        """The state [B, d] of a masked video that follows the histories."""
        events = self.events(interaction)
        unknown = torch.full_like(events.items[:, 0], self.mask_token)
        return self.encode(append_video(events, unknown))[:, -1]

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of every video, [B, n_items]; column 0 is padding."""
        return self.forward(interaction) @ self.item_embedding.weight[: self.n_items].T

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores [B] of the videos in `item_id`."""
        return (self.forward(interaction) * self.item_embedding(interaction[self.ITEM_ID])).sum(dim=-1)
