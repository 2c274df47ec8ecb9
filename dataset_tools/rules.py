"""The rules that a row can be judged by alone: ids, texts, numbers, times. Applied block by block."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from dataset_tools.problems import Problems
from dataset_tools.schema import ATOMIC_FILES, TIME_RANGE, field_type
from dataset_tools.text import as_number, is_blank, is_usable_id, join_tags, normalise, without_lost


def clean_rows(suffix: str, rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """The rows of an atomic file that are sound, with ids stripped, texts normalised and numbers as Float64.

    The others are recorded in `problems`, each for the first rule that it breaks. Columns that the contract does not
    know become Float64, List or String.
    """
    fields = ATOMIC_FILES[suffix].fields
    rows = rows.with_columns(_text_columns(suffix, rows.schema))
    numbers = [name for name, dtype in rows.schema.items() if _is_number(suffix, name, dtype)]
    optional = [name for name in numbers if name not in fields or not fields[name].required]
    values, sound = numbers_of(rows, numbers, problems, may_be_empty=optional, place=f".{suffix}")
    rows = rows.with_columns(values)
    rows = rows if sound.all() else rows.filter(sound)
    rules = _rules(suffix, rows.columns)
    kept = rows.select(good.fill_null(False).alias(str(at)) for at, (_, good, _) in enumerate(rules))
    sound = pl.Series([True]).new_from_index(0, rows.height)
    for (kind, _, shown), good in zip(rules, kept, strict=True):
        if not good.all():
            problems.add_rows(kind, rows.filter(sound & ~good), [shown])
            sound &= good
    return rows if sound.all() else rows.filter(sound)


def ids_of(suffix: str, rows: pl.DataFrame) -> pl.Series:
    """What the key of each row says, whether the row is sound or not."""
    key = str(ATOMIC_FILES[suffix].key)
    return rows.select(_stripped(key)).to_series()


def numbers_of(
    rows: pl.DataFrame, names: Sequence[str], problems: Problems, *, may_be_empty: Collection[str] = (), place: str = ""
) -> tuple[pl.DataFrame, pl.Series]:
    """Some columns, of text or numbers, as Float64; and whether each row has finite numbers (or, where it
    `may_be_empty`, nothing) in all of them. The others are faults, in `place` or else the column."""
    texts = [name for name in names if rows.schema[name] == pl.String]
    values = rows.select(pl.col(name).cast(pl.Float64, strict=False) for name in names)
    padded = [name for name in texts if values[name].null_count()]  # or empty, or no number; the others need no strip
    values = values.with_columns(rows.select(as_number(pl.col(name)) for name in padded))
    sound = pl.Series([True]).new_from_index(0, rows.height)
    for name in names:
        good = values[name].is_finite().fill_null(name in may_be_empty and name not in texts)
        if not good.all() and name in texts and name in may_be_empty:
            good |= rows.select((pl.col(name).is_null() | is_blank(pl.col(name))).fill_null(True)).to_series()
        if not good.all():
            problems.add_rows(f"malformed number in {place or name}", rows.filter(sound & ~good), [name])
            sound &= good
    return values, sound


def _stripped(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).fill_null("").str.strip_chars()


def _text_columns(suffix: str, schema: pl.Schema) -> list[pl.Expr]:
    """Ids stripped, texts and tags normalised, columns that the contract does not know of one type in every block; an
    id that may be missing is so if RecBole would read it as missing."""
    fields, columns = ATOMIC_FILES[suffix].fields, []
    for name, dtype in schema.items():
        kind = fields[name].type if name in fields else ""
        if kind == "token":
            columns.append(_stripped(name) if fields[name].required else without_lost(_stripped(name)).alias(name))
        elif kind == "token_seq":
            columns.append(join_tags(pl.col(name)) if isinstance(dtype, pl.List) else normalise(pl.col(name)))
        elif not kind and not name.startswith("_"):
            columns.append(pl.col(name).cast(_other_type(suffix, name, dtype)))
    return columns


def _is_number(suffix: str, name: str, dtype: pl.DataType) -> bool:
    return not name.startswith("_") and field_type(suffix, name, dtype) == "float"


def _other_type(suffix: str, name: str, dtype: pl.DataType) -> pl.DataType | type[pl.DataType]:
    kind = field_type(suffix, name, dtype)
    if kind in ("float", "float_seq"):
        return pl.Float64 if kind == "float" else pl.List(pl.Float64)
    return pl.List(pl.String) if kind == "token_seq" else pl.String


def lost_id(name: str, suffix: str) -> str:
    """The kind of fault of an id that RecBole's reader would not see."""
    return f"{name} that is empty or read as missing (NA, null …) in .{suffix}"


def _rules(suffix: str, columns: Collection[str]) -> list[tuple[str, pl.Expr, str]]:
    """The rules about ids, times and titles: kind of fault, whether a row is good, the column to quote."""
    rules = []
    low, high = TIME_RANGE
    for name, field in ATOMIC_FILES[suffix].fields.items():
        if name not in columns:
            continue
        value = pl.col(name)
        if field.type == "token":
            good = is_usable_id(value) if field.required else is_usable_id(value) | (value == "")
            rules.append((lost_id(name, suffix), good, name))
        if field.time:
            too_fine = (value.abs() >= low * 1e3) & (value.abs() < high * 1e6)
            kind = f"{name} in milli- or microseconds, seconds expected, in .{suffix}"
            rules.append((kind, ~too_fine.fill_null(False), name))
            within = value.is_between(low, high, closed="left").fill_null(True)
            rules.append((f"{name} outside 1990–2100 in .{suffix}", within, name))
    if suffix == "item":
        rules.append(("empty title in .item", pl.col("title") != "", "item_id"))
    return rules
