"""Any CSV, TSV, JSON-lines or Parquet file in bounded memory: block by block, with the line of every row or value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from dataset_tools.delimited import read_delimited
from dataset_tools.dialect import open_table
from dataset_tools.errors import DataToolError
from dataset_tools.json_blocks import read_json_blocks
from dataset_tools.json_values import Values, read_json_values
from dataset_tools.problems import Problems
from dataset_tools.raw_files import PACKED, Block, Choice, Position, Request, Stream

__all__ = ["FORMATS", "Block", "Choice", "Position", "Values", "columns_of", "read_blocks", "read_values"]

FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}
FORMATS |= dict.fromkeys((".json", ".jsonl", ".ndjson"), "jsonl")
Part = TypeVar("Part")
# What Polars raises for a Parquet file that is none or damaged; it panics at some damages.
_DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError)
_FIRST_ROWS = 1 << 12  # of a Parquet file, to learn how large its rows are


def columns_of(
    path: Path, *, separator: str | None = None, quoted: bool = True, header: Sequence[str] | None = None
) -> list[str] | None:
    """The columns of a CSV or Parquet file in its order, None for JSON lines; raises as `read_blocks`."""
    kind = _kind(path)
    if kind == "jsonl":
        return None
    try:
        if kind == "parquet":
            return list(_scan(path).collect_schema().names())
        with open(path, "rb") as raw:
            return list(open_table(path, Stream(path, raw), separator, quoted, header)[0].names)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def read_blocks(
    path: Path,
    columns: Sequence[str],
    problems: Problems,
    *,
    file: int | None = None,
    separator: str | None = None,
    quoted: bool = True,
    header: Sequence[str] | None = None,
    start: Position = Position(),  # noqa: B008
    block_bytes: int = 16 << 20,
    advance: Callable[[int], object] | None = None,
    optional: Collection[str] = (),
    choice: Choice | None = None,
) -> Iterator[Block]:
    """The `columns` of a raw file with `_file` and `_line`; text everywhere but in Parquet, which keeps its types (but
    bytes and categories become text).

    The format goes by the name's ending; text formats may be packed (`.gz`, `.zst`). `separator` is found in the first
    line when not given, `quoted=False` takes quotes as text, `header` names the columns of a file that does not.
    `file` is the file's index in `problems` if it has one. Reading begins at `start`, the `position` of a block of an
    earlier run: rows and lines are those that run would have given next. A block is of `block_bytes`, unpacked; some
    ten times as much memory is used. `advance` is told the bytes of the file, as packed, that were read. Of the
    `optional` columns, those that a CSV or Parquet file lacks are left out; in JSON lines they are null. Rows that a
    `choice`, by some of the `columns`, does not accept are counted and left out; a block may then have no row.

    An empty CSV field is "", a missing JSON value null. In JSON lines a column is a list of texts in those blocks where
    any of its values is a list. Rows that cannot be read are left out and recorded in `problems`: those of the wrong
    width, not UTF-8 or wrongly quoted, a last line without line break (in JSON lines: any line that is no JSON), and
    what follows a damage in a packed stream.

    Raises `DataToolError` for a file or column that is missing (in JSON lines: in every line; raised at the end), an
    empty file, a bad header, and a row of more than 16 MiB or a JSON document of more than 512 MiB, naming the line.
    """
    kind = _kind(path)
    reserved = [name for name in columns if name in ("_file", "_line")]
    if reserved:
        raise DataToolError(f"{path}: the column name {reserved[0]} is taken; rename it in the raw file")
    if file is None:
        file = problems.open_file(str(path), "row" if kind == "parquet" else "line")
    request = Request(path, list(dict.fromkeys(columns)), optional, problems, file, start, block_bytes, choice)
    if kind == "parquet":
        return _read_parquet(request, advance)
    if kind == "jsonl":
        return _read_text(path, advance, lambda stream: read_json_blocks(request, stream))
    return _read_text(
        path,
        advance,
        lambda stream: read_delimited(request, stream, separator=separator, quoted=quoted, header=header),
    )


def read_values(
    path: Path,
    problems: Problems,
    *,
    file: int | None = None,
    start: Position = Position(),  # noqa: B008
    block_bytes: int = 8 << 20,
    advance: Callable[[int], object] | None = None,
) -> Iterator[Values]:
    """The values of a JSON file, plain or packed, whatever its name; all else as for JSON lines in `read_blocks`.

    A list, be it of a line or the whole document, counts as its elements.
    """
    if file is None:
        file = problems.open_file(str(path))
    request = Request(path, (), (), problems, file, start, block_bytes)
    return _read_text(path, advance, lambda stream: read_json_values(request, stream))


def _read_text(
    path: Path, advance: Callable[[int], object] | None, read: Callable[[Stream], Iterator[Part]]
) -> Iterator[Part]:
    try:
        with open(path, "rb") as raw:
            yield from read(Stream(path, raw, advance))
    except OSError as error:
        raise _unreadable(path, error) from error


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _read_parquet(request: Request, advance: Callable[[int], object] | None) -> Iterator[Block]:
    path, block_bytes = request.path, request.block_bytes
    try:
        rows = _scan(path)
        wanted = request.demand(rows.collect_schema().names())
        total = int(rows.select(pl.len()).collect().item())
        size, told = path.stat().st_size, 0
        at, step = request.start.offset, max(1, min(_FIRST_ROWS, block_bytes >> 6))
        while at < total:
            until = min(at + step, total)
            frame = rows.select(wanted).slice(at, until - at).collect()
            if wanted and frame.height != until - at:
                raise DataToolError(f"cannot read {path}: it has fewer rows than its end says; is it damaged?")
            places = np.arange(at + 1, until + 1)
            step = max(1, min(step * 8, block_bytes * (until - at) // max(1, int(frame.estimated_size()))))
            at = until
            if advance is not None:
                advance(size * at // total - told)
                told = size * at // total
            frame = _as_text(request.with_places(frame, places), request)
            frame, left_out = request.choose(frame)
            if frame.height or left_out:
                yield Block(frame, Position(at, at + 1), left_out)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _as_text(frame: pl.DataFrame, request: Request) -> pl.DataFrame:
    """Bytes, which some programs write for texts, and categories as text; without the rows where bytes are none."""
    categories = [name for name, dtype in frame.schema.items() if dtype in (pl.Categorical, pl.Enum)]
    frame = frame.with_columns(pl.col(name).cast(pl.String) for name in categories)
    for name in [name for name, dtype in frame.schema.items() if dtype == pl.Binary]:
        try:
            frame = frame.with_columns(pl.col(name).cast(pl.String))
        except pl.exceptions.ComputeError:
            bad = pl.Series([not _is_text(value) for value in frame[name]], dtype=pl.Boolean)
            request.problems.add_rows("bytes that are not UTF-8", frame.filter(bad), [name])
            frame = frame.filter(~bad).with_columns(pl.col(name).cast(pl.String))
    return frame


def _is_text(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _kind(path: Path) -> str:
    if not path.is_file():
        raise DataToolError(f"{path} does not exist")
    endings = [ending for ending in path.suffixes if ending not in PACKED]
    kind = FORMATS.get(endings[-1] if endings else "")
    if kind is None:
        raise DataToolError(
            f"{path}: unknown ending; use one of {' '.join(FORMATS)} (text also packed, with {' '.join(PACKED)})"
        )
    return kind


def _unreadable(path: Path, error: BaseException) -> DataToolError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = next(iter(reason.splitlines()), type(error).__name__)
    return DataToolError(f"cannot read {path}: {first}")
