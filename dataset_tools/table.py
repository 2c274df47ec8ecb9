"""Any CSV, TSV, JSON-lines or Parquet set, by a YAML mapping of its columns to the atomic fields.

The mapping has one section per atomic file: `inter` and `item`, and if there are any `cinter`, `comment`, `user`.

  inter:
    file: logs/video.csv          # under RAW; .csv .tsv .txt .jsonl .json .parquet, the text formats also with .gz
                                  # or .zst; several: a list, or a pattern such as logs/2024-*.csv.gz (sorted by name)
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
Polars knows them, over one row at a time. In text formats a column whose every value is a number is one in expressions
(the files are read once more to know), and what is empty is NULL. Ids stay text: a column with zeros before a whole
number (`007`), with one of 2^63 or more, or with one of 2^53 or more among numbers that are not whole; CAST(column AS
DOUBLE) makes numbers of it. In JSON true and false are 1 and 0, elsewhere texts. Fields that the contract does not know
may be added: a `column` becomes a token, an `expr` that is a number becomes a float.
"""

from __future__ import annotations

import argparse
import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from dataset_tools.blocks import FORMATS, Block, read_blocks
from dataset_tools.convert import Conversion, add_options, conversion, machine_of, options_of
from dataset_tools.errors import DataToolError
from dataset_tools.expressions import RowExpression
from dataset_tools.problems import Problems
from dataset_tools.reading import Reading
from dataset_tools.schema import ATOMIC_FILES, field_type, is_usable_name
from dataset_tools.text import as_number
from dataset_tools.times import UNITS, check_format, epoch_seconds, formatted_seconds, iso_seconds, to_seconds

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
    mapping = load_mapping(args.mapping)
    files = {suffix: files_of(args.raw, section, f"{args.mapping}: {suffix}") for suffix, section in mapping.items()}
    every = [path for paths in files.values() for path in paths]
    with conversion(
        args.out,
        source="table",
        files=every,
        options=options_of(args),
        source_options={"mapping": {suffix: vars(section) for suffix, section in mapping.items()}},
        machine=machine_of(args),
        overwrite=args.overwrite,
    ) as work:
        with Reading(work.stage, every) as reading:
            for suffix, section in mapping.items():
                source = _Source(suffix, section, files[suffix], work)
                for path in files[suffix]:
                    key = f"{suffix}|{path}"
                    reading.take(path, source.needed, source.rows, key=key, may_be_empty=True, **section.layout)
        work.finish()
    return 0


@dataclass(frozen=True)
class Section:
    """How one atomic file is made; `columns` maps its fields to {origin: …, time: …}."""

    file: str | list[str]
    columns: Mapping[str, Mapping[str, Any]]
    separator: str | None = None
    quoted: bool = True
    header: list[str] | None = None
    where: str | None = None

    @property
    def layout(self) -> dict[str, Any]:
        """How its files are laid out, for `read_blocks`."""
        return {"separator": self.separator, "quoted": self.quoted, "header": self.header}


def files_of(raw: Path, section: Section, place: str) -> list[Path]:
    """The files of a section, those of a pattern by name; `DataToolError` for one that is not there."""
    found: list[Path] = []
    for name in [section.file] if isinstance(section.file, str) else section.file:
        paths = [raw / name] if (raw / name).is_file() or not set(name) & set("*?[") else _matching(raw, name, place)
        if not paths or not all(path.is_file() for path in paths):
            raise DataToolError(f"{place}: {raw / name} does not exist; give a file below {raw}, a list, or a pattern")
        found += paths
    twice = sorted({str(path) for path in found if found.count(path) > 1})
    if twice:
        raise DataToolError(f"{place}: {', '.join(twice)} is named more than once")
    return found


def _matching(raw: Path, pattern: str, place: str) -> list[Path]:
    try:
        return sorted(raw / name for name in glob.glob(pattern, root_dir=raw, recursive=True))
    except ValueError as error:  # a NUL in it
        raise DataToolError(f"{place}: {pattern!r} is no pattern for files: {error}") from error


