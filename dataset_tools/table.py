"""Any CSV, TSV, JSON-lines or Parquet set, by a YAML mapping of its columns to the atomic fields.

The mapping has one section per atomic file: `inter` and `item`, and if there are any `cinter`, `comment`, `user`.

  inter:
    file: logs/video.csv          # under RAW; .csv .tsv .txt .jsonl .json .parquet, the text formats also with .gz
    separator: ","                # CSV only; found in the first line when not given
    quoted: true                  # CSV only; false: a quote is a character like any other
    header: [uid, vid, time_ms]   # CSV only; for files without a header line
    where: is_like = 1 OR (play_ms >= 0.9 * length_ms AND NOT is_hate = 1)
    columns:
      user_id: uid                            # atomic field: raw column (`a.b` looks into JSON objects)
      item_id: {column: vid, prefix: v}       # prefix: put before every id, so that an id `NA` survives RecBole
      timestamp: {column: time_ms, time: ms}  # s, ms, us, iso, or a strptime format; zone: Asia/Shanghai (default UTC)
      like: {expr: is_like + is_collect > 0}  # an SQL expression over raw columns
      like: {value: 1}                        # a constant
      tags: {column: topics, split: ";"}      # one tag per part
      comment_id: {row: c}                    # c1, c2, … for rows without an id of their own

`where` keeps the rows that are positives; the others are counted in the meta file. It and `expr` are SQL expressions as
Polars knows them. In text formats a column whose every value is a number is one in expressions, `true` and `false` are
1 and 0, and what is empty is NULL. Fields that the contract does not know may be added: a `column` becomes a token, an
`expr` that is a number becomes a float.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from dataset_tools.convert import Tables, add_options, convert, options_of
from dataset_tools.errors import DataToolError
from dataset_tools.problems import Problems
from dataset_tools.schema import ATOMIC_FILES, field_type
from dataset_tools.tabular import read_table
from dataset_tools.times import UNITS, check_format, formatted_seconds, iso_seconds, to_seconds
from dataset_tools.writer import check_target

HELP = "any CSV, TSV, JSON-lines or Parquet set, by a YAML mapping of columns"
EXAMPLE = "lsvcr-data table logs/ dataset/mine --mapping examples/table_mapping.yaml"
SECTION_KEYS = ("file", "separator", "quoted", "header", "where", "columns")
COLUMN_KEYS = ("column", "expr", "value", "row", "time", "zone", "split", "prefix")
_ORIGINS = ("column", "expr", "value", "row")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data table`."""
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder that the mapping's files are in")
    add_options(parser)
    parser.add_argument("--mapping", type=Path, required=True, metavar="YAML", help="the mapping, as described above")


def run(args: argparse.Namespace) -> int:
    """Convert as parsed arguments and the mapping say."""
    check_target(args.out, overwrite=args.overwrite)
    mapping = load_mapping(args.mapping)
    problems = Problems()
    tables, notes = read(args.raw, mapping, problems)
    convert(
        tables,
        problems,
        args.out,
        source="table",
        options=options_of(args),
        source_options={"mapping": {suffix: vars(section) for suffix, section in mapping.items()}},
        notes=notes,
        overwrite=args.overwrite,
    )
    return 0


@dataclass(frozen=True)
class Section:
    """How one atomic file is made; `columns` maps its fields to {origin: …, time: …}."""

    file: str
    columns: Mapping[str, Mapping[str, Any]]
    separator: str | None = None
    quoted: bool = True
    header: list[str] | None = None
    where: str | None = None


