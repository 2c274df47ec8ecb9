"""The steps from raw tables to a data set that every source shares: rules, repeated pairs, k-core, order.

A source hands over one table per atomic file, with the contract's column names; numbers may still be text. Every row
says where it comes from in `_file` and `_line` (see `Problems`), rows stand in source order. None is dropped uncounted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from dataset_tools.problems import Problems
from dataset_tools.schema import ATOMIC_FILES, TIME_RANGE
from dataset_tools.text import is_usable_id, normalise
from dataset_tools.writer import write_dataset

Tables = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Options:
    """What the user may choose for every source."""

    repeat: Literal["first", "all"] = "first"
    min_user_inter: int = 0
    min_item_inter: int = 0
    on_error: Literal["fail", "skip"] = "fail"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command-line arguments of `Options`, and of the folder to write."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; its name becomes the data set's name")
    parser.add_argument(
        "--repeat",
        choices=("first", "all"),
        default="first",
        help="a (user, video) pair that occurs again: keep the first, or all (default: first)",
    )
    parser.add_argument(
        "--min-user-inter",
        type=_count,
        default=0,
        metavar="N",
        help="drop users with fewer video interactions than N; with --min-item-inter a k-core (default: 0, off)",
    )
    parser.add_argument(
        "--min-item-inter",
        type=_count,
        default=0,
        metavar="N",
        help="drop videos with fewer interactions than N (default: 0, off); those with comment interactions only stay",
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="faulty rows: stop and list them all, or drop and count them (default: fail)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write into a folder that holds other files too; they stay, an older data set of that name is replaced",
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a count (0, 1, 2, …)")
    return int(text)


def options_of(args: argparse.Namespace) -> Options:
    """`Options` from parsed arguments."""
    return Options(args.repeat, args.min_user_inter, args.min_item_inter, args.on_error)


def convert(
    tables: Tables,
    problems: Problems,
    out: Path,
    *,
    source: str,
    options: Options,
    source_options: Mapping[str, Any],
    notes: Mapping[str, int],
    overwrite: bool = False,
) -> None:
    """Check, filter, order and write `tables`; `DataToolError` with every fault found where `on_error` is `fail`."""
    tables = clean(tables, problems, cascades=options.on_error == "skip")
    problems.settle(options.on_error)
    tables["inter"] = drop_repeats(tables["inter"]) if options.repeat == "first" else tables["inter"]
    tables, core = k_core(tables, options.min_user_inter, options.min_item_inter)
    for suffix in ("inter", "cinter"):
        tables[suffix] = tables[suffix].sort("timestamp", maintain_order=True)
    meta = {
        "source": source,
        "raw_files": [Path(file).name for file in problems.files],
        "options": {**source_options, **asdict(options)},
        "dropped": problems.totals(),
        "k_core": core,
        "notes": dict(notes),
    }
    write_dataset(out, tables, meta=meta, overwrite=overwrite)


def clean(tables: Tables, problems: Problems, *, cascades: bool) -> Tables:
    """The rows that obey every rule of a single row and of the keys between files; the others go to `problems`.

    `cascades`: whether rows go, and count, because the row that they refer to went.
    """
    known = {
        suffix: tables[suffix].select(pl.col(file.key).cast(pl.String).fill_null("").str.strip_chars())
        for suffix, file in ATOMIC_FILES.items()
        if file.key and suffix in tables
    }
    tables = {suffix: _clean_rows(suffix, table, problems) for suffix, table in tables.items()}
    tables = {suffix: _drop_bad_rows(suffix, table, problems) for suffix, table in tables.items()}
    for suffix in ("comment", "cinter", "inter"):
        if suffix in tables:
            tables[suffix] = _drop_strangers(suffix, tables, known, problems, cascades)
    return tables


def _clean_rows(suffix: str, table: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """Ids stripped, texts normalised, numbers parsed; malformed numbers are dropped."""
    fields = ATOMIC_FILES[suffix].fields
    tokens = [name for name in table.columns if name in fields and fields[name].type == "token"]
    texts = [name for name in table.columns if name in fields and fields[name].type == "token_seq"]
    texts = [name for name in texts if table.schema[name] == pl.String]
    table = table.with_columns(
        *(pl.col(name).cast(pl.String).fill_null("").str.strip_chars() for name in tokens),
        *(normalise(pl.col(name)) for name in texts),
    )
    numbers = [name for name in table.columns if name in fields and fields[name].type == "float"]
    for name in numbers:
        value = pl.col(name).cast(pl.Float64, strict=False)
        empty = pl.col(name).is_null()
        if table.schema[name] == pl.String:
            value = pl.col(name).str.strip_chars().cast(pl.Float64, strict=False)
            empty = empty | (pl.col(name).str.strip_chars() == "")
        good = value.is_finite().fill_null(False) | (pl.lit(not fields[name].required) & empty)
        table = _keep(table, good, f"malformed number in .{suffix}", [name], problems)
        table = table.with_columns(value.alias(name))
    return table


def _drop_bad_rows(suffix: str, table: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    file = ATOMIC_FILES[suffix]
    for name, field in file.fields.items():
        if name not in table.columns:
            continue
        value = pl.col(name)
        if field.type == "token":
            good = is_usable_id(value) if field.required else is_usable_id(value) | (value == "")
            table = _keep(
                table, good, f"{name} that is empty or read as missing (NA, null …) in .{suffix}", [name], problems
            )
        if field.time:
            low, high = TIME_RANGE
            too_fine = (value.abs() >= low * 1e3) & (value.abs() < high * 1e6)
            kind = f"{name} in milli- or microseconds, seconds expected, in .{suffix}"
            table = _keep(table, ~too_fine.fill_null(False), kind, [name], problems)
            good = value.is_between(low, high, closed="left").fill_null(True)
            table = _keep(table, good, f"{name} outside 1990–2100 in .{suffix}", [name], problems)
    if suffix == "item":
        table = _keep(table, pl.col("title") != "", "empty title in .item", ["item_id"], problems)
    if file.key:
        table = _keep(
            table, pl.col(file.key).is_first_distinct(), f"duplicated {file.key} in .{suffix}", [file.key], problems
        )
    return table


def _drop_strangers(suffix: str, tables: Tables, known: Tables, problems: Problems, cascades: bool) -> pl.DataFrame:
    """Rows that refer to a video, comment or user that is not there, or to a comment of another video."""
    table = tables[suffix]
    for name, field in ATOMIC_FILES[suffix].fields.items():
        target = field.refers_to
        if name not in table.columns or target is None or target not in tables:
            continue
        key = str(ATOMIC_FILES[target].key)
        blank = pl.lit(not field.required) & (pl.col(name) == "")
        there = blank | pl.col(name).is_in(known[target][key].implode())
        table = _keep(table, there, f"{name} in .{suffix} that .{target} does not have", [name], problems)
        before = -1 if cascades else table.height
        while before != table.height:  # once, but for a comment whose parent's parent was dropped
            before = table.height
            kept = table if target == suffix else tables[target]
            there = blank | pl.col(name).is_in(kept[key].implode())
            table = _keep(table, there, f"row of .{suffix} whose {name} was dropped", [name], problems)
    if suffix == "cinter" and "comment" in tables:
        owner = tables["comment"].select("comment_id", _owner="item_id")
        table = table.join(owner, on="comment_id", how="left", maintain_order="left")
        kind = "item_id in .cinter that is not its comment's"
        same = (pl.col("item_id") == pl.col("_owner")) | pl.col("_owner").is_null()  # null: a comment found faulty
        table = _keep(table, same, kind, ["comment_id", "item_id"], problems).drop("_owner")
    return table


def _keep(table: pl.DataFrame, good: pl.Expr, kind: str, shown: list[str], problems: Problems) -> pl.DataFrame:
    """The rows where `good`; the others are recorded."""
    table = table.with_columns(_good=good.fill_null(False))
    if not table["_good"].all():
        problems.add_rows(kind, table.filter(~pl.col("_good")), shown)
        table = table.filter(pl.col("_good"))
    return table.drop("_good")


def drop_repeats(inter: pl.DataFrame) -> pl.DataFrame:
    """The first row, by (timestamp, source order), of every (user, video) pair."""
    inter = inter.sort("timestamp", maintain_order=True)
    return inter.unique(["user_id", "item_id"], keep="first", maintain_order=True)


def k_core(tables: Tables, min_user: int, min_item: int) -> tuple[Tables, dict[str, int]]:
    """Drop users and videos with too few rows of `.inter` until none is left; also counts rounds and what went.

    What is dropped leaves every file. A video that has comment interactions only, and a user who has them only, are not
    counted and stay; a video with no interaction of either kind is dropped when `min_item` is above 0. A comment whose
    author is dropped stays as the video's text, without its author.
    """
    if min_user <= 1 and min_item <= 0:
        return tables, {}
    core, rounds = tables["inter"], 0
    while True:
        kept = core
        if min_user > 1:
            kept = kept.filter(pl.len().over("user_id") >= min_user)
        if min_item > 1:
            kept = kept.filter(pl.len().over("item_id") >= min_item)
        if kept.height == core.height:
            break
        core, rounds = kept, rounds + 1
    lost_users = tables["inter"].select("user_id").unique().join(core, on="user_id", how="anti")
    items = tables["item"].select("item_id")
    stay = pl.concat([core.select("item_id"), _never_watched(tables, min_item)]).unique()
    lost_items = items.join(stay, on="item_id", how="anti")
    out = {**tables, "inter": core}
    for suffix in ("item", "cinter", "comment"):
        out[suffix] = out[suffix].join(lost_items, on="item_id", how="anti", maintain_order="left")
    for suffix in ("user", "cinter"):
        if suffix in out:
            out[suffix] = out[suffix].join(lost_users, on="user_id", how="anti", maintain_order="left")
    if "user_id" in out["comment"].columns:
        author = pl.when(pl.col("user_id").is_in(lost_users["user_id"].implode())).then(pl.lit("")).otherwise("user_id")
        out["comment"] = out["comment"].with_columns(author.alias("user_id"))
    return out, {"rounds": rounds, "users_dropped": lost_users.height, "videos_dropped": lost_items.height}


def _never_watched(tables: Tables, min_item: int) -> pl.DataFrame:
    """Videos without a row in `.inter` that the k-core does not count."""
    source = tables["cinter"] if min_item > 0 else tables["item"]
    return source.select("item_id").join(tables["inter"], on="item_id", how="anti")
