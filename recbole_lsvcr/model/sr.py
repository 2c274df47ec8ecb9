"""The sequential recommendation model both tasks, alignment and serving share (`SRModel`). Pure PyTorch.

It works on *projected* text. `text_proj` is linear and has no bias, so an empty text stays the zero vector and the
projection of a mean of comments is the mean of their projections: a caller projects each distinct text of a batch
once (`embed_text`) and gathers rows of size d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.model.groups import StreamInput, by_length
from recbole_lsvcr.model.layers import (
    ACTIVATIONS,
    CommentExtractor,
    Dropout,
    TextMLP,
    TransformerLayer,
    VideoExtractor,
    causal_bias,
    init_weights,
    linear_of_pair,
    padding_bias,
)

Task = Literal["video", "comment"]

# Parts that only one task runs; everything else is trained by both.
_PARTS_OF_ONE_TASK: dict[str, tuple[str, ...]] = {
    "video": ("fusion_video.", "fuse_linear_video.", "video_extractor."),
    "comment": ("fusion_comment.", "fuse_linear_comment.", "comment_extractor."),
}
_POSITION_TABLES = ("position_video", "position_comment")
# Parts that exist in one stage only: fine-tuning adds the ids, and its frozen text table makes text_mlp superfluous.
_FINE_TUNING_ONLY = ("id_embedding.", "gate", "seen")
_ALIGNMENT_ONLY = ("text_mlp.",)


@dataclass(frozen=True, kw_only=True)
class SRConfig:
    """Sizes of an `SRModel`; a value that cannot be used raises ConfigError.

    encoder_size: width H of the text table; None when it is already `text_size` wide (aligned): no `text_mlp` then.
    n_items: number of video ids, padding 0 included; None for a model without ids (alignment).
    max_positions: L, the longest history.
    """

    hidden_size: int = 64
    text_size: int = 256
    encoder_size: int | None = None
    n_layers: int = 2
    n_heads: int = 2
    inner_size: int = 256
    hidden_dropout_prob: float = 0.3
    attn_dropout_prob: float = 0.3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-8
    max_positions: int = 50
    initializer_range: float = 0.02
    n_items: int | None = None

    def __post_init__(self) -> None:
        for name in ("hidden_size", "text_size", "n_layers", "n_heads", "inner_size", "max_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not accepted: give a number of at least 1.")
        if self.hidden_size % self.n_heads:
            raise ConfigError(
                f"hidden_size={self.hidden_size} cannot be shared by n_heads={self.n_heads}: give a multiple of it."
            )
        if self.encoder_size is not None and self.encoder_size < 4:
            raise ConfigError(
                f"encoder_size={self.encoder_size} is not accepted: text_mlp narrows it to a quarter, so give at "
                "least 4, or none for a table that is already text_size wide."
            )
        for name in ("hidden_dropout_prob", "attn_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name}={getattr(self, name)} is not accepted: give a share from 0 to below 1.")
        for name in ("layer_norm_eps", "initializer_range"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name}={getattr(self, name)} is not accepted: give a number above 0.")
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act={self.hidden_act!r} is unknown: give one of {', '.join(ACTIVATIONS)}.")
        if self.n_items is not None and self.n_items < 2:
            raise ConfigError(f"n_items={self.n_items} leaves no video beside padding 0: give at least 2, or none.")

    @property
    def table_size(self) -> int:
        """Width of the text vectors that `SRModel.embed_text` takes."""
        return self.text_size if self.encoder_size is None else self.encoder_size


@dataclass(frozen=True)
class SRStates:
    """Encoder outputs H^v, H^c with empty streams replaced by the null step; masks are True at existing steps."""

    video: Tensor  # [B, n, d]
    video_mask: Tensor  # bool [B, n]
    comment: Tensor  # [B, m, d]
    comment_mask: Tensor  # bool [B, m]


class SRModel(nn.Module):
    """Two causal encoders, cross-attention fusion and the preference extractors (Eq. 1-9)."""

    seen: Tensor

    def __init__(self, config: SRConfig) -> None:
        super().__init__()
        self.config = config
        d = config.hidden_size
        self.text_mlp: TextMLP | None = None
        if config.encoder_size is not None:
            self.text_mlp = TextMLP(encoder_size=config.encoder_size, text_size=config.text_size)
        self.text_proj = nn.Linear(config.text_size, d, bias=False)
        self.merge = nn.Linear(2 * d, d)
        self.id_embedding: nn.Embedding | None = None
        if config.n_items is not None:
            self.id_embedding = nn.Embedding(config.n_items, d, padding_idx=0)
            self.gate = nn.Parameter(torch.ones(()))
            self.register_buffer("seen", torch.ones(config.n_items, dtype=torch.bool))
        self.position_video = nn.Embedding(config.max_positions, d)
        self.position_comment = nn.Embedding(config.max_positions, d)
        self.input_norm_video = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.input_norm_comment = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.encoder_video = nn.ModuleList(self._layer() for _ in range(config.n_layers))
        self.encoder_comment = nn.ModuleList(self._layer() for _ in range(config.n_layers))
        self.null_video = nn.Parameter(torch.empty(d))
        self.null_comment = nn.Parameter(torch.empty(d))
        self.fusion_video = self._layer()
        self.fusion_comment = self._layer()
        self.fuse_linear_video = nn.Linear(2 * d, d)  # W_2
        self.fuse_linear_comment = nn.Linear(2 * d, d)  # W_3
        self.video_extractor = VideoExtractor(
            hidden_size=d, dropout=config.hidden_dropout_prob, eps=config.layer_norm_eps
        )
        self.comment_extractor = CommentExtractor(
            hidden_size=d,
            n_heads=config.n_heads,
            hidden_dropout=config.hidden_dropout_prob,
            attn_dropout=config.attn_dropout_prob,
            eps=config.layer_norm_eps,
        )
        init_weights(self, config.initializer_range)
        nn.init.normal_(self.null_video, std=config.initializer_range)
        nn.init.normal_(self.null_comment, std=config.initializer_range)

    def _layer(self) -> TransformerLayer:
        config = self.config
        return TransformerLayer(
            hidden_size=config.hidden_size,
            n_heads=config.n_heads,
            inner_size=config.inner_size,
            hidden_dropout=config.hidden_dropout_prob,
            attn_dropout=config.attn_dropout_prob,
            hidden_act=config.hidden_act,
            eps=config.layer_norm_eps,
        )

    def trained_parameters(self, task: Task) -> frozenset[str]:
        """Names of the parameters a fine-tuning `task` ("video" or "comment") trains."""
        if task not in _PARTS_OF_ONE_TASK:
            raise ConfigError(f"task={task!r} is unknown: give one of {', '.join(_PARTS_OF_ONE_TASK)}.")
        others = tuple(part for other, parts in _PARTS_OF_ONE_TASK.items() if other != task for part in parts)
        return frozenset(name for name, _ in self.named_parameters() if not name.startswith(others))

    # ---- text and ids -------------------------------------------------------------------------------------------

    def embed_text(self, vectors: Tensor) -> Tensor:
        """[T, d]: projection of text vectors [T, table_size]. A zero vector (an empty text) stays zero (Eq. 1, 2)."""
        return self._embed(vectors, self.text_proj.weight)

    def embed_comment_parts(self, vectors: Tensor) -> Tensor:
        """[T, d]: `merge_comment(embed_text(vectors))` in one product, for comments that are read in steps only."""
        return self._embed(vectors, self.merge.weight[:, self.config.hidden_size :] @ self.text_proj.weight)

    def _embed(self, vectors: Tensor, projection: Tensor) -> Tensor:
        return F.linear(vectors, projection) if self.text_mlp is None else self.text_mlp(vectors, projection)

    def merge_title(self, title: Tensor) -> Tensor:
        """The title's part of a step z [..., d], with the bias of `merge`; `title` [..., d] is projected."""
        return F.linear(title, self.merge.weight[:, : self.config.hidden_size], self.merge.bias)

    def merge_comment(self, comment: Tensor) -> Tensor:
        """The comments' part of a step z [..., d]; `comment` [..., d] is projected.

        `merge` is linear: z is the sum of both parts, each of which can be made once per distinct text and then
        gathered, and the part of a mean of comments is the mean of their parts.
        """
        return F.linear(comment, self.merge.weight[:, self.config.hidden_size :])

    def video_steps(self, title: Tensor, comment: Tensor) -> Tensor:
        """z^v [..., d] of projected titles and projected popular comments [..., d] (zero: no comment)."""
        return self.merge_title(title) + self.merge_comment(comment)

    def record_steps(self, title: Tensor, comment_mean: Tensor) -> Tensor:
        """z^c [..., d] of projected titles and the mean of each record's projected comments [..., d]."""
        return self.merge_title(title) + self.merge_comment(comment_mean)

    def id_table(self) -> Tensor:
        """Ungated id embeddings [n_items, d]. Outside training, a video that is not in `seen` has the zero vector."""
        if self.id_embedding is None:
            raise ConfigError("This model has no video ids: build it with SRConfig(n_items=...).")
        if self.training:
            return self.id_embedding.weight
        return self.id_embedding.weight * self.seen.unsqueeze(1)

    def with_ids(self, text: Tensor, ids: Tensor | None) -> Tensor:
        """`text + gate · ids` [..., d]: the form of stream inputs, query and video candidates (`text` without ids)."""
        return text if ids is None else text + self.gate * ids

    def video_candidates(self, titles: Tensor) -> Tensor:
        """Candidate vectors [n_items, d] of the projected titles of all videos (row 0 is padding)."""
        return self.with_ids(titles, None if self.id_embedding is None else self.id_table())

    # ---- sequences ----------------------------------------------------------------------------------------------

    def encode(self, videos: StreamInput, records: StreamInput) -> SRStates:
        """H^v and H^c (Eq. 3-5)."""
        video, video_mask = self._encode_stream(
            videos, self.position_video, self.input_norm_video, self.encoder_video, self.null_video
        )
        comment, comment_mask = self._encode_stream(
            records, self.position_comment, self.input_norm_comment, self.encoder_comment, self.null_comment
        )
        return SRStates(video, video_mask, comment, comment_mask)

    def _encode_stream(
        self, stream: StreamInput, positions: nn.Embedding, norm: nn.LayerNorm, layers: nn.ModuleList, null: Tensor
    ) -> tuple[Tensor, Tensor]:
        n = stream.text.shape[1]
        if stream.positions is None and n > self.config.max_positions:
            raise ConfigError(f"A history of {n} steps is longer than max_positions={self.config.max_positions}.")
        table = positions.weight[:n] if stream.positions is None else positions(stream.positions)  # [n, d]
        hidden = self.dropout(norm(self.with_ids(stream.text, stream.ids) + table))
        bias = causal_bias(n, hidden)
        for layer in layers:
            hidden = layer(hidden, None, bias)
        place = torch.arange(n, device=hidden.device)
        # An empty row becomes one learned step at place 0, so that every softmax after this has a key.
        replaced = (stream.length == 0).unsqueeze(1) & (place == 0)  # [B, n]
        hidden = torch.where(replaced.unsqueeze(2), null, hidden)
        return hidden, place < stream.length.clamp(min=1).unsqueeze(1)

    def fuse_video(self, states: SRStates) -> Tensor:
        """Ĥ^v [B, n, d] (Eq. 6)."""
        crossed = self.fusion_video(states.video, states.comment, padding_bias(states.comment_mask, states.comment))
        return linear_of_pair(self.fuse_linear_video, states.video, crossed)

    def fuse_comment(self, states: SRStates) -> Tensor:
        """Ĥ^c [B, m, d] (Eq. 7)."""
        crossed = self.fusion_comment(states.comment, states.video, padding_bias(states.video_mask, states.video))
        return linear_of_pair(self.fuse_linear_comment, states.comment, crossed)

    def extract_video(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """F_v [B, d] (Eq. 8) of any fused sequence [B, n, d] with its mask [B, n]."""
        return self.video_extractor(sequence, mask)

    def extract_comment(self, sequence: Tensor, mask: Tensor, query: Tensor) -> Tensor:
        """F_c [B, d] (Eq. 9) of any fused sequence [B, m, d], its mask [B, m] and the watched video's query [B, d]."""
        return self.comment_extractor(sequence, mask, query)

    def video_preference(self, videos: StreamInput, records: StreamInput) -> Tensor:
        """s^v [B, d]: what the user will watch next."""

        def prefer(videos: StreamInput, records: StreamInput) -> Tensor:
            states = self.encode(videos, records)
            return self.extract_video(self.fuse_video(states), states.video_mask)

        return by_length(prefer, videos, records)

    def comment_preference(self, videos: StreamInput, records: StreamInput, query: Tensor) -> Tensor:
        """s^c [B, d]: which comments the user will like under the video whose `query` [B, d] is given."""

        def prefer(videos: StreamInput, records: StreamInput, query: Tensor) -> Tensor:
            states = self.encode(videos, records)
            return self.extract_comment(self.fuse_comment(states), states.comment_mask, query)

        return by_length(prefer, videos, records, query)

    # ---- loading ------------------------------------------------------------------------------------------------

    def load_weights(self, state: Mapping[str, Tensor]) -> frozenset[str]:
        """Starts from a `state_dict` of another stage; returns the names this model has beyond it (kept as they are).

        Position tables may differ in length (`resize_positions`); ids, gate and `text_mlp` may be in one of the two
        only. Anything else that is missing, superfluous or of another shape raises CheckpointError.
        """
        own = self.state_dict()
        loaded = {name: value for name, value in state.items() if name in own}
        for table in _POSITION_TABLES:
            name = f"{table}.weight"
            if name in loaded and loaded[name].dim() == 2:
                loaded[name] = resize_positions(loaded[name], own[name].shape[0])
        absent = own.keys() - loaded.keys()
        problems = [f"{name} is missing" for name in sorted(absent) if not name.startswith(_FINE_TUNING_ONLY)]
        problems += [
            f"{name} is not part of this model"
            for name in sorted(state.keys() - own.keys())
            if not name.startswith(_FINE_TUNING_ONLY + _ALIGNMENT_ONLY)
        ]
        problems += [
            f"{name} has the shape {tuple(value.shape)}, not {tuple(own[name].shape)}"
            for name, value in loaded.items()
            if value.shape != own[name].shape
        ]
        if problems:
            raise CheckpointError(
                f"These weights are of another SR model: {'; '.join(problems[:3])}"
                f"{'; …' if len(problems) > 3 else ''}. Give the sizes they were trained with."
            )
        self.load_state_dict(loaded, strict=False)
        return frozenset(absent)


def resize_positions(table: Tensor, length: int) -> Tensor:
    """A position table [L, d] at another length: the first rows, new ones being the mean row (method of alignment)."""
    if table.dim() != 2 or not len(table) or length < 1:
        raise CheckpointError(
            f"A position table of shape {tuple(table.shape)} cannot get {length} rows: give a table [L, d] of at "
            "least one row, and a length of at least 1."
        )
    new = table.mean(dim=0, keepdim=True).expand(max(length - len(table), 0), -1)
    return torch.cat([table[:length], new])
