"""`MBHT`: Multi-Behavior Hypergraph-Enhanced Transformer (Yang et al., KDD 2022, arXiv 2207.05584), a baseline.

The behaviours are watching a video, which is predicted, and commenting under one (a comment record: likes, replies).
Written from summaries of the paper; where these are silent it follows the authors' released configuration and what
their program computes: the target is always masked, in training too; a gated item embedding enters the hypergraph,
without its behaviour, and two channels compare it; the mean of the states after each of two convolutions is taken; a
masked video is in no hyperedge of others, and its state there is the mean of those near it. Where that program departs
from the equations, the equations hold here: it has a weight matrix, a bias and dropout in each convolution, a residual
and a norm in each attention as well, the same weights for both coarse scales, whose means are of events J/p apart, and
E and F of 5 rows, whatever the length.
What is ours, where the paper is silent or its data differ:
  * The behaviours come as two histories; `merge_events` puts the newest `max_events` in order, a record at its last
    interaction. By default none is dropped, so that the videos are those that other models read.
  * A sequence ends in the last slot, padding is in front: the matrices along the length (E, F, f) then tell recent
    events from old ones, and the mask token of inference has one place.
  * E and F are shared by the heads, and so is f; each scale has its own W_Q, W_K, W_V. Embeddings are normalised and
    thinned before the first layer, as in BERT4Rec.
  * Hypergraph nodes are the events; similarities below 0 make no hyperedge (degrees stay positive).
  * Comments under a masked video before the target are hidden, since a record next to it names it.
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
    SelfGate,
    Similarity,
    behaviour_hyperedges,
    hypergraph_convolution,
    semantic_hyperedges,
    window_means,
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
        self.mask_ratio = config["mask_ratio"]
        self.window = config["window_before"], config["window_after"]
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
        self.gate = SelfGate(size)
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
        items = self.item_embedding(events.items)
        return self.aggregation(self._sequential(items, events, exists), self._hypergraph(items, events, exists))

    def _sequential(self, items: Tensor, events: Events, exists: Tensor) -> Tensor:
        inputs = items + self.behaviour_embedding(events.behaviours) + self.position_embedding.weight
        hidden = self.dropout(self.norm(inputs)) * exists.unsqueeze(2)
        for layer in self.layers:
            hidden = layer(hidden, exists)
        return hidden

    def _hypergraph(self, items: Tensor, events: Events, exists: Tensor) -> Tensor:
        known = exists & (events.items != self.mask_token)
        nodes = self.gate(items)
        semantic = semantic_hyperedges(self.similarity(nodes), known, self.hyperedge_size)
        behaviours = behaviour_hyperedges(events.items, events.behaviours, self.mask_token)
        incidence = torch.cat([semantic, behaviours.to(semantic.dtype)], dim=2)  # M = M^p ‖ M^q, [B, J, 2J]
        states = []
        for _ in range(self.n_convolutions):
            nodes = hypergraph_convolution(nodes, incidence)
            states.append(nodes)
        nodes = torch.stack(states).mean(dim=0)
        return torch.where(known.unsqueeze(2), nodes, window_means(nodes, known, *self.window))

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The cross-entropy of the masked videos, the target among them, among all videos, a scalar."""
        events = append_video(self.events(interaction), interaction[self.ITEM_ID])
        masked = draw_masks(events, self.mask_ratio)
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
