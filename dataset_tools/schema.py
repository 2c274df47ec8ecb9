"""The atomic-file contract in one place: which files a data set has, their fields and types, and how they are read.

An atomic file is UTF-8, tab-separated, quoted as RFC 4180 says; its first line holds `field:type` per column. Texts and
ids are normalised (see `dataset_tools.text`), so no field holds a tab or a line break and ONE LINE IS ONE ROW: line
numbers in messages are exact, and a file cut in mid-line is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dataset_tools.errors import DataToolError

RECBOLE_TYPES = ("token", "token_seq", "float", "float_seq")
TIME_RANGE = (631_152_000.0, 4_102_444_800.0)  # 1990-01-01 ≤ t < 2100-01-01, Unix seconds
_ROW = re.compile(r'(?:[^"\t]*|"(?:[^"]|"")*")(?:\t(?:[^"\t]*|"(?:[^"]|"")*"))*')


@dataclass(frozen=True)
class Field:
    """One column: its RecBole type, whether the file must have it, and what the converter checks about it."""

    type: str
    required: bool = False
    time: bool = False  # Unix seconds within TIME_RANGE
    refers_to: str | None = None  # suffix of the file whose key it must occur in


@dataclass(frozen=True)
class AtomicFile:
    """One kind of file: its known fields in the order they are written, and the field that identifies a row, if any."""

    fields: Mapping[str, Field]
    required: bool
    key: str | None = None


_COUNT = Field("float")
ATOMIC_FILES: Mapping[str, AtomicFile] = {
    "inter": AtomicFile(
        {
            "user_id": Field("token", required=True, refers_to="user"),
            "item_id": Field("token", required=True, refers_to="item"),
            "timestamp": Field("float", required=True, time=True),
            **dict.fromkeys(("like", "collect", "share", "follow", "comment", "play_time", "duration"), _COUNT),
        },
        required=True,
    ),
    "item": AtomicFile(
        {
            "item_id": Field("token", required=True),
            "title": Field("token_seq", required=True),
            "tags": Field("token_seq"),
            "author_id": Field("token"),
            "category": Field("token"),
            "duration": _COUNT,
            "upload_time": Field("float", time=True),
        },
        required=True,
        key="item_id",
    ),
    "user": AtomicFile({"user_id": Field("token", required=True)}, required=False, key="user_id"),
    "cinter": AtomicFile(
        {
            "user_id": Field("token", required=True, refers_to="user"),
            "comment_id": Field("token", required=True, refers_to="comment"),
            "item_id": Field("token", required=True, refers_to="item"),
            "timestamp": Field("float", required=True, time=True),
            "like": _COUNT,
            "reply": _COUNT,
        },
        required=True,
    ),
    "comment": AtomicFile(
        {
            "comment_id": Field("token", required=True),
            "item_id": Field("token", required=True, refers_to="item"),
            "content": Field("token_seq", required=True),
            "user_id": Field("token"),
            "parent_id": Field("token", refers_to="comment"),
            "like_count": _COUNT,
            "reply_count": _COUNT,
            "timestamp": Field("float", time=True),
        },
        required=True,
        key="comment_id",
    ),
}
SUFFIXES = tuple(ATOMIC_FILES)


def field_type(suffix: str, name: str, dtype: pl.DataType) -> str:
    """The RecBole type of a column: the contract's for a known field, else numbers are `float`, lists `…_seq`."""
    known = ATOMIC_FILES[suffix].fields.get(name)
    if known is not None:
        return known.type
    if isinstance(dtype, pl.List):
        return "float_seq" if dtype.inner.is_numeric() else "token_seq"
    return "float" if dtype.is_numeric() or dtype == pl.Boolean else "token"


def is_usable_name(name: str) -> bool:
    """Whether a column that the contract does not know may have this name: it stands in a header as it is."""
    return re.fullmatch(r"(?!_)[^:\"\s\x00-\x1f\x7f-\x9f]+( [^:\"\s\x00-\x1f\x7f-\x9f]+)*", name) is not None


def read_header(path: Path) -> dict[str, str]:
    """The columns of an atomic file, `{name: RecBole type}` in file order; `DataToolError` if line 1 is no header."""
    try:
        with open(path, "rb") as handle:
            line = handle.readline().decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise DataToolError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataToolError(f"{path}, line 1: not UTF-8 ({error.reason})") from error
    if not line:
        raise DataToolError(f"{path} is empty; an atomic file starts with a line of `field:type` columns")
    header: dict[str, str] = {}
    for column in line.split("\t"):
        name, _, kind = column.partition(":")
        if not name or kind not in RECBOLE_TYPES or name in header:
            raise DataToolError(
                f"{path}, line 1: column {column!r} must be a new `field:type`, type one of {', '.join(RECBOLE_TYPES)}"
            )
        header[name] = kind
    return header


def read_atomic(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read an atomic file; columns are named without their type, in file order or in the order of `columns`.

    `token`, `token_seq` and `float_seq` become String and are never null (`NA` and `null` stay text, an empty field is
    ""); `float` becomes Float64, null where empty. Row `i` stands on line `i + 2`. Raises `DataToolError` naming file
    and line for a bad header, a row of the wrong width, bad quoting, bytes that are not UTF-8, a number that is none.
    """
    path = Path(path)
    header = read_header(path)
    frame = read_fields(path, list(header) if columns is None else columns)
    numbers = frame.select(parse_float(name) for name in frame.columns if header[name] == "float")
    for name in numbers.columns:
        bad = (frame[name] != "") & numbers[name].is_null()
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise DataToolError(
                f"{path}, line {row + 2}: {name} is {frame[name][row]!r}, expected a finite number"
                f" ({int(bad.sum()):,} such values)"
            )
    return frame.with_columns(numbers)


def parse_float(name: str) -> pl.Expr:
    """A text column as Float64: null where it is no finite number."""
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number).alias(name)


def read_fields(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """As `read_atomic`, with every column as the text that stands in the file."""
    path = Path(path)
    header = read_header(path)
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataToolError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}")
    wanted = [f"{name}:{header[name]}" for name in columns]
    try:
        frame = pl.read_csv(
            path, columns=wanted, separator="\t", infer_schema=False, empty_string_is_null=False, glob=False
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        _explain_bad_row(path, len(header))
        raise DataToolError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    lines, tabs = _count_lines(path)
    # Polars fills short rows silently and drops surplus fields it was not asked for; the totals give both away.
    if lines != frame.height + 1 or tabs != lines * (len(header) - 1):
        _explain_bad_row(path, len(header))
    return frame.select(wanted).rename(dict(zip(wanted, columns, strict=True)))


def _count_lines(path: Path) -> tuple[int, int]:
    """Lines (a last one without line break counts) and tabs of a file."""
    lines = tabs = 0
    last = b"\n"
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            values = np.frombuffer(block, np.uint8)
            lines += int(np.count_nonzero(values == ord("\n")))
            tabs += int(np.count_nonzero(values == ord("\t")))
            last = block[-1:]
    return lines + (last != b"\n"), tabs


def _explain_bad_row(path: Path, width: int) -> None:
    """Find the first line that is not one row of `width` fields and raise; runs only when something is wrong."""
    with open(path, "rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataToolError(
                    f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})"
                ) from error
            if not _ROW.fullmatch(line):
                raise DataToolError(
                    f"{path}, line {number}: a quote is not closed or not doubled (RFC 4180, one row per line)"
                )
            fields = line.count("\t") + 1
            if fields != width:
                raise DataToolError(
                    f"{path}, line {number}: {fields} fields, the header has {width}; is the file cut short?"
                )
