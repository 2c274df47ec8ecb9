"""The blocks of a JSON file: columns looked up in its values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from dataset_tools.json_values import fault_of, read_json_values
from dataset_tools.raw_files import Block, Request, Stream
from dataset_tools.text import replace_surrogates

_ABSENT = object()  # a key that a JSON object does not have, unlike one that is null


def read_json_blocks(request: Request, stream: Stream) -> Iterator[Block]:
    """The blocks of a JSON file; see `blocks.read_blocks`."""
    table = _Table(request)
    for values in read_json_values(request, stream):
        frame, left_out = request.choose(table.frame(values.parts))
        if frame.height or left_out:
            yield Block(frame, replace(values.position, seen=tuple(sorted(table.seen))), left_out)
    if table.given or request.start.offset:
        request.demand(sorted(table.seen))


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
