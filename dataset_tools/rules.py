"""The rules that a row can be judged by alone: ids, texts, numbers, times. Applied block by block."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from dataset_tools.problems import Problems
from dataset_tools.schema import ATOMIC_FILES, TIME_RANGE, field_type
from dataset_tools.text import as_number, is_blank, is_usable_id, join_tags, normalise


def clean_rows(suffix: str, rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """The rows of an atomic file that are sound, with ids stripped, texts normalised and numbers as Float64.

    The others are recorded in `problems`. Columns that the contract does not know become Float64, List or String.
    """
    return _drop_bad_rows(suffix, _parsed(suffix, rows, problems), problems)


def ids_of(suffix: str, rows: pl.DataFrame) -> pl.Series:
    """What the key of each row says, whether the row is sound or not."""
    key = str(ATOMIC_FILES[suffix].key)
    return rows.select(_stripped(key)).to_series()


def numbers_of(
    rows: pl.DataFrame, names: Sequence[str], problems: Problems, *, may_be_empty: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Some text columns as Float64, and the rows, both without the rows where one is no finite number (nor, if it
    `may_be_empty`, nothing): these are faults."""
    values = rows.select(as_number(pl.col(name)) for name in names)
    for name in names:
        good = values[name].is_finite().fill_null(False)
        if may_be_empty and not good.all():
            good |= rows.select(is_blank(pl.col(name))).to_series()
        if not good.all():
            problems.add_rows(f"malformed number in {name}", rows.filter(~good), [name])
            rows, values = rows.filter(good), values.filter(good)
    return values, rows


def _stripped(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).fill_null("").str.strip_chars()


def _parsed(suffix: str, table: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """Malformed numbers are dropped."""
    fields = ATOMIC_FILES[suffix].fields
    columns = []
    for name, dtype in table.schema.items():
        kind = fields[name].type if name in fields else ""
        if kind == "token":
            columns.append(_stripped(name))
        elif kind == "token_seq":
            columns.append(join_tags(pl.col(name)) if isinstance(dtype, pl.List) else normalise(pl.col(name)))
        elif not kind and not name.startswith("_"):  # one type in every block
            columns.append(pl.col(name).cast(_other_type(suffix, name, dtype)))
    table = table.with_columns(columns)
    for name, dtype in table.schema.items():
        if name.startswith("_") or field_type(suffix, name, dtype) != "float":
            continue
        required = name in fields and fields[name].required
        value = pl.col(name).cast(pl.Float64, strict=False)
        empty = pl.col(name).is_null()
        if table.schema[name] == pl.String:
            value, empty = as_number(pl.col(name)), empty | is_blank(pl.col(name))
        good = value.is_finite().fill_null(False) | (pl.lit(not required) & empty)
        table = _keep(table, good, f"malformed number in .{suffix}", [name], problems)
        table = table.with_columns(value.alias(name))
    return table


def _other_type(suffix: str, name: str, dtype: pl.DataType) -> pl.DataType | type[pl.DataType]:
    kind = field_type(suffix, name, dtype)
    if kind in ("float", "float_seq"):
        return pl.Float64 if kind == "float" else pl.List(pl.Float64)
    return pl.List(pl.String) if kind == "token_seq" else pl.String


def _drop_bad_rows(suffix: str, table: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    file = ATOMIC_FILES[suffix]
    for name, field in file.fields.items():
        if name not in table.columns:
            continue
        value = pl.col(name)
        if field.type == "token":
            good = is_usable_id(value) if field.required else is_usable_id(value) | (value == "")
            kind = f"{name} that is empty or read as missing (NA, null …) in .{suffix}"
            table = _keep(table, good, kind, [name], problems)
        if field.time:
            low, high = TIME_RANGE
            too_fine = (value.abs() >= low * 1e3) & (value.abs() < high * 1e6)
            kind = f"{name} in milli- or microseconds, seconds expected, in .{suffix}"
            table = _keep(table, ~too_fine.fill_null(False), kind, [name], problems)
            good = value.is_between(low, high, closed="left").fill_null(True)
            table = _keep(table, good, f"{name} outside 1990–2100 in .{suffix}", [name], problems)
    if suffix == "item":
        table = _keep(table, pl.col("title") != "", "empty title in .item", ["item_id"], problems)
    return table


def _keep(table: pl.DataFrame, good: pl.Expr, kind: str, shown: list[str], problems: Problems) -> pl.DataFrame:
    """The rows where `good`; the others are recorded."""
    is_good = table.select(_good=good.fill_null(False)).to_series()
    if is_good.all():
        return table
    problems.add_rows(kind, table.filter(~is_good), shown)
    return table.filter(is_good)
