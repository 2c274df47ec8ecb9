"""The only code that writes atomic files: header, types, quoting, and a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from tqdm import tqdm

from dataset_tools import __version__
from dataset_tools.ahead import ahead
from dataset_tools.errors import DataToolError
from dataset_tools.files import held, sha256_file, write_json
from dataset_tools.schema import ATOMIC_FILES, SUFFIXES, field_type
from dataset_tools.text import join_tags, normalise

_ROWS_PER_BLOCK = 200_000
_RECBOLE_SETTINGS = """\
# RecBole settings for the data set {name!r}, for people who use RecBole without the plugin:
#   run_recbole(model="SASRec", dataset="{name}", config_file_list=["<data_path>/{name}/{name}.yaml"],
#               config_dict={{"data_path": "<data_path>"}})
# RecBole stores timestamps as float32 (rounded to 128 s); the rows of .inter are in time order.
field_separator: "\\t"
seq_separator: " "
USER_ID_FIELD: user_id
ITEM_ID_FIELD: item_id
TIME_FIELD: timestamp
load_col:
{load_col}
train_neg_sample_args: ~   # sequential models with the cross-entropy loss demand it
"""


class Table(Protocol):
    """The rows of one atomic file, given block by block."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """Columns and their Polars types."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def normal(self) -> Collection[str]:
        """Text columns that are normalised already."""

    @property
    def whole(self) -> frozenset[str]:
        """Float64 columns that hold whole numbers below 2^53 only."""

    def n_unique(self, name: str) -> int:
        """How many different values a column has."""

    def bounds(self, name: str) -> tuple[float | None, float | None]:
        """The least and the greatest value of a column."""

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in the order in which they are to stand in the file."""


class FrameTable:
    """A `Table` of rows in memory."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame, self.schema, self.height = frame, frame.schema, frame.height
        self.normal: Collection[str] = ()

    @property
    def whole(self) -> frozenset[str]:
        names = [name for name, dtype in self.schema.items() if dtype.is_numeric() or dtype == pl.Boolean]
        values = self.frame.select(pl.col(name).cast(pl.Float64) for name in names)
        good = values.select(((pl.all() == pl.all().round()) & (pl.all().abs() < 2**53)).fill_null(True).all())
        return frozenset(name for name in names if good[name].item())

    def n_unique(self, name: str) -> int:
        return self.frame[name].n_unique()

    def bounds(self, name: str) -> tuple[float | None, float | None]:
        values = self.frame[name].cast(pl.Float64)
        return values.min(), values.max()  # type: ignore[return-value]

    def frames(self) -> Iterator[pl.DataFrame]:
        return self.frame.iter_slices(_ROWS_PER_BLOCK)


