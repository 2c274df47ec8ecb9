"""A data set in memory: the atomic files as typed arrays with dense ids, validated once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dataset_tools.errors import DataToolError
from dataset_tools.schema import SUFFIXES, read_atomic, read_header
from recbole_lsvcr.data.cache import TEXT, Column, DataCache, Stored, TextColumn
from recbole_lsvcr.data.ids import (
    check_videos_agree,
    ids_of,
    item_time,
    padded_first,
    sorted_events,
    tokens_of,
    user_tokens,
    without_repeats,
)
from recbole_lsvcr.data.layouts import Pool, Timeline
from recbole_lsvcr.errors import DataError

logger = logging.getLogger(__name__)


def is_synthetic(folder: Path) -> bool:
    """Whether a data set's `.meta.json` says that it was generated; results on such data are marked everywhere."""
    try:
        about = json.loads((folder / f"{folder.name}.meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("synthetic") is True


@dataclass(frozen=True)
class Tables:
    """The events, texts and times of one data set.

    Ids are dense, 0 is padding. Item and comment ids follow the order of `.item` and `.comment`, user ids the first
    appearance in `.inter`, then in `.cinter`. Times are Unix seconds, float64; events are sorted by (time, file order).
    """

    name: str
    folder: Path
    fingerprint: str  # SHA-256 over the names and SHA-256 of the files read

    users: pl.Series  # [n_users] tokens by id
    items: pl.Series  # [n_items]
    comments: pl.Series  # [n_comments]
    titles: pl.Series  # [n_items] normalised text, "" for padding
    contents: pl.Series  # [n_comments]
    tags: pl.Series | None  # [n_items] space-separated

    inter_user: NDArray[np.int32]  # [I]
    inter_item: NDArray[np.int32]
    inter_time: NDArray[np.float64]

    cinter_user: NDArray[np.int32]  # [J]
    cinter_item: NDArray[np.int32]
    cinter_comment: NDArray[np.int32]
    cinter_time: NDArray[np.float64]

    comment_item: NDArray[np.int32]  # [n_comments]
    comment_user: NDArray[np.int32]  # the author, 0 where unknown or without interactions
    comment_time: NDArray[np.float64]  # posting time, -inf where unknown
    comment_is_reply: NDArray[np.bool_]
    item_time: NDArray[np.float64]  # [n_items] uploaded or first seen, whichever is earlier; -inf if neither is known

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    @property
    def n_comments(self) -> int:
        return len(self.comment_item)

    @cached_property
    def timeline(self) -> Timeline:
        """The video interactions user by user."""
        return Timeline.of(self.inter_user, self.inter_item, self.inter_time, self.n_users)

    @cached_property
    def pool(self) -> Pool:
        """The comments that are no replies, video by video."""
        return Pool.of(self.comment_item, self.comment_time, self.comment_is_reply, self.n_items)

    @classmethod
    def load(cls, folder: str | Path, *, cache: bool = True) -> Tables:
        """Read `<folder>/<name>.inter`, `.item` and, if there, `.cinter` and `.comment`; `<name>` is the folder's name.

        With `cache`, data of 16 MiB or more are kept in columns in `<folder>/<name>.cache/` as well (see `DataCache`),
        and the next time they are mapped from there: read-only arrays, and comments that are not read before somebody
        asks for them.

        Raises `DataError` with one message for a missing or malformed file, a duplicated id or an unknown foreign key.
        """
        folder = Path(folder)
        name = Path(os.path.abspath(folder)).name
        paths = {suffix: folder / f"{name}.{suffix}" for suffix in SUFFIXES}
        for suffix in ("inter", "item"):
            if not paths[suffix].is_file():
                raise DataError(
                    f"{paths[suffix]} is missing; a data set is a folder <name> with <name>.inter and <name>.item"
                    " (make one with `python -m dataset_tools --help`)"
                )
        if paths["cinter"].is_file() and not paths["comment"].is_file():
            raise DataError(
                f"{paths['cinter']} is there but {paths['comment'].name} is not; add it or remove the .cinter"
            )
        sources = {suffix: paths[suffix] for suffix in _COLUMNS}
        store = DataCache(folder / f"{name}.cache", sources, _SCHEMA, later=_LATER, optional=("tags",))
        if not cache or not store.worthwhile():
            return _from_files(paths, store.fingerprint(), name=name, folder=folder)[0]
        found = _from_cache(store.open(quiet=True), name=name, folder=folder)
        if found is not None:
            return found
        with store.alone() as possible:
            if not possible:
                return _from_files(paths, store.fingerprint(), name=name, folder=folder)[0]
            # Another process may just have made it.
            found = _from_cache(store.open(), name=name, folder=folder)
            if found is not None:
                return found
            tables, repeats = _from_files(paths, store.fingerprint(), name=name, folder=folder)
            kept = store.write(_columns_of(tables), notes={"repeats": repeats})
            # What was kept is used from now on: the texts need not stay in memory.
            return _from_cache(kept, name=name, folder=folder) or tables

    @classmethod
    def from_arrays(
        cls,
        *,
        inter: Sequence[tuple[str, str, float]],
        cinter: Sequence[tuple[str, str, float]] = (),
        items: Mapping[str, Mapping[str, object]] | Sequence[str] | None = None,
        comments: Mapping[str, Mapping[str, object]] | None = None,
        name: str = "arrays",
    ) -> Tables:
        """A data set from Python values, for tests and small experiments; validated as files are.

        `inter` holds `(user, item, time)`, `cinter` `(user, comment, time)`; `items` are tokens in id order (default:
        those that occur, sorted), or `{token: {"title": …, "tags": …, "upload_time": …}}`; `comments` is `{token:
        {"item_id": …, "content": …, "user_id": …, "parent_id": …, "timestamp": …}}`. What a row leaves out is unknown.
        """
        comments = comments or {}
        if items is None:
            items = sorted({item for _, item, _ in inter} | {str(row["item_id"]) for row in comments.values()})
        rows = items if isinstance(items, Mapping) else {item: {} for item in items}
        unknown = next((comment for _, comment, _ in cinter if comment not in comments), None)
        if unknown is not None:
            raise DataError(f"comment {unknown!r} of an interaction is not among the {len(comments)} comments given")
        frames = {
            "inter": _frame("inter", [dict(zip(_COLUMNS["inter"], row, strict=True)) for row in inter]),
            "item": _frame("item", [{"item_id": key, "title": f"title of {key}", **row} for key, row in rows.items()]),
            "cinter": _frame(
                "cinter",
                [
                    {"user_id": user, "comment_id": comment, "item_id": comments[comment]["item_id"], "timestamp": time}
                    for user, comment, time in cinter
                ],
            ),
            "comment": _frame(
                "comment",
                [{"comment_id": comment, "content": f"text of {comment}", **row} for comment, row in comments.items()],
            ),
        }
        digest = hashlib.sha256("".join(frame.write_csv() for frame in frames.values()).encode()).hexdigest()
        return _build(frames, name=name, folder=Path(name), fingerprint=digest)[0]


class _StoredTables(Tables):
    """Tables from a cache; the ids and texts of comments are read when they are first asked for."""

    _later: Mapping[str, TextColumn]

    def __getattr__(self, name: str) -> pl.Series:
        column = self.__dict__.get("_later", {}).get(name)
        if column is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        try:
            values = column.read()
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{self.folder / f'{self.name}.cache'} was damaged while it was in use ({str(error).splitlines()[0]});"
                " start again, and it is made anew"
            ) from error
        object.__setattr__(self, name, values)
        return values

    def __deepcopy__(self, memo: dict[int, Any]) -> _StoredTables:
        return self

    def __reduce__(self) -> tuple[type[Tables], tuple[Any, ...]]:
        """A pickled copy does without the cache."""
        return Tables, tuple(getattr(self, field.name) for field in fields(Tables))


# The columns that are cached, and the type of each: those of the tables, then those of their layouts.
_SCHEMA: Mapping[str, str] = {
    **dict.fromkeys(("users", "items", "comments", "titles", "contents", "tags"), TEXT),
    **dict.fromkeys(("inter_user", "inter_item", "cinter_user", "cinter_item", "cinter_comment"), "int32"),
    **dict.fromkeys(("comment_item", "comment_user"), "int32"),
    **dict.fromkeys(("inter_time", "cinter_time", "comment_time", "item_time"), "float64"),
    "comment_is_reply": "bool",
    "timeline.user": "int32",
    "timeline.item": "int32",
    "timeline.time": "float64",
    "timeline.offsets": "int64",
    "pool.comment": "int32",
    "pool.time": "float64",
    "pool.offsets": "int64",
    "pool.position": "int32",
}
_LATER = ("comments", "contents")  # columns read when they are asked for


def _columns_of(tables: Tables) -> dict[str, Column]:
    """What the cache keeps of `tables`."""
    with ThreadPoolExecutor(1) as beside:  # sorting millions of comments takes as long as sorting the interactions
        pool = beside.submit(lambda: tables.pool)
        layouts = {"timeline": tables.timeline, "pool": pool.result()}
    columns: dict[str, Column] = {}
    for name in _SCHEMA:
        owner, _, field = name.rpartition(".")
        values = getattr(layouts[owner] if owner else tables, field)
        if values is not None:
            columns[name] = values
    return columns


def _from_cache(stored: Stored | None, *, name: str, folder: Path) -> Tables | None:
    """The tables that a cache holds; None without one."""
    if stored is None:
        return None
    tables = _StoredTables.__new__(_StoredTables)
    values: dict[str, Any] = {"name": name, "folder": folder, "fingerprint": stored.fingerprint, "tags": None}
    layouts: dict[str, dict[str, np.ndarray]] = {"": {}, "timeline": {}, "pool": {}}
    for column, array in stored.numbers.items():
        owner, _, field = column.rpartition(".")
        layouts[owner][field] = array
    values |= {**layouts[""], "item_time": stored.numbers["item_time"].copy()}  # PyTorch wants it writable
    values |= {"timeline": Timeline(**layouts["timeline"]), "pool": Pool(**layouts["pool"])}
    values |= {**stored.texts, "_later": stored.later}
    for field, value in values.items():
        object.__setattr__(tables, field, value)
    _warn_of_repeats(stored.notes.get("repeats", 0), f"{name}.cinter")
    return tables


def _from_files(paths: Mapping[str, Path], fingerprint: str, *, name: str, folder: Path) -> tuple[Tables, int]:
    """The tables, and how many rows of `.cinter` were repetitions."""
    try:
        frames = {suffix: _read(paths[suffix], _COLUMNS[suffix]) for suffix in _COLUMNS}
    except DataToolError as error:
        raise DataError(str(error)) from error
    return _build(frames, name=name, folder=folder, fingerprint=fingerprint)


# What is read of each file; a column marked True may be missing.
_COLUMNS: Mapping[str, Mapping[str, bool]] = {
    "inter": {"user_id": False, "item_id": False, "timestamp": False},
    "item": {"item_id": False, "title": False, "tags": True, "upload_time": True},
    "cinter": {"user_id": False, "comment_id": False, "item_id": False, "timestamp": False},
    "comment": {
        "comment_id": False,
        "item_id": False,
        "content": False,
        "user_id": True,
        "parent_id": True,
        "timestamp": True,
    },
}
_FLOATS = ("timestamp", "upload_time")


def _dtype(column: str) -> type[pl.DataType]:
    return pl.Float64 if column in _FLOATS else pl.String


def _frame(suffix: str, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """Rows given in Python as a frame of all columns that are read of a file; what a row does not say is null or ""."""
    schema = {column: _dtype(column) for column in _COLUMNS[suffix]}
    frame = pl.DataFrame([{column: row.get(column) for column in schema} for row in rows], schema=schema)
    return frame.with_columns(pl.col(pl.String).fill_null(""))


def _read(path: Path, columns: Mapping[str, bool]) -> pl.DataFrame:
    """The columns of an atomic file that are used; a missing optional column or file comes out empty."""
    if not path.is_file():
        return pl.DataFrame(schema={column: _dtype(column) for column in columns})
    header = read_header(path)
    frame = read_atomic(path, [column for column, optional in columns.items() if column in header or not optional])
    for column in columns:
        if column in frame.columns and frame.schema[column] != _dtype(column):
            wanted = "float" if column in _FLOATS else "token or token_seq"
            raise DataError(f"{path}: column {column} is of type {header[column]}, expected {wanted}")
    missing = [column for column in columns if column not in frame.columns]
    return frame.with_columns(pl.lit(None if _dtype(c) == pl.Float64 else "", _dtype(c)).alias(c) for c in missing)


def _build(frames: Mapping[str, pl.DataFrame], *, name: str, folder: Path, fingerprint: str) -> tuple[Tables, int]:
    """The tables, and how many rows of `.cinter` were repetitions."""
    inter, cinter = (sorted_events(frames[suffix], f"{name}.{suffix}") for suffix in ("inter", "cinter"))
    if not inter.height:
        raise DataError(f"{name}.inter has no interactions; nothing can be trained or evaluated")
    repeats = cinter.height
    cinter = without_repeats(cinter)
    repeats -= cinter.height
    _warn_of_repeats(repeats, f"{name}.cinter")
    item, comment = frames["item"], frames["comment"]
    items, comments = (tokens_of(frame, f"{name}.{suffix}") for suffix, frame in (("item", item), ("comment", comment)))
    with ThreadPoolExecutor(2) as beside:  # polars looks tokens up on one core a column, and that takes longest
        at_item, at_comment = "the .item file", "the .comment file"
        of_inter = beside.submit(ids_of, inter["item_id"], items, f"{name}.inter", at_item)
        of_cinter = beside.submit(ids_of, cinter["item_id"], items, f"{name}.cinter", at_item)
        of_comment = beside.submit(ids_of, comment["item_id"], items, f"{name}.comment", at_item)
        reacted_to = beside.submit(ids_of, cinter["comment_id"], comments, f"{name}.cinter", at_comment)
        users = user_tokens(inter["user_id"], cinter["user_id"], name)
        watcher, reactor, author = (
            beside.submit(ids_of, frame["user_id"], users) for frame in (inter, cinter, comment)
        )
        inter_item, cinter_item, cinter_comment = of_inter.result(), of_cinter.result(), reacted_to.result()
        comment_item = padded_first(of_comment.result(), np.int32(0))
    check_videos_agree(comment_item[cinter_comment], cinter_item, cinter, f"{name}.cinter")
    inter_time, cinter_time = inter["timestamp"].to_numpy(), cinter["timestamp"].to_numpy()
    upload = padded_first(item["upload_time"].fill_null(np.inf).to_numpy(), np.inf)
    tags = pl.concat([pl.Series([""]), item["tags"]]).rename("tags")
    tables = Tables(
        name=name,
        folder=folder,
        fingerprint=fingerprint,
        users=users,
        items=items,
        comments=comments,
        titles=pl.concat([pl.Series([""]), item["title"]]).rename("title"),
        contents=pl.concat([pl.Series([""]), comment["content"]]).rename("content"),
        tags=tags if (tags != "").any() else None,
        inter_user=watcher.result(),
        inter_item=inter_item,
        inter_time=inter_time,
        cinter_user=reactor.result(),
        cinter_item=cinter_item,
        cinter_comment=cinter_comment,
        cinter_time=cinter_time,
        comment_item=comment_item,
        comment_user=padded_first(author.result(), np.int32(0)),
        comment_time=padded_first(comment["timestamp"].fill_null(-np.inf).to_numpy(), -np.inf),
        comment_is_reply=padded_first((comment["parent_id"] != "").to_numpy(), np.False_),
        item_time=item_time(upload, (inter_item, inter_time), (cinter_item, cinter_time)),
    )
    return tables, repeats


def _warn_of_repeats(repeats: int, file: str) -> None:
    if repeats:
        logger.warning(
            "%s: %s rows repeat user, comment and time of another row; they are counted once", file, f"{repeats:,}"
        )
