"""Raw tables into a stage: one progress bar over all files, an estimate of time and disk, going on after a stop."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import polars as pl
from tqdm import tqdm

from dataset_tools.ahead import ahead
from dataset_tools.blocks import Block, Position, Values, read_blocks, read_values
from dataset_tools.problems import Problems
from dataset_tools.schema import TIME_RANGE
from dataset_tools.stage import Rows, Stage
from dataset_tools.text import as_number

_LARGE = 256 << 20  # bytes of raw files from which on an estimate is worth a line
_AFTER = 64 << 20  # bytes read before it is made
_ENOUGH = 1 << 15  # rows to be worth the work on a block
_MOST_PARTS = 16  # blocks of the file in one

Made = TypeVar("Made")


class Reading:
    """Reads raw files into a stage.

    Args:
        stage: where the rows go. files: all that will be read, for the progress bar.
    """

    def __init__(self, stage: Stage, files: Sequence[Path]) -> None:
        self.stage = stage
        self._total = sum(path.stat().st_size for path in files)
        self._read = 0
        self._silent = self._total < _LARGE
        self._started = time.monotonic()
        self._bar = tqdm(total=self._total, desc="reading", unit="B", unit_scale=True, disable=None)

    def __enter__(self) -> Self:
        if not self._silent:
            free = shutil.disk_usage(self.stage.folder).free
            again = ", going on where an earlier run stopped" if self.stage.resumed else ""
            _say(f"reading {_size(self._total)} of raw files{again}; {_size(free)} are free for temporary files")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def take(
        self,
        path: Path,
        columns: Sequence[str],
        rows: Callable[[Block], Mapping[str, pl.DataFrame]],
        *,
        key: str | None = None,
        may_be_empty: bool = False,
        **layout: Any,
    ) -> None:
        """Stage what `rows` makes of each block of a file; `layout` as for `read_blocks`. `key` tells readings of one
        file apart; None: it is read once. A file without a row is a fault, unless it `may_be_empty`.
        """

        def read(found: Problems, **place: Any) -> Iterator[tuple[Block, Position]]:
            blocks = read_blocks(path, columns, found, advance=self._advance, **place, **layout)
            return ((block, block.position) for block in _together(blocks))

        self._take(key or str(path), path, read, rows, may_be_empty=may_be_empty)

    def take_values(self, path: Path, rows: Callable[[Values, Problems], Mapping[str, pl.DataFrame]]) -> None:
        """Stage what `rows` makes of the values of a JSON file, some at a time, recording faults in the `Problems`
        given. It runs in the thread that reads. A file without a row is no fault.
        """

        def read(found: Problems, **place: Any) -> Iterator[tuple[Mapping[str, pl.DataFrame], Position]]:
            for values in read_values(path, found, advance=self._advance, **place):
                yield rows(values, found), values.position

        self._take(str(path), path, read, lambda tables: tables, may_be_empty=True)

    def _take(
        self,
        unit: str,
        path: Path,
        read: Callable[..., Iterable[tuple[Made, Position]]],
        rows: Callable[[Made], Mapping[str, pl.DataFrame]],
        *,
        may_be_empty: bool,
    ) -> None:
        """Stage the `rows` of what `read` makes, ahead of them, in `Problems` from the index of a `file` (None: it is
        not open) and a `start` on, with the position after each."""
        problems = self.stage.problems

        def resume(position: Mapping[str, Any] | None) -> Iterator[Rows]:
            file = problems.files.index(str(path)) if str(path) in problems.files else None
            start = Position() if position is None else Position(**position)
            self._bar.set_description(path.name)
            empty, found = position is None and not may_be_empty, problems.fork()
            for made, faults in ahead(_with_faults(read(found, file=file, start=start), found)):
                problems.absorb(faults)
                if made is not None:
                    yield rows(made[0]), asdict(made[1])
                    empty = False
                    self._estimate()
            if empty and all(found.file != str(path) for found in problems.violations()):
                problems.add("file without a row", problems.files.index(str(path)), None)

        self.stage.take(unit, resume)

    def _advance(self, size: int) -> None:
        self._read += size
        self._bar.update(size)

    def _estimate(self) -> None:
        """After the first part of large files: how long reading will take, and how much disk its parts."""
        if self._silent or self._read < _AFTER:
            return
        self._silent = True
        share = self._total / self._read
        seconds = (time.monotonic() - self._started) * (share - 1)
        staged = sum(path.stat().st_size for path in self.stage.folder.glob("*.parquet"))
        _say(
            f"reading will take about {_duration(seconds)} more and {_size(staged * share)} of temporary "
            "files; sorting and writing come after it"
        )


def _with_faults(parts: Iterable[Made], found: Problems) -> Iterator[tuple[Made | None, Problems]]:
    """Each part with what was found until it was read; at the end what was found after the last."""
    for part in parts:
        yield part, found.drain()
    yield None, found.drain()


def _together(blocks: Iterable[Block]) -> Iterator[Block]:
    """Neighbours with the same columns as one block, up to `_ENOUGH` rows: of each, a `Choice` may leave few."""
    parts: list[Block] = []
    for block in blocks:
        if parts and parts[0].frame.schema != block.frame.schema:
            yield _joined(parts)
            parts = []
        parts.append(block)
        if sum(part.frame.height for part in parts) >= _ENOUGH or len(parts) == _MOST_PARTS:
            yield _joined(parts)
            parts = []
    if parts:
        yield _joined(parts)


def _joined(parts: Sequence[Block]) -> Block:
    frame = parts[0].frame if len(parts) == 1 else pl.concat([part.frame for part in parts])
    return Block(frame, parts[-1].position, sum(part.left_out for part in parts))


def unit_of(path: Path, column: str, **layout: Any) -> float:
    """How many units a second has in a file's times, 1 (seconds) or 1000 (milliseconds): most of its first rows decide.

    Rows that differ are then outside the accepted range, and so found.
    """
    block = next(iter(read_blocks(path, [column], Problems(), block_bytes=1 << 18, **layout)), None)
    if block is None:
        return 1.0
    times = block.frame.select(as_number(pl.col(column).cast(pl.String))).to_series().drop_nulls()
    return 1e3 if (times.abs() >= TIME_RANGE[1]).sum() > len(times) / 2 else 1.0


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
