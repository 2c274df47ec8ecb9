"""`CommentTEM`: a Transformer over the query and the history (Bi et al. 2020, arXiv 2005.08936)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.baselines.base import CommentBaseline, UserInput


class CommentTEM(CommentBaseline):
    """The state of the query, the title of the video being watched, after it and the history attended to each other.

    Positions are learned: the query has the first, the newest step of the history the second.
    """

    reads_query = True

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        d = self.hidden_size
        layer = nn.TransformerEncoderLayer(
            d,
            config["n_heads"],
            dim_feedforward=config["inner_size"],
            dropout=config["hidden_dropout_prob"],
            activation=config["hidden_act"],
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config["n_layers"], enable_nested_tensor=False)
        self.position = nn.Embedding(1 + dataset.joint.max_records, d)
        nn.init.normal_(self.position.weight, std=config["initializer_range"])

    def user_vector(self, inputs: UserInput) -> Tensor:
        """[B, d]"""
        steps = torch.cat([inputs.query.unsqueeze(1), inputs.history], dim=1)  # [B, 1 + m, d]
        place = torch.arange(inputs.history.shape[1], device=steps.device)
        age = (inputs.length.unsqueeze(1) - place).clamp(min=0)  # [B, m] 1 for the newest step
        positions = torch.cat([torch.zeros_like(age[:, :1]), age], dim=1)
        hidden = torch.cat([torch.zeros_like(inputs.mask[:, :1]), ~inputs.mask], dim=1)
        return self.encoder(steps + self.position(positions), src_key_padding_mask=hidden)[:, 0]
