"""What the readers of raw files share: where reading stands, the block they give, and the unpacked bytes of a file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl

from dataset_tools.errors import DataToolError
from dataset_tools.problems import Problems

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PACKED = {".gz": GZIP, ".zst": ZSTD}
BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 20  # bytes unpacked at a time
_PACKED_PIECE = 1 << 12  # bytes given to zstd at a time: one such piece of zeros can become 128 MB
_LAST_LINE = (1 << 32) - 1
_WINDOW = 1 << 31  # bytes that a zstd stream may look back, `zstd --long=31`


@dataclass(frozen=True)
class Position:
    """Where reading goes on; JSON-able by `dataclasses.asdict`, and `Position(**that)` gives it back."""

    offset: int = 0  # bytes of the unpacked stream; in Parquet and a JSON document, rows (items) already given
    line: int = 1  # the line (row, item) that comes next
    seen: Sequence[str] = ()  # JSON only: the columns that some line had so far


@dataclass(frozen=True)
class Block:
    """Rows that stand together in a raw file, in its order, with `_file` and `_line` (both UInt32)."""

    frame: pl.DataFrame
    position: Position  # after this block
    left_out: int = 0  # rows that a `Choice` did not accept


@dataclass(frozen=True)
class Choice:
    """Which rows of a file are wanted at all.

    `accepts` gets their `columns` as they are in the file, with `_file` and `_line`, and says for each whether it is
    wanted, null if it is faulty; faults it records in the `Problems` given. If it takes `numbers`, it gets columns of
    text as Float64 where that is quicker and all values in them are finite numbers.
    """

    columns: Sequence[str]
    accepts: Callable[[pl.DataFrame, Problems], pl.Series]
    numbers: bool = False


@dataclass(frozen=True)
class Request:
    """What `blocks.read_blocks` or `blocks.read_values` was asked for, with the file's index in `problems`."""

    path: Path
    columns: Sequence[str]
    optional: Collection[str]
    problems: Problems
    file: int
    start: Position
    block_bytes: int
    choice: Choice | None = None

    def demand(self, known: Sequence[str]) -> list[str]:
        """Those of the columns that are known; `DataToolError` if one that is not optional is not."""
        missing = [name for name in self.columns if name not in known and name not in self.optional]
        if missing:
            raise DataToolError(f"{self.path} has no column {', '.join(missing)}; it has {', '.join(known)}")
        return [name for name in self.columns if name in known]

    def add_damage(self, stream: Stream) -> None:
        """Record the damage of a packed stream, if any."""
        if stream.damage:
            self.problems.add(stream.damage[0], self.file, None, stream.damage[1])

    def check_line(self, number: int) -> None:
        """`DataToolError` beyond line 4,294,967,295."""
        if number > _LAST_LINE:
            raise DataToolError(f"{self.path} has more than {_LAST_LINE:,} lines; split it")

    def choose(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """The rows that are wanted, and how many are not."""
        if self.choice is None:
            return frame, 0
        accepted = self.choice.accepts(frame, self.problems)
        return frame.filter(accepted), int((~accepted).sum())

    def with_places(self, frame: pl.DataFrame, lines: np.ndarray) -> pl.DataFrame:
        """`frame` with `_file` and `_line`."""
        if len(lines):
            self.check_line(int(lines[-1]))
        places = pl.DataFrame({"_line": lines.astype(np.uint32)}).select(
            _file=pl.lit(self.file, pl.UInt32), _line="_line"
        )
        return places if not frame.width else pl.concat([frame, places], how="horizontal")


class Stream:
    """The bytes of a file, unpacked as they are read; gzip and zstd are known by their first bytes.

    `damage` is the kind of fault and its detail once a packed stream has turned out cut or damaged; `read` gives all
    that could be unpacked before and then b"", as it does at the end of a sound file. `advance` is called with the
    bytes of the file, as packed, that each `read` or `skip` went through. Raises `DataToolError` for a zstd stream
    where the package zstandard is missing; an `OSError` of the file passes through.
    """

    def __init__(self, path: Path, raw: BinaryIO, advance: Callable[[int], object] | None = None) -> None:
        self.damage: tuple[str, str] | None = None
        self._raw, self._advance, self._told = raw, advance, 0
        self._pending = b""
        head = raw.read(len(ZSTD))
        raw.seek(0)
        if head.startswith(GZIP) or (head and path.suffix == ".gz" and GZIP.startswith(head)):
            self._pieces: Iterator[bytes] | None = _gunzip(raw)
            self._kind = "gzip"
        elif head.startswith(ZSTD) or (head and path.suffix == ".zst" and ZSTD.startswith(head)):
            self._pieces = _unzstd(path, raw)
            self._kind = "zstd"
        else:
            self._pieces = None

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        parts, have = [self._pending], len(self._pending)
        self._pending = b""
        while have < size:
            part = self._raw.read(size - have) if self._pieces is None else self._next_piece(self._pieces)
            if not part:
                break
            parts.append(part)
            have += len(part)
        if self._advance is not None:
            told = self._raw.tell()
            self._advance(told - self._told)
            self._told = told
        data = b"".join(parts)
        if have > size:
            data, self._pending = data[:size], data[size:]
        return data

    def unread(self, data: bytes) -> None:
        """Give `data`, the last bytes read, back: they come again."""
        self._pending = data + self._pending

    def skip(self, size: int) -> None:
        """Leave out the next `size` bytes."""
        while size > 0:
            if self._pieces is None and not self._pending:
                self._raw.seek(size, 1)
                return
            data = self.read(min(size, _PIECE))
            if not data:
                return
            size -= len(data)

    def _next_piece(self, pieces: Iterator[bytes]) -> bytes:
        try:
            return next(pieces, b"")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage = f"{self._kind} stream that is damaged or cut short", str(error)
            return b""


def _gunzip(raw: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as unpacked:
        while piece := unpacked.read1(_PIECE):  # read() would lose what stands before a damage
            yield piece


def _unzstd(path: Path, raw: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise DataToolError(f"{path} is packed with zstd, which needs a package: pip install zstandard") from error
    unpack, begun = zstandard.ZstdDecompressor(max_window_size=_WINDOW), False
    frame = unpack.decompressobj()
    while packed := raw.read(_PACKED_PIECE):
        while packed:
            try:
                piece = frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            begun, packed = not frame.eof, frame.unused_data
            if piece:
                yield piece
            if frame.eof:
                frame = unpack.decompressobj()
    if begun:
        raise EOFError("the last frame has no end")
