"""JSON lines of any size, block by block, with the line of every value; or one JSON document, item by item."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl

from dataset_tools.errors import DataToolError
from dataset_tools.json_files import fault_of, is_json_lines, parse_json
from dataset_tools.raw_files import BOM, Block, Position, Request, Stream
from dataset_tools.text import replace_surrogates

DOCUMENT_LIMIT = 512 << 20  # bytes of a JSON document, or of a line
_ABSENT = object()  # a key that a JSON object does not have, unlike one that is null


def read_json_blocks(request: Request, stream: Stream) -> Iterator[Block]:
    """The blocks of a JSON file; see `blocks.read_blocks`."""
    head, lines = _head(stream)
    if not lines:
        request.add_damage(stream)
        if not stream.damage:
            request.problems.add("empty file", request.file, None)
        return
    table = _Table(request)
    if is_json_lines(lines):
        position = request.start if request.start.offset else Position(len(BOM) if head.startswith(BOM) else 0)
        stream.unread(head)
        stream.skip(position.offset)
        yield from _read_lines(stream, table, position)
    else:
        request.problems.units[request.file] = "item"
        stream.unread(head.removeprefix(BOM))
        yield from _read_document(stream, table)
    if table.given or request.start.offset:
        request.demand(sorted(table.seen))


def _head(stream: Stream) -> tuple[bytes, list[bytes]]:
    """The first bytes of a file with, if it has so many, its first two lines that are not blank."""
    head = b""
    while True:
        more = stream.read(max(1 << 16, len(head)))
        head += more
        lines = [line for line in head.removeprefix(BOM).split(b"\n")[: None if not more else -1] if line.strip()]
        if not more or len(lines) > 1 or len(head) > DOCUMENT_LIMIT:
            return head, lines[:2] or [line for line in [head] if line.strip()]


def _read_lines(stream: Stream, table: _Table, position: Position) -> Iterator[Block]:
    request, rest, ended = table.request, b"", False
    while not ended:
        more = stream.read(max(request.block_bytes, len(rest)))
        rest, ended = rest + more, not more
        end = rest.rfind(b"\n") + 1
        if ended and not stream.damage:
            end = len(rest)
        lines = rest[:end].removesuffix(b"\n").split(b"\n") if end else []
        longest = max((*map(len, lines), len(rest) - end))
        if longest > DOCUMENT_LIMIT:
            at = next((at for at, line in enumerate(lines) if len(line) > DOCUMENT_LIMIT), len(lines))
            place = f"{request.path}, line {position.line + at:,}"
            raise DataToolError(f"{place}: a line of more than {DOCUMENT_LIMIT:,} bytes")
        rest = rest[end:]
        frame = table.frame(_values(lines, position.line, table))
        position = Position(position.offset + end, position.line + len(lines), tuple(sorted(table.seen)))
        frame, left_out = request.choose(frame)
        if frame.height or left_out:
            yield Block(frame, position, left_out)
    request.add_damage(stream)


def _values(lines: Iterable[bytes], first: int, table: _Table) -> Iterator[tuple[Any, int]]:
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        value = parse_json(line)
        if isinstance(value, Exception):
            table.request.problems.add(*fault_of(value, table.request.file, number))
        elif isinstance(value, list):
            yield from ((part, number) for part in value)
        else:
            yield value, number


def _read_document(stream: Stream, table: _Table) -> Iterator[Block]:
    request = table.request
    content = stream.read(DOCUMENT_LIMIT + 1)
    if stream.damage:
        request.add_damage(stream)
        return
    if len(content) > DOCUMENT_LIMIT:
        raise DataToolError(
            f"{request.path} is one JSON document of more than {DOCUMENT_LIMIT:,} bytes; write one value per line"
        )
    value = parse_json(content)
    if isinstance(value, Exception):
        request.problems.add(*fault_of(value, request.file, None))
        return
    items = value if isinstance(value, list) else [value]
    step = max(1, request.block_bytes * len(items) // len(content))
    for at in range(request.start.offset, len(items), step):
        part = items[at : at + step]
        frame = table.frame(zip(part, range(at + 1, at + 1 + len(part)), strict=True))
        frame, left_out = request.choose(frame)
        if frame.height or left_out:
            yield Block(frame, Position(at + len(part), at + 1 + len(part), tuple(sorted(table.seen))), left_out)


class _Table:
    """Values as text, `true` as 1, lists as lists of texts; `a.b` looks into objects; what is missing is null."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.seen = set(request.start.seen)
        self.given = False
        self._columns = [(name, name.split(".")) for name in request.columns]

    def frame(self, values: Iterable[tuple[Any, int]]) -> pl.DataFrame:
        """The rows of some values and their lines; a column in which any value is a list has lists only."""
        found: list[list[Any]] = [[] for _ in self._columns]
        lines: list[int] = []
        for value, line in values:
            if not isinstance(value, dict):
                self.request.problems.add("JSON that is not an object", self.request.file, line)
                continue
            parts = [
                value.get(name, _ABSENT) if len(path) == 1 else _look_up(value, path) for name, path in self._columns
            ]
            try:
                row = [_plain(part) for part in parts]
            except RecursionError as error:  # the parser goes a little deeper than what writes JSON
                self.request.problems.add(*fault_of(error, self.request.file, line))
                continue
            lines.append(line)
            self.seen.update(name for (name, _), part in zip(self._columns, parts, strict=True) if part is not _ABSENT)
            for column, part in zip(found, row, strict=True):
                column.append(part)
        self.given |= bool(lines)
        series = {name: _series(name, column) for (name, _), column in zip(self._columns, found, strict=True)}
        return self.request.with_places(pl.DataFrame(series), np.array(lines, np.int64))


def _series(name: str, values: list[Any]) -> pl.Series:
    if list not in set(map(type, values)):
        return pl.Series(name, values, dtype=pl.String)
    listed = [value if value is None or isinstance(value, list) else [value] for value in values]
    return pl.Series(name, listed, dtype=pl.List(pl.String))


def _look_up(value: Any, path: list[str]) -> Any:
    for name in path:
        value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
    return value


def _plain(value: Any) -> Any:
    if value is _ABSENT or value is None:
        return None
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, int):  # as json.dumps does it, in a quarter of the time
        return repr(int(value))
    if isinstance(value, list):  # a list within a list is text
        return [json.dumps(part) if isinstance(part, list) else _plain(part) for part in value if part is not None]
    return json.dumps(value)
