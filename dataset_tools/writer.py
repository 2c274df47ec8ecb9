"""The only code that writes atomic files: header, types, quoting, and a folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from dataset_tools import __version__
from dataset_tools.errors import DataToolError
from dataset_tools.files import sha256_file, write_json
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


def write_dataset(
    folder: Path,
    tables: Mapping[str, pl.DataFrame],
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
    prepared = {suffix: _prepare(suffix, tables[suffix]) for suffix in SUFFIXES if suffix in tables}
    try:
        with _whole_folder(folder, name) as temporary:
            total = sum(frame.height for frame in prepared.values())
            with tqdm(total=total, desc="writing", unit=" rows", unit_scale=True, disable=None) as progress:
                for suffix, frame in prepared.items():
                    _write_atomic_file(temporary / f"{name}.{suffix}", frame, progress)
            (temporary / f"{name}.yaml").write_text(_recbole_settings(name, prepared), encoding="utf-8")
            for key, write in (extra or {}).items():
                write(temporary / f"{name}.{key}")
            files = {path.name: sha256_file(path) for path in sorted(temporary.iterdir())}
            described = {"name": name, **meta, **_describe(prepared), "files": files, "tool_version": __version__}
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


def _prepare(suffix: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The table as it stands in the file: columns `name:type` in the contract's order, texts normalised."""
    known = ATOMIC_FILES[suffix].fields
    lacking = [name for name, field in known.items() if field.required and name not in frame.columns]
    if lacking:
        raise DataToolError(f".{suffix} needs the column {', '.join(lacking)}")
    names = [name for name in known if name in frame.columns]
    names += [name for name in frame.columns if name not in known and not name.startswith("_")]
    columns = []
    for name in names:
        kind = field_type(suffix, name, frame.schema[name])
        columns.append(_as_text(frame, name, kind).alias(f"{name}:{kind}"))
    return frame.select(columns)


def _as_text(frame: pl.DataFrame, name: str, kind: str) -> pl.Expr:
    column, dtype = pl.col(name), frame.schema[name]
    if isinstance(dtype, pl.List):
        return (
            join_tags(column) if kind == "token_seq" else column.list.eval(pl.element().cast(pl.String)).list.join(" ")
        )
    if kind != "float":
        return normalise(column.cast(pl.String))
    column = column.cast(pl.Float64)
    whole = frame.select(((column == column.round()) & (column.abs() < 2**53)).fill_null(True).all()).item()
    return column.cast(pl.Int64) if whole else column  # 1565000000, not 1565000000.0


def _write_atomic_file(path: Path, frame: pl.DataFrame, progress: tqdm) -> None:
    with open(path, "wb") as handle:
        handle.write(("\t".join(frame.columns) + "\n").encode())
        for block in frame.iter_slices(_ROWS_PER_BLOCK):
            handle.write(block.write_csv(include_header=False, separator="\t", quote_style="necessary").encode())
            progress.update(block.height)


def _recbole_settings(name: str, prepared: Mapping[str, pl.DataFrame]) -> str:
    wanted = {"inter": ("user_id", "item_id", "timestamp"), "item": ("item_id", "title", "tags"), "user": ("user_id",)}
    lines = []
    for suffix, fields in wanted.items():
        if suffix in prepared:
            # RecBole cannot make a tensor of sequences that are all empty.
            there = [
                column.partition(":")[0]
                for column, dtype in prepared[suffix].schema.items()
                if dtype != pl.String or (prepared[suffix][column] != "").any()
            ]
            lines.append(f"  {suffix}: [{', '.join(field for field in fields if field in there)}]")
    return _RECBOLE_SETTINGS.format(name=name, load_col="\n".join(lines))


def _describe(prepared: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Rows of each file, distinct users and videos that interact, and the first and last time of any interaction."""
    events = [prepared[suffix] for suffix in ("inter", "cinter") if suffix in prepared]
    times = pl.concat([frame["timestamp:float"].cast(pl.Float64) for frame in events])
    return {
        "rows": {suffix: frame.height for suffix, frame in prepared.items()},
        "users": {
            suffix: prepared[suffix]["user_id:token"].n_unique() for suffix in ("inter", "cinter") if suffix in prepared
        },
        "videos": {
            suffix: prepared[suffix]["item_id:token"].n_unique() for suffix in ("inter", "cinter") if suffix in prepared
        },
        "time_range": [times.min(), times.max()],
    }


@contextmanager
def _whole_folder(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary sibling folder that takes the place of `folder` on success and vanishes on any error."""
    parent = folder.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=parent))
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
    for path in old.iterdir():
        if not path.name.startswith(f"{target.name}."):
            path.rename(target / path.name)
    shutil.rmtree(old)
