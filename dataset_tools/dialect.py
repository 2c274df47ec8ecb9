"""How a CSV file is written: its header and separator, and a csv reader whose lines end at line feeds only."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_tools.errors import DataToolError
from dataset_tools.raw_files import BOM, Position, Stream

if TYPE_CHECKING:
    import _csv

SEPARATORS = (",", "\t", ";", "|")
RECORD_LIMIT = 16 << 20  # bytes
_LONE_CR = re.compile(r"\r(?!\n)")


@dataclass(frozen=True)
class Dialect:
    """How a file is written, and the names of its columns."""

    separator: str
    quoted: bool
    names: Sequence[str]
    first_data: Position  # after the header

    def reader(self, lines: Iterator[str], *, strict: bool = True) -> _csv.Reader:
        """A csv reader that takes fields of any size."""
        return _reader(lines, self.separator, self.quoted, strict)


def open_table(
    path: Path, stream: Stream, separator: str | None, quoted: bool, header: Sequence[str] | None
) -> tuple[Dialect, bool]:
    """How the file is written, and whether its header ends in a line break; `stream` then stands after the header.

    Raises `DataToolError` for a file that is empty, or damaged before its first line ends; for an empty first line, one
    of more than `RECORD_LIMIT` bytes or with an open quote; for names that occur twice; and for a separator that is not
    one ASCII character.
    """
    head, offset, end, step = b"", 0, -1, 1 << 16
    while end < 0:
        more = stream.read(max(step, len(head)))
        head += more
        if head.startswith(BOM):
            offset = len(BOM)
        end = _header_end(head, offset, quoted and header is None, separator)
        if not more:
            break
        if end < 0 and len(head) > RECORD_LIMIT:
            raise DataToolError(f"{path}: line 1 has no end, or its quotes have none, within {RECORD_LIMIT:,} bytes")
    if end < 0 and stream.damage:
        raise DataToolError(f"cannot read {path}: {': '.join(stream.damage)}")
    complete, end = end >= 0, len(head) if end < 0 else end
    text = head[offset:end].decode(errors="replace").rstrip("\r\n")
    first = text.split("\n", 1)[0].rstrip("\r")
    if not first:
        raise DataToolError(f"{path}, line 1 is empty" if head else f"{path} is empty")
    separator = _separator(path, separator, first)
    names = list(header or _names(text, separator))
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise DataToolError(f"{path}: the header names {', '.join(twice)} more than once; rename all but one")
    if header:
        end, complete = offset, True
    elif not complete and quoted and is_open(text, separator):
        raise DataToolError(f"{path}, line 1: a quote is opened that is never closed")
    stream.unread(head[end:])
    return Dialect(separator, quoted, names, Position(end, 1 + head[:end].count(b"\n"))), complete


def _header_end(head: bytes, offset: int, quoted: bool, separator: str | None) -> int:
    """Where the first record ends, -1 if not in `head`."""
    end = head.find(b"\n", offset) + 1
    if not end or not quoted or b'"' not in head[offset:end]:
        return end or -1
    first = head[offset:end].decode(errors="replace")
    lines = Lines(head[offset : head.rfind(b"\n") + 1].decode(errors="replace"))
    reader = _reader(lines, separator or _sniff(first), True, strict=True)
    try:
        next(reader, None)
    except csv.Error:
        if lines.exhausted:
            return -1
    for _ in range(reader.line_num - 1):
        end = head.find(b"\n", end) + 1
    return end


def _separator(path: Path, separator: str | None, first: str) -> str:
    if separator is not None and (len(separator.encode()) != 1 or separator in '\r\n"'):
        raise DataToolError(f"{path}: the separator is {separator!r}; give one ASCII character, no quote or line break")
    return separator or _sniff(first)


def _sniff(first: str) -> str:
    return max(SEPARATORS, key=first.count)


def _names(text: str, separator: str) -> list[str]:
    row = next(_reader(iter([text.replace("\r", " ")]), separator, True, strict=False))
    return [name.strip() for name in row]


def _reader(lines: Iterator[str], separator: str, quoted: bool, strict: bool) -> _csv.Reader:
    csv.field_size_limit(max(csv.field_size_limit(), 2 * RECORD_LIMIT))
    if quoted:
        return csv.reader(lines, delimiter=separator, strict=strict)
    return csv.reader(lines, delimiter=separator, strict=strict, quoting=csv.QUOTE_NONE)


def is_open(text: str, separator: str) -> bool:
    """Whether a record that begins so ends inside quotes."""
    lines = Lines(text)
    try:
        next(_reader(lines, separator, True, strict=True), None)
    except csv.Error:
        return lines.exhausted
    return False


class Lines:
    """The lines of a text, cut at line feeds only; the csv module, which has its own idea of a lone carriage return,
    sees `stand_in` for it. `exhausted` once a line was asked for that is not there."""

    def __init__(self, text: str) -> None:
        self.stand_in = ""
        if "\r" in text and _LONE_CR.search(text):
            self.stand_in = next(char for char in map(chr, range(0xE000, 0x110000)) if char not in text)
            text = _LONE_CR.sub(self.stand_in, text)
        self._lines = io.StringIO(text, newline="\n")
        self.exhausted = False

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._lines.readline()
        if not line:
            self.exhausted = True
            raise StopIteration
        return line
