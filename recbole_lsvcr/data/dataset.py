"""`JointDataset`: the joint video/comment data as a RecBole data set, for sequential models (videos) and context-aware
ones (comments).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, ModelType, get_model

from recbole_lsvcr.data.comment_negatives import TrainingLists
from recbole_lsvcr.data.features import item_features
from recbole_lsvcr.data.instances import CommentInstances, InstanceBatch, Kind, TimedBatch, VideoInstances
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import PHASES, parse_split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.data.texts import TextVectors, ensure_store, load_vectors
from recbole_lsvcr.errors import DataError

COMMENT_ID = "comment_id"
CANDIDATES = "comment_candidates"  # the positive first, then sampled negatives, 0-padded

# Fields of a batch that only models reading comments use: name -> attribute of `InstanceBatch`.
COMMENT_FIELDS = {
    "video_comment_list": "video_comments",
    "record_item_list": "record_items",
    "record_comment_list": "record_comments",
    "record_length": "record_len",
}
# RecBole's models that read, beside a history, a random other video for each step of it.
READ_NEGATIVE_HISTORY = frozenset({"DIEN"})
# Those that only models reading times use, with attributes of `TimedBatch`.
TIME_FIELDS = {"video_time_list": "video_times", "record_time_list": "record_times"}


class InstanceFeat(Interaction):
    """The instances of a phase as RecBole's `inter_feat`: flat columns only, one row an instance.

    The columns are made when one is asked for: our loaders never do, and there are millions of rows. Histories are
    gathered when a batch is made; a model that asks for a whole history column (FEARec does) gets it, made on demand.
    """

    def __init__(self, owner: JointDataset) -> None:
        self.owner, self.length = owner, len(owner)

    @cached_property
    def interaction(self) -> dict[str, torch.Tensor]:
        return self.owner.flat_columns()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str) and index == self.owner.item_seq_field:
            return self.owner.gather(np.arange(len(self)))[index]
        if isinstance(index, str):
            return super().__getitem__(index)
        return Interaction(super().__getitem__(index).interaction)


def task_of(model_class: type) -> Kind:
    """What a model ranks: comments if it is of RecBole's context-aware type, as ours for comments are; else videos."""
    return "comment" if getattr(model_class, "type", None) == ModelType.CONTEXT else "video"


def check_comments(joint: JointData) -> None:
    """Refuse data whose comments cannot be ranked.

    Raises:
        DataError: no comment interaction, or a phase in which no record has a comment to be ranked against.
    """
    name, records = joint.tables.name, len(joint.records)
    if not records:
        raise DataError(
            f"data set '{name}' has no comment interaction: ranking comments needs {name}.cinter (user_id, comment_id, "
            f"item_id, timestamp) with rows, and their comments in {name}.comment; without them use task video"
        )
    timeline = joint.comment_timeline
    if not timeline.negatives(np.arange(records)).any():
        raise DataError(
            f"data set '{name}': none of its {records:,} comment records has another comment under its video to be "
            f"ranked against; {name}.comment must hold the comments that nobody reacted to as well"
        )
    empty = [
        PHASES[phase] for phase in joint.split.wanted if not timeline.negatives(joint.rows("comment", phase)).any()
    ]
    if empty:
        raise DataError(
            f"data set '{name}' has {records:,} comment records, but none that can be ranked is left for "
            f"{' and '.join(empty)} under split {joint.split}; choose another split"
        )


class TokenIds(Mapping[str, int]):
    """Ids by token without a Python object for each: comments come by the million."""

    def __init__(self, tokens: pl.Series) -> None:
        self.tokens = tokens

    def __getitem__(self, token: str) -> int:
        found = self.tokens.index_of(token)
        if found is None:
            raise KeyError(token)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)