def load_mapping(path: Path) -> dict[str, Section]:
    """Read and validate a mapping file; `DataToolError` says which key is wrong and what is accepted."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataToolError(f"cannot read the mapping {path}: {error}") from error
    except yaml.YAMLError as error:
        raise DataToolError(f"the mapping {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict) or not {"inter", "item"} <= set(raw):
        raise DataToolError(f"the mapping {path} needs the sections inter and item")
    _only(raw, tuple(ATOMIC_FILES), f"{path}: section")
    return {suffix: _section(suffix, section, f"{path}: {suffix}") for suffix, section in raw.items()}


def _section(suffix: str, raw: Any, place: str) -> Section:
    if not isinstance(raw, dict) or not isinstance(raw.get("columns"), dict) or not isinstance(raw.get("file"), str):
        raise DataToolError(f"{place} needs a file and columns")
    _only(raw, SECTION_KEYS, place)
    separator, header = raw.get("separator", ","), raw.get("header", ["a"])
    if not isinstance(separator, str) or len(separator) != 1:
        raise DataToolError(f'{place}: separator is {separator!r}; give one character, a tab as "\\t"')
    if not isinstance(header, list) or not all(isinstance(name, str) for name in header):
        raise DataToolError(f"{place}: header is {header!r}; give a list of the columns' names")
    if not isinstance(raw.get("quoted", True), bool) or not isinstance(raw.get("where", ""), str):
        raise DataToolError(f"{place}: quoted must be true or false, where an SQL expression")
    required = [name for name, field in ATOMIC_FILES[suffix].fields.items() if field.required]
    lacking = [name for name in required if name not in raw["columns"]]
    if lacking:
        raise DataToolError(f"{place}: columns lacks {', '.join(lacking)}")
    columns = {str(name): _column(spec, f"{place}: {name}") for name, spec in raw["columns"].items()}
    return Section(**{**raw, "columns": columns})


def _column(raw: Any, place: str) -> dict[str, Any]:
    spec = {"column": raw} if isinstance(raw, str) else raw
    if not isinstance(spec, dict) or sum(origin in spec for origin in _ORIGINS) != 1:
        raise DataToolError(f"{place}: give a raw column's name, or a map with exactly one of {', '.join(_ORIGINS)}")
    _only(spec, COLUMN_KEYS, place)
    odd = [f"{key} ({value!r})" for key, value in spec.items() if not isinstance(value, str | int | float | None)]
    if odd:
        raise DataToolError(f"{place}: {', '.join(odd)} must be a text or a number; quote it in the YAML")
    time, zone = spec.get("time"), str(spec.get("zone", "UTC"))
    if time is not None and time not in UNITS:
        if time != "iso" and "%" not in str(time):
            raise DataToolError(f"{place}: time is {time!r}; give s, ms, us, iso or a strptime format such as %Y-%m-%d")
        check_format("%Y-%m-%d" if time == "iso" else str(time), zone)
    return spec


def _only(given: Mapping[Any, Any], accepted: tuple[str, ...], place: str) -> None:
    unknown = [str(key) for key in given if key not in accepted]
    if unknown:
        raise DataToolError(f"{place}: unknown {', '.join(unknown)}; accepted are {', '.join(accepted)}")


def read(raw: Path, mapping: Mapping[str, Section], problems: Problems) -> tuple[Tables, dict[str, int]]:
    """The raw tables that a mapping describes, and how many rows of each were no positives."""
    tables: Tables = {}
    notes: dict[str, int] = {}
    for suffix, section in mapping.items():
        tables[suffix], left_out = _read_section(raw, suffix, section, problems)
        if section.where is not None:
            notes[f"rows_of_{suffix}_not_positive"] = left_out
    for suffix in ("cinter", "comment"):
        if suffix not in tables:
            fields = ATOMIC_FILES[suffix].fields
            schema: dict[str, Any] = {name: pl.String for name, field in fields.items() if field.required}
            tables[suffix] = pl.DataFrame(schema={**schema, "_file": pl.UInt32, "_line": pl.UInt32})
    return tables, notes


def _read_section(raw: Path, suffix: str, section: Section, problems: Problems) -> tuple[pl.DataFrame, int]:
    expressions = {name: _sql(str(spec["expr"]), name) for name, spec in section.columns.items() if "expr" in spec}
    where = _sql(section.where, f"{suffix}: where") if section.where is not None else pl.lit(True)
    needed = {str(spec["column"]): None for spec in section.columns.values() if "column" in spec}
    for expression in (*expressions.values(), where):
        needed |= dict.fromkeys(expression.meta.root_names())
    frame = read_table(
        raw / section.file,
        list(needed),
        problems,
        separator=section.separator,
        quoted=section.quoted,
        header=section.header,
    )
    typed = _numbers(frame)
    computed = {name: _evaluate(typed, expression, name) for name, expression in expressions.items()}
    keep = _evaluate(typed, where, f"{suffix}: where")
    if keep.dtype.is_numeric():
        keep = keep != 0
    if keep.dtype != pl.Boolean:
        raise DataToolError(f"{suffix}: where is not a condition: {section.where}")
    columns = []
    for name, spec in section.columns.items():
        column = computed[name] if name in computed else _value(frame, spec)
        columns.append(_finish(column.alias(name), spec, suffix).alias(name))
    table = frame.select("_file", "_line").with_columns(columns)
    kept = table.filter(keep.fill_null(False))
    return kept, table.height - kept.height


def _sql(text: str, place: str) -> pl.Expr:
    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise DataToolError(f"{place}: {text!r} is not an SQL expression: {str(error).splitlines()[0]}") from error


def _evaluate(frame: pl.DataFrame, expression: pl.Expr, place: str) -> pl.Series:
    try:
        value = frame.select(expression.alias("value")).to_series()
    except pl.exceptions.PolarsError as error:
        raise DataToolError(f"{place} cannot be evaluated: {str(error).splitlines()[0]}") from error
    return value if len(value) == frame.height else value.new_from_index(0, frame.height)


def _numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Text columns with empty text as null, and as numbers where every value is one."""
    columns = []
    for name in frame.columns:
        if frame.schema[name] == pl.String and not name.startswith("_"):
            text = frame[name].replace({"": None})
            number = text.str.strip_chars().cast(pl.Float64, strict=False)
            columns.append(number if number.null_count() == text.null_count() else text)
    return frame.with_columns(columns)


