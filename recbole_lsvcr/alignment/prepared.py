"""A prepared folder: all that stages `align` and `encode` need, as Parquet and JSON (and the user's own prompt family),
for a machine without RecBole.

    run_lsvcr.py --config my.yaml --output runs/mine --stage prepare      writes runs/mine/prepared
    python -m recbole_lsvcr.alignment runs/mine/prepared --output runs/mine      there: aligns and encodes

Texts and events lie in it, not finished inputs: histories are cut, and comments drawn anew, when a batch is made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import polars as pl

from dataset_tools.files import sha256_file, write_json
from recbole_lsvcr import __version__
from recbole_lsvcr.alignment.config import AlignmentConfig, load_alignment_config
from recbole_lsvcr.alignment.prompts import FAMILIES, PromptFamily
from recbole_lsvcr.data.instances import Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import DataError
from recbole_lsvcr.folders import replaced_folder
from recbole_lsvcr.model.sr import SRConfig

MANIFEST = "prepared.json"
FORMAT = 1
AGAIN = "prepare again (run_lsvcr.py --stage prepare)"
# The columns of each file; a column is named as the array or series of `Tables` that it holds.
_FILES: Mapping[str, tuple[str, ...]] = {
    "users.parquet": ("users",),
    "videos.parquet": ("items", "titles", "tags", "item_time"),
    "comments.parquet": (
        "comments",
        "contents",
        "comment_item",
        "comment_user",
        "comment_time",
        "comment_is_reply",
    ),
    "interactions.parquet": ("inter_user", "inter_item", "inter_time"),
    "comment_interactions.parquet": ("cinter_user", "cinter_item", "cinter_comment", "cinter_time"),
}
PROMPTS = "prompts.yaml"  # a prompt family that is none of the built-in ones
_TEXTS = ("users", "items", "comments", "titles", "contents", "tags")
TEXT_SETTINGS = ("text_dtype", "text_transform", "text_max_tokens", "text_batch_tokens", "max_unknown_share")


@dataclass(frozen=True)
class Prepared:
    """What a prepared folder holds.

    Attributes:
        data: the joint data set. config, sr, seed: of the alignment. text: settings of the text store, by name
        (`TEXT_SETTINGS`). kinds: of the instances whose texts it is to hold.
    """

    data: JointData
    config: AlignmentConfig
    sr: SRConfig
    seed: int
    text: Mapping[str, Any]
    kinds: tuple[Kind, ...] = ("video",)


def write_prepared(folder: Path, prepared: Prepared) -> None:
    """Write a prepared folder, whole or not at all; an older one is replaced.

    Raises:
        ConfigError: the folder holds something else, or the prompt family cannot be used. OSError: it cannot be
        written.
    """
    data, tables = prepared.data, prepared.data.tables
    settings = prepared.config.described()
    PromptFamily.load(prepared.config.prompts)  # what is wrong with it is found here, not on the other machine
    with replaced_folder(folder, MANIFEST) as temporary:
        for name, columns in _FILES.items():
            held = {column: getattr(tables, column) for column in columns}
            pl.DataFrame({c: v for c, v in held.items() if v is not None}).write_parquet(temporary / name)
        names = [*_FILES]
        if prepared.config.prompts not in FAMILIES:
            shutil.copyfile(PromptFamily.file(prepared.config.prompts), temporary / PROMPTS)
            settings["prompts"] = PROMPTS
            names.append(PROMPTS)
        write_json(
            temporary / MANIFEST,
            {
                "format": FORMAT,
                "written_by": f"recbole-lsvcr {__version__}",
                "dataset": tables.name,
                "dataset_fingerprint": tables.fingerprint,
                "split": asdict(data.split),
                "data": {name: getattr(data, name) for name in _DATA},
                "alignment": settings,
                "sr": asdict(prepared.sr),
                "seed": prepared.seed,
                "text": dict(prepared.text),
                "kinds": list(prepared.kinds),
                "files": {name: sha256_file(temporary / name) for name in names},
            },
        )


_DATA = ("max_videos", "max_records", "record_gap", "popular_top")


def read_prepared(folder: Path) -> Prepared:
    """Read what `write_prepared` wrote; RecBole is not needed.

    Raises:
        DataError: no prepared folder, a damaged one, one of another version. ConfigError: its settings.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is no prepared folder (no readable {MANIFEST}): {AGAIN}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(
            f"{folder} was prepared by another version ({_word(found)}), this one reads format {FORMAT}: {AGAIN}"
        )
    config = load_alignment_config(found["alignment"])
    own_prompts = config.prompts not in FAMILIES
    for name in [*_FILES, *([PROMPTS] if own_prompts else [])]:
        if not (folder / name).is_file() or sha256_file(folder / name) != found["files"].get(name):
            raise DataError(f"{folder}: {name} is missing or not the file that was prepared; copy it again, or {AGAIN}")
    split = found["split"]
    tuples = {field.name: tuple(split[field.name]) for field in fields(Split) if isinstance(split[field.name], list)}
    return Prepared(
        data=JointData(_tables(folder, found), split=Split(**{**split, **tuples}), **found["data"]),
        config=replace(config, prompts=str(folder / PROMPTS)) if own_prompts else config,
        sr=SRConfig(**found["sr"]),
        seed=found["seed"],
        text=found["text"],
        kinds=tuple(found.get("kinds", Prepared.kinds)),
    )


def _tables(folder: Path, found: Mapping[str, Any]) -> Tables:
    values: dict[str, Any] = {"tags": None}
    for name in _FILES:
        for series in pl.read_parquet(folder / name, glob=False):
            values[series.name] = _named(series) if series.name in _TEXTS else series.to_numpy(writable=True)
    return Tables(name=found["dataset"], folder=folder, fingerprint=found["dataset_fingerprint"], **values)


def _named(series: pl.Series) -> pl.Series:
    """Under the name of the atomic files' column, as `Tables` has it."""
    names = {"users": "user_id", "items": "item_id", "comments": "comment_id", "titles": "title", "contents": "content"}
    return series.rename(names.get(series.name, series.name))


def _word(found: Any) -> str:
    return str(found.get("written_by", "unknown")) if isinstance(found, dict) else "unknown"
