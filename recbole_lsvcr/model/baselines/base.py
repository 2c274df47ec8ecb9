"""`CommentBaseline`: a user vector and comment vectors whose product ranks the comments; a new baseline is one small
file.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.data.texts import encoder_of
from recbole_lsvcr.model.baselines.text import FrozenText, TrainableText
from recbole_lsvcr.model.comment_base import CommentRecommender
from recbole_lsvcr.model.streams import gather_projected


@dataclass(frozen=True)
class UserInput:
    """What a baseline knows of the users of a batch; `d` is `hidden_size`. What it does not read has no columns."""

    users: Tensor  # int64 [B]
    history: Tensor  # [B, m, d] one step a comment record, the mean of its comments; oldest first, padded with zeros
    length: Tensor  # int64 [B] existing steps; 0 is an empty history
    mask: Tensor  # bool [B, m] True at existing steps, one at least in every row if the model `replaces_empty`
    query: Tensor  # [B, d] the title of the video being watched


class CommentBaseline(CommentRecommender):
    """Scores are the products of a user vector (`user_vector`) and the comments' vectors.

    The text side is frozen (the text store's vectors through LSVCR's text layers) or, as in the paper, an encoder
    trained with the model (`trainable_text`). Histories are LSVCR's comment records, each the mean of its comments. An
    empty history is replaced by a learned step, so that users without records can be ranked for, unless the model knows
    what to do without one (`replaces_empty`).
    """

    reads_text = True
    reads_comments = True
    trains_text = True  # if `trainable_text` names an encoder
    reads_history = True  # whether `user_vector` reads the comment history
    replaces_empty = True  # whether it needs at least one step
    reads_query = False  # whether it reads the title of the video being watched

    def __init__(self, config: Any, dataset: JointDataset) -> None:
        super().__init__(config, dataset)
        self.hidden_size = int(config["hidden_size"])
        self.temperature = float(config["temperature"])
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        self.text: FrozenText | TrainableText
        if config["trainable_text"]:
            tokens = int(config["trainable_text_tokens"])  # weights that learn are float32: bfloat16 rounds steps away
            encoder = encoder_of(config, config["trainable_text"], max_tokens=tokens, precision="float32")
            self.text = TrainableText(encoder, dataset.joint, hidden_size=self.hidden_size)
        else:
            self.text = FrozenText(dataset.texts, text_size=config["text_size"], hidden_size=self.hidden_size)
        self.empty: nn.Parameter | None = None
        if self.reads_history and self.replaces_empty:
            self.empty = nn.Parameter(torch.empty(self.hidden_size))
            nn.init.normal_(self.empty, std=config["initializer_range"])

    @abstractmethod
    def user_vector(self, inputs: UserInput) -> Tensor:
        """[B, d] what scores the comments for each user."""

    def comment_vector(self, comments: Tensor) -> Tensor:
        """[..., d] of comments' text vectors [..., d]; themselves unless a model says otherwise."""
        return comments

    def score_candidates(self, interaction: Interaction, comments: Tensor) -> Tensor:
        """Scores [B, C] of the comments int64 [B, C]."""
        length = interaction["record_length"]
        written = interaction["record_comment_list"][:, : max(int(length.max()), 1)]  # [B, m, K]
        if not self.reads_history:
            written = written[:, :0]
        vectors, (history, candidates) = gather_projected(
            _as_is, partial(self.text.vectors, "comment"), written, comments
        )
        inputs = UserInput(
            users=interaction[self.USER_ID],
            query=self._query(interaction[self.ITEM_ID]),
            **self._history(history, vectors, length),
        )
        items = self.comment_vector(vectors)[candidates]  # [B, C, d]
        return (items @ self.user_vector(inputs).unsqueeze(2)).squeeze(2)

    def _history(self, history: Tensor, vectors: Tensor, length: Tensor) -> dict[str, Tensor]:
        steps = F.embedding_bag(history.flatten(0, 1), vectors, mode="mean", padding_idx=0)
        steps = steps.view(*history.shape[:2], self.hidden_size)
        place = torch.arange(steps.shape[1], device=steps.device)
        if self.empty is not None:
            new = (length == 0).unsqueeze(1) & (place == 0)  # [B, m]
            steps = torch.where(new.unsqueeze(2), self.empty, steps)
            length = length.clamp(min=1)
        return {"history": self.dropout(steps), "length": length, "mask": place < length.unsqueeze(1)}

    def _query(self, watched: Tensor) -> Tensor:
        if not self.reads_query:
            return torch.zeros(len(watched), 0, device=watched.device)
        titles, (places,) = gather_projected(_as_is, partial(self.text.vectors, "title"), watched)
        return self.dropout(titles[places])


class AdditiveAttention(nn.Module):
    """`softmax(q' tanh(V x_i + v))`-weighted mean of the steps (Bahdanau et al. 2015, as in NAML and NRMS)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, hidden_size)
        self.outer = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """[B, d] of `steps` [B, m, d]; `mask` bool [B, m] has a True in every row."""
        logits = self.outer(torch.tanh(self.inner(steps))).squeeze(2)
        return (logits.masked_fill(~mask, -torch.inf).softmax(dim=1).unsqueeze(1) @ steps).squeeze(1)


def _as_is(vectors: Tensor) -> Tensor:
    return vectors
