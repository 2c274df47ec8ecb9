"""An atomic file of any size, block by block. Every line is judged alone, so one that is no row costs itself only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl

from dataset_tools.delimited import NO_BREAK, read_delimited
from dataset_tools.errors import DataToolError
from dataset_tools.problems import Problems
from dataset_tools.raw_files import Position, Request, Stream

_BROKEN_QUOTE = "quote that is not closed on its line or not doubled (RFC 4180, one row per line)"
_QUOTED = r'^"(?:[^"]|"")*"$'


def read_atomic_blocks(
    path: Path,
    names: Sequence[str],
    columns: Sequence[str],
    problems: Problems,
    file: int,
    *,
    block_bytes: int,
    advance: Callable[[int], object] | None = None,
) -> Iterator[pl.DataFrame]:
    """Those of the `columns` of an atomic file, whose header gives `names`, as text, with `_file` and `_line`.

    Lines that are no row are left out and recorded in `problems`: those of the wrong width (an empty line is one field,
    a line break inside a field cuts its row), not UTF-8 or wrongly quoted, and a last one without line break. `file`,
    `block_bytes` and `advance` are as in `blocks.read_blocks`.

    Raises `DataToolError` for a file that cannot be read and a row of more than 16 MiB.
    """
    try:
        with open(path, "rb") as raw:
            header = raw.readline()
            if not header.endswith(b"\n"):
                problems.add(NO_BREAK, file, 1)
                return
            raw.seek(0)
            request = Request(path, columns, (), problems, file, Position(len(header), 2), block_bytes)
            # No field holds a tab or a line break, so every tab separates and quotes are judged field by field.
            stream = Stream(path, raw, advance)
            for block in read_delimited(request, stream, separator="\t", quoted=False, header=names, blank_rows=True):
                yield _unquoted(block.frame, columns, problems)
    except OSError as error:
        raise DataToolError(f"cannot read {path}: {error.strerror or error}") from error


def _unquoted(rows: pl.DataFrame, columns: Sequence[str], problems: Problems) -> pl.DataFrame:
    """The rows whose quotes are sound, without them."""
    for name in columns:
        value = pl.col(name)
        is_quoted = value.str.contains('"', literal=True)  # a field that holds one has to be
        if not rows.select(is_quoted.any()).item():
            continue
        is_bad = is_quoted & ~value.str.contains(_QUOTED)
        problems.add_rows(_BROKEN_QUOTE, rows.filter(is_bad), [name])
        inner = value.str.head(-1).str.tail(-1).str.replace_all('""', '"', literal=True)
        rows = rows.filter(~is_bad).with_columns(pl.when(is_quoted).then(inner).otherwise(value).alias(name))
    return rows