def _value(frame: pl.DataFrame, spec: Mapping[str, Any]) -> pl.Series:
    if "column" in spec:
        return frame[str(spec["column"])]
    if "row" in spec:
        return frame.select(pl.format("{}{}", pl.lit(str(spec["row"])), pl.int_range(1, pl.len() + 1))).to_series()
    return pl.Series([spec["value"]]).new_from_index(0, frame.height)


def _finish(column: pl.Series, spec: Mapping[str, Any], suffix: str) -> pl.Series:
    """Times to seconds, lists split, ids prefixed; a value that is malformed stays, for the shared checks to report."""
    kind = field_type(suffix, column.name, column.dtype)
    if "time" in spec:
        column = _seconds(column, str(spec["time"]), str(spec.get("zone", "UTC")))
    if "split" in spec:
        column = column.cast(pl.String).str.split(str(spec["split"]))
    elif isinstance(column.dtype, pl.List) and kind == "token_seq" and column.name != "tags":
        column = column.cast(pl.List(pl.String)).list.join(" ")
    if kind == "token":
        whole = column.dtype.is_float() and bool((column == column.round()).all())
        column = (column.cast(pl.Int64) if whole else column).cast(pl.String)  # id 12 is not "12.0"
    if "prefix" in spec:
        text = column.cast(pl.String)
        column = pl.select(pl.when(text != "").then(str(spec["prefix"]) + text).otherwise(text)).to_series()
    return column


def _seconds(column: pl.Series, time: str, zone: str) -> pl.Series:
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return pl.select(to_seconds(pl.lit(column))).to_series()
    text = pl.lit(column.cast(pl.String))
    if time in UNITS:
        number = pl.select(text.str.strip_chars().cast(pl.Float64, strict=False)).to_series()
        exact = pl.Series(number.to_numpy() / UNITS[time], nan_to_null=True)  # Polars would multiply by 1 / unit
        return pl.select(pl.coalesce(pl.lit(exact).cast(pl.String), text)).to_series()
    return pl.select(iso_seconds(text, zone) if time == "iso" else formatted_seconds(text, time, zone)).to_series()
