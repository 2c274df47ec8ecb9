"""Any CSV, TSV, JSON-lines or Parquet file as a table that knows the line of every row."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl

from dataset_tools.errors import DataToolError
from dataset_tools.json_files import read_documents
from dataset_tools.problems import Problems
from dataset_tools.text import replace_surrogates

FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}
FORMATS |= dict.fromkeys((".json", ".jsonl", ".ndjson"), "jsonl")
SEPARATORS = (",", "\t", ";", "|")
_ABSENT = object()  # a key that a JSON object does not have, unlike one that is null


def read_table(
    path: Path,
    columns: Sequence[str],
    problems: Problems,
    *,
    separator: str | None = None,
    quoted: bool = True,
    header: Sequence[str] | None = None,
) -> pl.DataFrame:
    """The `columns` of a raw file with `_file` and `_line`; text everywhere but in Parquet, which keeps its types.

    The format goes by the name's ending (`.gz` after it is fine for CSV and JSON lines). `separator` is found in the
    first line when not given, `quoted=False` takes quotes as text, `header` names the columns of a file that does not.
    Raises `DataToolError` for a missing file or column, and naming the line for a row of the wrong width or not UTF-8.
    """
    if not path.is_file():
        raise DataToolError(f"{path} does not exist")
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    kind = FORMATS.get(endings[-1] if endings else "")
    if kind is None:
        raise DataToolError(
            f"{path}: unknown ending; use one of {' '.join(FORMATS)} (CSV and JSON lines also with .gz)"
        )
    if kind == "jsonl":
        return _read_json_lines(path, columns, problems)
    file = problems.open_file(str(path), "row" if kind == "parquet" else "line")
    try:
        if kind == "csv":
            frame = _read_csv(path, columns, separator, quoted, header)
        else:
            _demand(path, columns, list(pl.read_parquet_schema(path)))
            frame = pl.read_parquet(path, columns=list(columns), glob=False)
            frame = frame.with_columns(_line=pl.int_range(1, pl.len() + 1))
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise DataToolError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    return frame.select(*columns, pl.col("_line").cast(pl.UInt32), _file=pl.lit(file, pl.UInt32))


def _demand(path: Path, columns: Sequence[str], known: Sequence[str]) -> None:
    missing = [name for name in columns if name not in known]
    if missing:
        raise DataToolError(f"{path} has no column {', '.join(missing)}; it has {', '.join(known)}")


def _read_csv(
    path: Path, columns: Sequence[str], separator: str | None, quoted: bool, header: Sequence[str] | None
) -> pl.DataFrame:
    with _open(path) as handle:
        first = handle.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if not first:
        raise DataToolError(f"{path} is empty" if path.stat().st_size == 0 else f"{path}, line 1 is empty")
    separator = separator or max(SEPARATORS, key=first.count)
    names = list(header) if header else next(csv.reader([first], delimiter=separator))
    _demand(path, columns, names)
    separators, quotes = _count(path, separator)
    multiline = quoted and quotes > 0
    try:
        frame = pl.read_csv(
            path,
            columns=None if multiline else [names.index(name) for name in columns],
            has_header=header is None,
            separator=separator,
            quote_char='"' if quoted else None,
            schema=dict.fromkeys(names, pl.String),
            empty_string_is_null=False,
            glob=False,
        )
    except pl.exceptions.PolarsError:
        _examine(path, separator, quoted, len(names))
        raise
    first_line = 1 if header else 2
    line = pl.int_range(first_line, pl.len() + first_line)
    inside = 0
    if multiline:
        texts = pl.col(names).str
        inside = int(frame.select(pl.sum_horizontal(texts.count_matches(separator, literal=True))).sum().item())
        breaks = pl.sum_horizontal(texts.count_matches("\n", literal=True))
        line = line + breaks.cum_sum() - breaks
    frame = frame.with_columns(_line=line)
    # Polars fills short rows silently; the total of separators gives them away.
    if separators != (frame.height + first_line - 1) * (len(names) - 1) + inside:
        blank = _examine(path, separator, quoted, len(names))
        frame = frame.filter(~pl.col("_line").is_in(blank))
    return frame


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb"))


def _count(path: Path, separator: str) -> tuple[int, int]:
    """Separators and quotes in a file."""
    separators = quotes = 0
    with _open(path) as handle:
        while block := handle.read(1 << 24):
            separators += block.count(separator.encode())
            quotes += block.count(b'"')
    return separators, quotes


def _examine(path: Path, separator: str, quoted: bool, width: int) -> list[int]:
    """The numbers of blank lines; raises for the first row that has not `width` fields. Slow, for odd files only."""
    blank = []
    with _open(path) as handle:
        lines, quoting = _decoded(path, handle), csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)  # type: ignore[arg-type]
        before = 0
        try:
            for row in reader:
                if not row:
                    blank.append(reader.line_num)
                elif len(row) != width:
                    raise DataToolError(
                        f"{path}, line {before + 1}: {len(row)} fields, {width} expected; is the file cut short?"
                    )
                before = reader.line_num
        except csv.Error as error:
            raise DataToolError(f"{path}, line {before + 1}: {error}; is a quote not closed or not doubled?") from error
    return blank


def _decoded(path: Path, handle: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(handle, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataToolError(f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from error


def _read_json_lines(path: Path, columns: Sequence[str], problems: Problems) -> pl.DataFrame:
    """Values as text, `true` as 1, lists of texts as lists; `a.b` looks into objects; what is missing is null."""
    rows: list[tuple[Any, ...]] = []
    seen: set[str] = set()
    for value, file, line in read_documents([path], problems):
        if not isinstance(value, dict):
            problems.add("JSON that is not an object", file, line)
            continue
        found = [_look_up(value, name.split(".")) for name in columns]
        seen.update(name for name, part in zip(columns, found, strict=True) if part is not _ABSENT)
        rows.append((*(_plain(part) for part in found), line, file))
    _demand(path, columns, sorted(seen) if rows else columns)
    return _frame(rows, columns)


def _frame(rows: list[tuple[Any, ...]], columns: Sequence[str]) -> pl.DataFrame:
    values = list(zip(*rows, strict=True)) or [()] * (len(columns) + 2)
    series = []
    for name, column in zip(columns, values, strict=False):
        listed = any(isinstance(value, list) for value in column)
        texts = (
            [value if value is None or isinstance(value, list) else [value] for value in column] if listed else column
        )
        series.append(pl.Series(name, texts, dtype=pl.List(pl.String) if listed else pl.String))
    places = [pl.Series("_line", values[-2], dtype=pl.UInt32), pl.Series("_file", values[-1], dtype=pl.UInt32)]
    return pl.DataFrame([*series, *places])


def _look_up(value: Any, path: list[str]) -> Any:
    for name in path:
        value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
    return value


def _plain(value: Any) -> Any:
    if value is _ABSENT:
        return None
    if isinstance(value, list):
        return [_plain(part) for part in value if part is not None]
    if value is None or isinstance(value, str):
        return value if value is None else replace_surrogates(value)
    return str(int(value)) if isinstance(value, bool) else json.dumps(value)