class JointDataset(SequentialDataset):
    """Videos, comments and both histories of every user, behind RecBole's `SequentialDataset` interface.

    The instances are built from flat arrays (`JointData`): memory per interaction does not depend on the history
    length, times are exact (RecBole's
    float32 is not used), only events strictly before the target are in a history. `build()` returns the three phases
    of the configured split; indexing a
    phase gives an `Interaction` with `user_id [B]`, `item_id [B]` (the target), `timestamp [B]` (float64 seconds),
    `item_id_list [B, L]`,
    `item_length [B]` and, for models that read comments, `video_comment_list [B, L]`, `record_item_list [B, Lc]`,
    `record_comment_list [B, Lc, K]`, `record_length [B]`, for those that read times `video_time_list [B, L]` and
    `record_time_list [B, Lc]` (float64 seconds); ids and times are 0-padded on the right.

    For a context-aware model an instance is a comment record, `item_id` the video being watched and `timestamp` the
    record's start. In training a batch has `comment_candidates [B, 1 + train_negative_num]`, a positive and then
    negatives, and `comment_id [B]`, the positive (outside training the record's first). RecBole's own context-aware
    models (`FM` …) get one row a candidate instead: `user_id`, `item_id`, `comment_id`, the video's attributes, and the
    label.

    Raises:
        DataError: the folder, a file or the split cannot be used (one message naming it).
    """

    joint: JointData

    def __init__(self, config: Any, other: JointData | None = None) -> None:
        """`other`: the joint data of the run's other task, taken instead of being made again if it has the same
        settings."""
        self._other = other
        super().__init__(config)

    def _from_scratch(self) -> None:
        self._get_preset()
        self._get_field_from_config()
        folder = Path(self.dataset_path)
        if not folder.exists():
            self._download()
        model_class = get_model(self.config["model"])
        self.kind: Kind = task_of(model_class)
        self.labelled = self.kind == "comment" and not getattr(model_class, "reads_candidates", False)
        self.reads_times = bool(getattr(model_class, "reads_times", False))
        self.reads_negative_history = self.config["model"] in READ_NEGATIVE_HISTORY
        self.label_field = self.config["LABEL_FIELD"]
        self._shared_texts: list[TextVectors] = []  # a list: the phases (shallow copies) share what one of them loads
        self.joint = self._joint_data(folder)
        # What weights that were trained on it belong to: its files, and its text vectors once they are read.
        self.identity: dict[str, Any] = {"data": self.joint.tables.fingerprint}
        if self.kind == "comment":
            check_comments(self.joint)
        self.phase: int | None = None
        self.epoch = 0
        self.reads_comments = bool(self.config["reads_comments"])
        self.item_seq_field = self.iid_field + self.config["LIST_SUFFIX"]
        self._describe_fields(self.joint.tables)
        self.user_feat = None
        self.item_feat = item_features(self, self.joint.tables, self._columns_of("item"))
        self._select(np.arange(len(self._instances), dtype=np.int32))
        self.feat_name_list = ["inter_feat", "item_feat"]

    def _joint_data(self, folder: Path) -> JointData:
        # RecBole keeps `<data_path>/<name>`; the files inside carry the data set's name.
        other = self._other if self._other is not None and self._other.tables.folder == folder else None
        tables = Tables.load(folder, cache=self.config["data_cache"] is not False) if other is None else other.tables
        split = self.config["eval_args"]["split"]
        settings = {
            "split": split if self.kind == "video" else parse_split(split, tables),  # comments: `check_comments`
            "max_videos": self.config["MAX_ITEM_LIST_LENGTH"],
            "max_records": self.config["MAX_RECORD_LIST_LENGTH"] or self.config["MAX_ITEM_LIST_LENGTH"],
            "record_gap": float(self.config["record_gap"] or 86400.0),
            "popular_top": int(self.config["popular_top"] or 3),
            "times": self.reads_times,
        }
        if other is not None and all(getattr(other, name) == value for name, value in settings.items()):
            return other
        return JointData(tables, **settings)

    def _columns_of(self, source: str) -> list[str]:
        wanted = (self.config["load_col"] or {}).get(source, [])
        # Titles are texts: models read them through the text store, not as word ids.
        return (
            []
            if wanted == "*"
            else [field for field in wanted if field not in (self.uid_field, self.iid_field, "title")]
        )

    def _describe_fields(self, tables: Tables) -> None:
        width = self.joint.max_videos
        self.set_field_property(self.uid_field, FeatureType.TOKEN, FeatureSource.USER_ID, 1)
        self.set_field_property(self.iid_field, FeatureType.TOKEN, FeatureSource.ITEM_ID, 1)
        self.set_field_property(self.time_field, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
        if self.kind == "comment":
            self.set_field_property(COMMENT_ID, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
            self.field2id_token[COMMENT_ID] = tables.comments
            self.field2token_id[COMMENT_ID] = TokenIds(tables.comments)
        for field, tokens in ((self.uid_field, tables.users), (self.iid_field, tables.items)):
            names = tokens.to_numpy()
            self.field2id_token[field] = names
            self.field2token_id[field] = {token: number for number, token in enumerate(names.tolist())}
        self.item_id_list_field = self.item_seq_field
        if self.labelled:  # these models make a feature of every field they find: histories are none of theirs
            self.set_field_property(self.label_field, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
            return
        self.set_field_property(self.item_seq_field, FeatureType.TOKEN_SEQ, FeatureSource.INTERACTION, width)
        self.set_field_property(self.item_list_length_field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        # A list field has the values of the field it was made from.
        self.field2id_token[self.item_seq_field] = self.field2id_token[self.iid_field]
        self.field2token_id[self.item_seq_field] = self.field2token_id[self.iid_field]

    @property
    def _instances(self) -> VideoInstances | CommentInstances:
        return self.joint.comments if self.kind == "comment" else self.joint.videos

    def _select(self, rows: np.ndarray) -> None:
        """Make `rows` (indices into the joint data's instances) the interactions of this data set."""
        self.rows = rows
        self.inter_feat = InstanceFeat(self)

    def flat_columns(self) -> dict[str, torch.Tensor]:
        """`user_id`, `item_id`, `timestamp` and `item_length` of all rows: int64[N], times float64."""
        line = self.joint.tables.timeline
        user, item, time, history_end, _ = self._instances.at(self.rows)
        lengths = np.minimum(history_end - line.offsets[user], self.joint.max_videos)
        return {
            self.uid_field: torch.from_numpy(user.astype(np.int64)),
            self.iid_field: torch.from_numpy(item.astype(np.int64)),
            self.time_field: torch.from_numpy(time),
            self.item_list_length_field: torch.from_numpy(lengths.astype(np.int64)),
        }

    def of_phase(self, phase: int) -> JointDataset:
        """The instances of one phase (0 train, 1 valid, 2 test) as a data set that shares everything else."""
        part = copy.copy(self)
        part.phase = phase
        part._select(self.joint.rows(self.kind, phase))
        return part

    def build(self) -> list[JointDataset]:
        """The three phases of `eval_args.split`.

        Raises:
            DataError: no training instance.
        """
        parts = [self.of_phase(phase) for phase in range(3)]
        if not len(parts[0]):
            raise DataError(
                f"data set '{self.dataset_name}' has no training instance under split "
                f"{self.config['eval_args']['split']}: a training instance is an "
                "interaction before the validation period with an earlier one of the same user; move the "
                "boundaries or add data"
            )
        return parts

    def set_epoch(self, epoch: int) -> None:
        """Fix the epoch from which, with the seed, the random comments of a training batch are drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        interaction = self.gather(np.atleast_1d(np.asarray(index)))
        return self.join(interaction) if join else interaction

    def gather(self, index: np.ndarray) -> Interaction:
        """The batch of the given rows of this phase, histories included; in training the popular comments are drawn
        at random (seed, epoch, first row).
        """
        training = self.phase == 0
        rng = (
            np.random.default_rng([int(self.config["seed"]), self.epoch, int(index[0])])
            if training and len(index)
            else None
        )
        rows = self.rows[index]
        batch = self.joint.gather(self.kind, rows, training=training, rng=rng)
        interaction = self.to_interaction(batch)
        if self.reads_negative_history and rng is not None:
            others = self._other_videos(batch.video_items, rng)
            interaction.update(Interaction({self._negative_history_field: torch.from_numpy(others)}))
        if self.kind == "video":
            return interaction
        if rng is None:
            interaction.update(
                Interaction({COMMENT_ID: torch.from_numpy(batch.target_comments[:, 0].astype(np.int64))})
            )
            return interaction
        lists = torch.from_numpy(self.training_lists.draw(rows, rng).astype(np.int64))
        if self.labelled:
            label = torch.zeros(lists.shape)
            label[:, 0] = 1.0
            pairs = self.pairs(interaction, lists)
            pairs.update(Interaction({self.label_field: label[lists > 0]}))
            return pairs
        interaction.update(Interaction({CANDIDATES: lists, COMMENT_ID: lists[:, 0]}))
        return interaction

    @property
    def _negative_history_field(self) -> str:
        return f"{self.config['NEG_PREFIX']}{self.item_seq_field}"

    def _other_videos(self, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """int64 of the shape of `items`: for each video another one, uniformly; 0 for padding."""
        drawn = rng.integers(1, max(self.item_num - 1, 2), size=items.shape)
        return np.where(items > 0, drawn + (drawn >= items), 0)

    def pairs(self, interaction: Interaction, comments: torch.Tensor) -> Interaction:
        """A row for every comment of `comments` int64[B, C] that is there (not 0): the instance's row, with
        `comment_id` and the watched video's attributes."""
        row, column = comments.nonzero(as_tuple=True)
        rows = interaction[row]
        rows.update(Interaction({COMMENT_ID: comments[row, column]}))
        return self.join(rows) if self.labelled else rows

    @cached_property
    def training_lists(self) -> TrainingLists:
        """What draws the candidates of training batches (comments only)."""
        choice = self.config["train_negatives"] or "uniform"
        return TrainingLists(
            self.joint,
            count=int(self.config["train_negative_num"] or 19),
            choice=choice,
            vectors=(lambda ids: self.texts.comments(torch.from_numpy(ids)).numpy()) if choice == "hard" else None,
        )

    def to_interaction(self, batch: InstanceBatch) -> Interaction:
        """An `InstanceBatch` under RecBole's field names, int64 (times float64)."""
        columns: dict[str, np.ndarray] = {
            self.uid_field: batch.user,
            self.iid_field: batch.item,
            self.time_field: batch.time,
        }
        if not self.labelled:
            columns |= {self.item_seq_field: batch.video_items, self.item_list_length_field: batch.video_len}
        if self.reads_negative_history:  # drawn in training; no score depends on it
            columns[self._negative_history_field] = np.zeros_like(batch.video_items)
        if self.reads_comments:
            columns |= {field: getattr(batch, attribute) for field, attribute in COMMENT_FIELDS.items()}
        if isinstance(batch, TimedBatch):
            columns |= {field: getattr(batch, attribute) for field, attribute in TIME_FIELDS.items()}
        return Interaction(
            {
                field: torch.from_numpy(values if values.dtype == np.float64 else values.astype(np.int64))
                for field, values in columns.items()
            }
        )

    @property
    def item_time(self) -> np.ndarray:
        """float64[n_items]: when each video came to exist (upload, else first interaction), seconds."""
        return self.joint.tables.item_time

    @cached_property
    def seen_items(self) -> np.ndarray:
        """bool[n_items]: videos that occur in training, watched or in a comment record."""
        records = self.joint.records
        comments = self.joint.comments
        seen = self.joint.train_item_count > 0
        seen[records.item[comments.record[self.joint.rows("comment", 0)]]] = True
        return seen

    @property
    def texts(self) -> TextVectors:
        """The text vectors of the data set, shared by its phases.

        Inside a run (an output folder is set) the text store must exist; in a plain RecBole program it is made on
        first use.
        """
        if self._shared_texts:
            return self._shared_texts[0]
        if not self.config["output"]:
            ensure_store(self.config, self.joint, kinds=(self.kind,))
        self._shared_texts.append(load_vectors(self.config, self.joint))
        self.identity["text"] = self._shared_texts[0].made_by
        return self._shared_texts[0]

    def title_vectors(self) -> np.ndarray:
        """float32[n_items, H] text vectors of the titles; row 0 is zero."""
        return self.texts.titles.numpy()

    def _change_feat_format(self) -> None:
        """Nothing to convert: the instances are gathered from flat arrays."""
