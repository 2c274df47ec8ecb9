"""`CommentMHA`: self-attention, then additive attention over the comment history (the user encoder of NRMS, Wu et al.
2019, EMNLP).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.model.baselines.base import AdditiveAttention, CommentBaseline, UserInput


class CommentMHA(CommentBaseline):
    """Steps attend to each other with several heads, without positions; their attention-weighted mean is the user."""

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.heads = nn.MultiheadAttention(
            self.hidden_size, config["n_heads"], dropout=config["attn_dropout_prob"], batch_first=True
        )
        self.attention = AdditiveAttention(self.hidden_size)

    def user_vector(self, inputs: UserInput) -> Tensor:
        """[B, d]"""
        steps = inputs.history
        steps, _ = self.heads(steps, steps, steps, key_padding_mask=~inputs.mask, need_weights=False)
        return self.attention(steps, inputs.mask)