def load_mapping(path: Path) -> dict[str, Section]:
    """Read and validate a mapping file; `DataToolError` says which key is wrong and what is accepted."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataToolError(f"cannot read the mapping {path}: {error}") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:  # 2023-13-45
        raise DataToolError(f"the mapping {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict) or not {"inter", "item"} <= set(raw):
        raise DataToolError(f"the mapping {path} needs the sections inter and item")
    _only(raw, tuple(ATOMIC_FILES), f"{path}: section")
    return {suffix: _section(suffix, section, f"{path}: {suffix}") for suffix, section in raw.items()}


def _section(suffix: str, raw: Any, place: str) -> Section:
    if not isinstance(raw, dict) or not isinstance(raw.get("columns"), dict) or not _is_file(raw.get("file")):
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
    odd = [repr(name) for name in columns if not is_usable_name(name)]
    if odd:
        raise DataToolError(f"{place}: {', '.join(odd)} cannot be a field; give letters, digits and _, a letter first")
    fields = ATOMIC_FILES[suffix].fields
    odd = [
        name
        for name, spec in columns.items()
        if "split" in spec and name in fields and fields[name].type != "token_seq"
    ]
    odd += [name for name, spec in columns.items() if "split" in spec and {"time", "prefix"} & set(spec)]
    if odd:
        raise DataToolError(f"{place}: {', '.join(odd)} is one value; split makes a list")
    known = {name.lower(): name for name in (*columns, *required)}
    twice = [name for name in columns if known[name.lower()] != name]
    if twice:
        raise DataToolError(f"{place}: {', '.join(twice)} differs from another field in upper and lower case only")
    return Section(**{**raw, "columns": columns})


def _is_file(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
    )


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


class _Source:
    """One section: blocks of its files as rows of an atomic file."""

    def __init__(self, suffix: str, section: Section, files: Sequence[Path], work: Conversion) -> None:
        self.suffix, self.section, self.work = suffix, section, work
        specs = section.columns
        computed = {name: str(spec["expr"]) for name, spec in specs.items() if "expr" in spec}
        self.expressions = {name: RowExpression(text, f"{suffix}: {name}") for name, text in computed.items()}
        self.where = None if section.where is None else RowExpression(section.where, f"{suffix}: where")
        every = [*self.expressions.values(), *([] if self.where is None else [self.where])]
        raw = [name for one in every for name in one.columns]
        columns = [str(spec["column"]) for spec in specs.values() if "column" in spec]
        self.needed = list(dict.fromkeys([*columns, *raw]))
        # What a column is must not depend on the block: it is looked up in all of them first.
        other = [str(spec["column"]) for name, spec in specs.items() if "column" in spec and self._is_ours(name)]
        is_json = any(_format(path) == "jsonl" for path in files)
        self.texts, self.integers, self.lists = self._look(files, list(dict.fromkeys(raw)), other if is_json else [])

    def _is_ours(self, name: str) -> bool:
        return name not in ATOMIC_FILES[self.suffix].fields

    def _look(
        self, files: Sequence[Path], computed: list[str], other: list[str]
    ) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """The columns of `computed` that hold a text that is no number, or would be another text as one; those with
        whole numbers alone that floats do not hold; and those of `other` that hold a list."""
        kinds: dict[str, set[str]] = {name: set() for name in computed}
        lists: set[str] = set()
        for path in files:
            wanted = [name for name in dict.fromkeys((*computed, *other))]
            if not wanted or (_format(path) == "parquet"):
                continue
            for block in read_blocks(path, wanted, Problems(), **self.section.layout):
                for name in wanted:
                    column = block.frame[name]
                    if isinstance(column.dtype, pl.List):
                        lists.add(name)
                    elif name in kinds and "text" not in kinds[name]:
                        kinds[name] |= _kinds(column)
        texts = {name for name, found in kinds.items() if "text" in found or {"big", "fraction"} <= found}
        integers = {name for name, found in kinds.items() if "big" in found} - texts
        return frozenset(texts), frozenset(integers), frozenset(lists)

    def rows(self, read: Block) -> dict[str, pl.DataFrame]:
        """The rows of a block that `where` accepts."""
        block = read.frame
        typed = block.with_columns(self._typed(block[name]) for name in block.columns if not name.startswith("_"))
        computed = {name: one.values(typed) for name, one in self.expressions.items()}
        everything = pl.Series([True]).new_from_index(0, block.height)
        keep = everything if self.where is None else self.where.accepts(typed)
        notes, counted = self.work.notes, f"rows_of_{self.suffix}_read"
        before = notes.get(counted, 0)
        columns, several = [], pl.Series([False]).new_from_index(0, block.height)
        for name, spec in self.section.columns.items():
            column = (computed[name] if name in computed else _value(block, spec, before)).alias(name)
            _demand_plain(column, self.suffix)
            is_list = isinstance(column.dtype, pl.List)
            if not self._takes_lists(name, spec) and is_list:
                bad = keep & ~several & (column.list.len() > 1).fill_null(False)
                what = f"list where one value is expected in .{self.suffix}"
                self.work.problems.add_rows(what, block.with_columns(column).filter(bad), [name])
                column, several = column.list.first(), several | bad
            elif (
                spec.get("column") in self.lists
                and self._is_ours(name)
                and self._takes_lists(name, spec)
                and not is_list
            ):
                column = pl.select(pl.concat_list(pl.lit(column))).to_series()
            columns.append(_finish(column.alias(name), spec, self.suffix).alias(name))
        table = block.select("_file", "_line").with_columns(columns)
        kept = table.filter(keep & ~several)
        notes[counted] = before + table.height
        if self.where is not None:
            left_out = f"rows_of_{self.suffix}_not_positive"
            notes[left_out] = notes.get(left_out, 0) + table.height - int(keep.sum())
        return {self.suffix: kept}

    def _takes_lists(self, name: str, spec: Mapping[str, Any]) -> bool:
        """Whether a field may be a list: of tags, of words, or one that the contract does not know."""
        known = ATOMIC_FILES[self.suffix].fields.get(name)
        return (known is None or known.type == "token_seq") and not {"time", "split", "prefix"} & set(spec)

    def _typed(self, column: pl.Series) -> pl.Series:
        """A text column with empty text as null, and as numbers if every value of it is one."""
        if column.dtype != pl.String:
            return column
        if column.name in self.integers:
            return column.str.strip_chars().cast(pl.Int64, strict=False)
        return _blank(column) if column.name in self.texts else _number(column)


def _demand_plain(column: pl.Series, suffix: str) -> None:
    """Refuse what has no meaning in an atomic file: objects, lists of lists."""
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else column.dtype
    if inner.is_nested() or inner in (pl.Binary, pl.Object):
        raise DataToolError(
            f"{suffix}: {column.name} is of the type {column.dtype}; give a text, a number, a time, or a list of these"
        )


def _blank(column: pl.Series) -> pl.Series:
    return column.replace({"": None})


def _number(column: pl.Series) -> pl.Series:
    return pl.select(as_number(pl.lit(column))).to_series()


def _kinds(column: pl.Series) -> set[str]:
    """What is among the values: `text` (no number, or an id: a whole number with leading zeros, or too large for 64
    bits), `big` (a whole number that floats do not hold), `fraction` (a number that is not written as a whole one)."""
    numbers = _number(column)
    if numbers.null_count() > _blank(column).null_count():
        return {"text"}
    texts = column.cast(pl.String).str.strip_chars().filter(numbers.is_not_null())
    whole = texts.filter(texts.str.contains(r"^[+-]?[0-9]+$"))
    integers = whole.cast(pl.Int64, strict=False)
    if whole.str.contains(r"^[+-]?0[0-9]").any() or integers.null_count():
        return {"text"}
    found = {"fraction"} if len(whole) < len(texts) else set()
    return found | (set() if integers.is_between(-(2**53), 2**53, closed="none").all() else {"big"})


def _format(path: Path) -> str:
    return next((FORMATS[ending] for ending in reversed(path.suffixes) if ending in FORMATS), "")


def _value(frame: pl.DataFrame, spec: Mapping[str, Any], before: int) -> pl.Series:
    if "column" in spec:
        return frame[str(spec["column"])]
    if "row" in spec:
        number = pl.int_range(before + 1, before + pl.len() + 1)
        return frame.select(pl.format("{}{}", pl.lit(str(spec["row"])), number)).to_series()
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
    if kind == "token" and not isinstance(column.dtype, pl.List):
        column = _as_ids(column) if column.dtype.is_float() else column.cast(pl.String)
    if "prefix" in spec:
        text = column.cast(pl.String)
        column = pl.select(pl.when(text != "").then(str(spec["prefix"]) + text).otherwise(text)).to_series()
    return column


def _seconds(column: pl.Series, time: str, zone: str) -> pl.Series:
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return pl.select(to_seconds(pl.lit(column))).to_series()
    text = pl.lit(column.cast(pl.String))
    if time in UNITS:
        return pl.select(epoch_seconds(text, UNITS[time])).to_series()
    return pl.select(iso_seconds(text, zone) if time == "iso" else formatted_seconds(text, time, zone)).to_series()


def _as_ids(numbers: pl.Series) -> pl.Series:
    """Numbers as ids: 12.0 is "12"."""
    whole = pl.when(pl.lit(numbers) == pl.lit(numbers).round()).then(pl.lit(numbers).cast(pl.Int64, strict=False))
    return pl.select(pl.coalesce(whole.cast(pl.String), pl.lit(numbers).cast(pl.String))).to_series()