def write_dataset(
    folder: Path,
    tables: Mapping[str, pl.DataFrame | Table],
    *,
    meta: Mapping[str, Any],
    overwrite: bool = False,
    extra: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Write a data set folder: `<name>.<suffix>` per table, `<name>.yaml`, `<name>.meta.json`; `name` is the folder's.

    `tables` maps a suffix of the contract to its rows, in the order in which they are to stand in the file. `String`
    columns are normalised, lists become `*_seq`, columns whose name starts with `_` are left out. `meta` is completed
    with counts, the time range, the SHA-256 of every file and the tool's version. `extra` writes further files,
    `<name>.<key>`. Raises `DataToolError` when the folder may not be replaced or cannot be written: nothing is left.
    """
    folder = Path(folder)
    name = folder.resolve().name
    check_target(folder, overwrite=overwrite)
    files = {
        suffix: AtomicRows(suffix, FrameTable(table) if isinstance(table, pl.DataFrame) else table)
        for suffix, table in ((suffix, tables[suffix]) for suffix in SUFFIXES if suffix in tables)
    }
    try:
        with _whole_folder(folder, name) as temporary:
            total = sum(rows.table.height for rows in files.values())
            with tqdm(total=total, desc="writing", unit=" rows", unit_scale=True, disable=None) as progress:
                for suffix, rows in files.items():
                    rows.write(temporary / f"{name}.{suffix}", progress)
            (temporary / f"{name}.yaml").write_text(_recbole_settings(name, files), encoding="utf-8")
            for key, write in (extra or {}).items():
                write(temporary / f"{name}.{key}")
            known = {f"{name}.{suffix}": rows.sha256 for suffix, rows in files.items()}
            hashes = {path.name: known.get(path.name) or sha256_file(path) for path in sorted(temporary.iterdir())}
            described = {"name": name, **meta, **_describe(files), "files": hashes, "tool_version": __version__}
            write_json(temporary / f"{name}.meta.json", described)
    except OSError as error:
        raise DataToolError(f"cannot write {folder}: {error.strerror or error}; nothing was written") from error


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a target that holds anything but an older data set, unless `overwrite`; called before any work is done."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataToolError(f"{folder} is a file; give a folder for the data set")
    name = folder.resolve().name
    inside = sorted(path.name for path in folder.iterdir())
    foreign = [entry for entry in inside if not entry.startswith(f"{name}.")]
    is_data_set = f"{name}.meta.json" in inside and not foreign
    if inside and not is_data_set and not overwrite:
        raise DataToolError(
            f"{folder} is not empty and not a data set ({', '.join((foreign or inside)[:3])} …); choose another folder,"
            " or --overwrite to replace its data set files and keep the others"
        )


class AtomicRows:
    """The rows of a table as they stand in the file: columns `name:type` in the contract's order, texts normalised."""

    def __init__(self, suffix: str, table: Table) -> None:
        known = ATOMIC_FILES[suffix].fields
        lacking = [name for name, field in known.items() if field.required and name not in table.schema]
        if lacking:
            raise DataToolError(f".{suffix} needs the column {', '.join(lacking)}")
        names = [name for name in known if name in table.schema]
        names += [name for name in table.schema if name not in known and not name.startswith("_")]
        self.table = table
        self.types = {name: field_type(suffix, name, table.schema[name]) for name in names}
        self.used = {
            name for name, kind in self.types.items() if kind == "float"
        }  # and, once written, what is not empty
        self.sha256 = ""

    def write(self, path: Path, progress: tqdm) -> None:
        """Write the file."""
        whole, digest = self.table.whole, hashlib.sha256()
        normal = set(self.table.normal)
        columns = [
            pl.col(name) if name in normal else _as_text(self.table.schema, name, kind, whole)
            for name, kind in self.types.items()
        ]
        with open(path, "wb") as handle:

            def put(content: bytes | memoryview) -> None:
                handle.write(content)
                digest.update(content)

            put(("\t".join(f"{name}:{kind}" for name, kind in self.types.items()) + "\n").encode())
            for rows in ahead(self.table.frames()):
                block = rows.select(columns)
                self.used |= {name for name in set(self.types) - self.used if (block[name] != "").any()}
                content = io.BytesIO()
                block.write_csv(content, include_header=False, separator="\t", quote_style="necessary")
                put(content.getbuffer())
                progress.update(block.height)
        self.sha256 = digest.hexdigest()


def _as_text(schema: Mapping[str, Any], name: str, kind: str, whole: frozenset[str]) -> pl.Expr:
    column, dtype = pl.col(name), schema[name]
    if isinstance(dtype, pl.List):
        return (
            join_tags(column) if kind == "token_seq" else column.list.eval(pl.element().cast(pl.String)).list.join(" ")
        )
    if kind != "float":
        return normalise(column.cast(pl.String))
    return column.cast(pl.Float64).cast(pl.Int64) if name in whole else column.cast(pl.Float64)  # 1565000000, not …0.0


def _recbole_settings(name: str, files: Mapping[str, AtomicRows]) -> str:
    wanted = {"inter": ("user_id", "item_id", "timestamp"), "item": ("item_id", "title", "tags"), "user": ("user_id",)}
    lines = []
    for suffix, fields in wanted.items():
        if suffix in files:
            # RecBole cannot make a tensor of sequences that are all empty.
            there = [field for field in fields if field in files[suffix].used]
            lines.append(f"  {suffix}: [{', '.join(there)}]")
    return _RECBOLE_SETTINGS.format(name=name, load_col="\n".join(lines))


def _describe(files: Mapping[str, AtomicRows]) -> dict[str, Any]:
    """Rows of each file, distinct users and videos that interact, and the first and last time of any interaction."""
    events = {suffix: files[suffix].table for suffix in ("inter", "cinter") if suffix in files}
    low, high = zip(*(table.bounds("timestamp") for table in events.values()), strict=True)
    return {
        "rows": {suffix: rows.table.height for suffix, rows in files.items()},
        "users": {suffix: table.n_unique("user_id") for suffix, table in events.items()},
        "videos": {suffix: table.n_unique("item_id") for suffix, table in events.items()},
        "time_range": [
            min((time for time in low if time is not None), default=None),
            max((time for time in high if time is not None), default=None),
        ],
    }


@contextmanager
def _whole_folder(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary sibling folder that takes the place of `folder` on success and vanishes on any error."""
    parent = folder.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    _remove_remains(parent, name)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=parent))
    with held(temporary):
        try:
            yield temporary
            for path in temporary.iterdir():
                with open(path, "rb") as written:
                    os.fsync(written.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)
            _replace_folder(parent / name, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_remains(parent: Path, name: str) -> None:
    """Remove the temporary folders of runs that were killed: those that no process holds."""
    for path in parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}\.part", path.name) and path.is_dir():
            with held(path) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)


def _replace_folder(target: Path, new: Path) -> None:
    """Rename `new` to `target`; files of `target` that are not the data set's move along."""
    if not target.exists():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(old)  # an empty folder is replaced by rename(2)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    own = _own_names(old, target.name)
    for path in old.iterdir():
        if path.name not in own and not (target / path.name).exists():
            path.rename(target / path.name)
    shutil.rmtree(old)


def _own_names(folder: Path, name: str) -> set[str]:
    """What a data set's folder holds of the data set: its files, what its meta file lists, its cache."""
    try:
        listed = json.loads((folder / f"{name}.meta.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        listed = ()
    return {*listed, *(f"{name}.{ending}" for ending in (*SUFFIXES, "yaml", "meta.json", "cache"))}
