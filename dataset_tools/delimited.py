"""CSV and its kin of any size, block by block, with the line of every row.

Every row given is what Python's csv reader makes of its bytes with `strict=True`, but for a carriage return without a
line feed, which is text here; so is a quote inside a field that does not begin with one (`he said "hi"`). Where strict
reading fails, a closing quote followed by text, the record is reported and reading goes on with the next line. What is
a row and what a fault hangs on the bytes alone, never on where blocks end.

A block without quotes and faults is read by Polars once numpy has counted the fields of its lines; of the rows that a
`Choice` leaves out, only the columns that decide are parsed. A block whose quotes all open or close a field, or are
doubled inside one, is taken apart with numpy and read by Polars; the length of every field given is then compared with
that in the file. Any other block goes through the csv module.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from dataset_tools.ahead import ahead
from dataset_tools.dialect import RECORD_LIMIT, Dialect, Lines, is_open, open_table
from dataset_tools.errors import DataToolError
from dataset_tools.json_values import fault_of
from dataset_tools.raw_files import Block, Choice, Position, Request, Stream
from dataset_tools.utf8 import bad_records, is_utf8, utf8_error

WIDTH = "row of the wrong width (is the file cut short, a quote not doubled?)"
QUOTING = "quote that is neither doubled nor at the end of its field"
UNCLOSED = "quote that is never closed (is the file cut short?)"
NO_BREAK = "last line without line break (is the file cut short?)"
_SCAN = 1 << 20  # bytes looked at together: they stay in the processor's cache
_EXACT = 4 << 20  # bytes that go through the csv module together
_LF, _CR, _QUOTE = b'\n\r"'


def read_delimited(
    request: Request,
    stream: Stream,
    *,
    separator: str | None,
    quoted: bool,
    header: Sequence[str] | None,
    blank_rows: bool = False,
) -> Iterator[Block]:
    """The blocks of a CSV file; see `blocks.read_blocks`. With `blank_rows` an empty line is a row of one empty field;
    else it is left out, as the csv module does."""
    dialect, complete = open_table(request.path, stream, separator, quoted, header)
    nameless = sum(not name for name in dialect.names)
    wanted = request.demand([name for name in dialect.names if name or nameless == 1])
    if not complete:
        request.problems.add(NO_BREAK, request.file, 1)
        return
    position = dialect.first_data
    if request.start.offset > position.offset:
        stream.skip(request.start.offset - position.offset)
        position = request.start
    yield from _Table(request, dialect, wanted, blank_rows).blocks(stream, position)


Fault = UnicodeDecodeError | int | str  # not UTF-8, of so many fields, what the csv module says
Rows = tuple[pl.DataFrame, int]  # those that are chosen, and how many are not


@dataclass(frozen=True)
class _Piece:
    """Some records: the bytes and lines that they take, and what makes rows of them and records their faults."""

    size: int
    lines: int
    rows: Callable[[], Rows]


class _Table:
    def __init__(self, request: Request, dialect: Dialect, wanted: Sequence[str], blank_rows: bool) -> None:
        self._request, self._problems, self._dialect = request, request.problems, dialect
        self._path, self._file = request.path, request.file
        self._wanted = {name: dialect.names.index(name) for name in wanted}
        self._width = len(dialect.names)
        self._separator = ord(dialect.separator)
        # In front of all that Polars reads: it unpacks bytes that begin as a packed stream does, and skips a byte order
        # mark.
        self._header = dialect.separator.join(map(str, range(self._width))).encode() + b"\n"
        self._blank_rows = blank_rows

    def blocks(self, stream: Stream, position: Position) -> Iterator[Block]:
        """All blocks from `position`, where `stream` stands; then what is wrong with the end of the file.

        A thread takes the next piece apart while rows are made of this one.
        """
        for piece in ahead(self._pieces(stream, position.line)):
            position = Position(position.offset + piece.size, position.line + piece.lines)
            frame, left_out = piece.rows()
            if frame.height or left_out:
                yield Block(frame, position, left_out)

    def _pieces(self, stream: Stream, line: int) -> Iterator[_Piece]:
        rest, ended = b"", False
        while not ended:
            more = stream.read(max(self._request.block_bytes, len(rest)))
            rest, ended, done = rest + more, not more, 0
            regular = None if ended else self._regular(rest, line)
            for piece in self._exact(rest, line) if regular is None else [regular]:
                done, line = done + piece.size, line + piece.lines
                yield piece
            rest = rest[done:]
            if len(rest) > RECORD_LIMIT:
                raise self._too_long(rest, line)
        yield _Piece(0, 0, partial(self._end, stream, rest, line))

    def _regular(self, data: bytes, line: int) -> _Piece | None:
        """The records that are complete in `data`, which begins one; None where only the csv module can tell."""
        buffer = np.frombuffer(data, np.uint8)
        quoted = self._dialect.quoted and b'"' in data
        if not quoted and (plain := self._plain(data, buffer, line)) is not None:
            return plain
        marks, quotes, breaks = self._marks(buffer, quoted)
        if quoted and not self._is_well_quoted(buffer, quotes):
            return None
        is_break = buffer[marks] == _LF
        ends = marks[is_break]
        if not len(ends):
            return _Piece(0, 0, lambda: (pl.DataFrame(), 0))
        starts = np.concatenate([[0], ends[:-1] + 1])
        lines = line + (np.searchsorted(breaks, starts) if quoted else np.arange(len(starts)))
        longest = int(np.argmax(ends - starts))
        if ends[longest] - starts[longest] > RECORD_LIMIT:
            raise self._too_long(data[starts[longest] : ends[longest]], int(lines[longest]))
        widths = np.diff(np.flatnonzero(is_break), prepend=-1)
        blank = np.zeros(len(ends), bool)
        if not self._blank_rows:
            blank = (ends == starts) | ((ends == starts + 1) & (buffer[starts] == _CR))
        not_utf8 = bad_records(data, starts, ends)
        good = (widths == self._width) & ~blank
        good[list(not_utf8)] = False
        marks, begins, places = marks[: widths.sum()], starts, lines
        if not good.all():
            marks, begins, places = marks[np.repeat(good, widths)], starts[good], lines[good]
        text = self._joined(data, starts, ends, good)
        frame = self._parse(text, buffer, begins, marks.reshape(-1, self._width), quotes if quoted else None)
        if frame is None:
            return None
        bad = np.flatnonzero(~good & ~blank).tolist()
        faults = [(int(lines[row]), not_utf8.get(row) or int(widths[row])) for row in bad]
        taken = int(np.searchsorted(breaks, ends[-1], "right")) if quoted else len(ends)
        return _Piece(int(ends[-1]) + 1, taken, partial(self._chosen, frame, places, faults))

    def _plain(self, data: bytes, buffer: np.ndarray, line: int) -> _Piece | None:
        """The records of a block without quotes, carriage returns, blank lines, bytes that are not UTF-8 and rows of
        another width; None for any other block."""
        ends = np.flatnonzero(buffer == _LF)
        if not len(ends) or self._width > 256:
            return None
        starts = np.concatenate([[0], ends[:-1] + 1])
        text = b"".join((self._header, memoryview(data)[: ends[-1] + 1]))
        separators = buffer[: ends[-1] + 1] == self._separator
        # Sums of bytes are true up to 255; with all of them right but for multiples of 256, their total tells.
        per_row = np.add.reduceat(separators.view(np.uint8), starts, dtype=np.uint8)
        if (
            not np.all(per_row == self._width - 1)
            or np.count_nonzero(separators) != len(ends) * (self._width - 1)
            or np.any(starts == ends)
            or np.max(ends - starts) > RECORD_LIMIT
            or b"\r" in text
            or not is_utf8(text)
        ):
            return None
        return _Piece(int(ends[-1]) + 1, len(ends), partial(self._plain_rows, data, text, starts, ends, line))

    def _plain_rows(self, data: bytes, text: bytes, starts: np.ndarray, ends: np.ndarray, line: int) -> Rows:
        """The rows of a plain block of which `text` has the records."""
        lines, left_out, choice, faults = line + np.arange(len(ends)), 0, self._request.choice, self._problems.fork()
        frame = None
        if choice is None:
            frame = self._polars(text, list(self._wanted), len(lines), quoted=False)
        elif (deciding := self._deciding(text, choice, len(lines))) is not None:
            accepted = choice.accepts(self._request.with_places(deciding, lines), faults)
            left_out = int((~accepted).sum())
            kept = accepted.fill_null(False).to_numpy()
            lines = lines[kept]
            frame = self._polars(self._joined(data, starts, ends, kept), list(self._wanted), len(lines), quoted=False)
        if frame is None:  # not seen so far
            parts = [piece.rows() for piece in self._exact(data[: ends[-1] + 1], line)]
            return pl.concat([frame for frame, _ in parts]), sum(left_out for _, left_out in parts)
        self._problems.absorb(faults)
        return self._request.with_places(frame, lines), left_out

    def _deciding(self, text: bytes, choice: Choice, rows: int) -> pl.DataFrame | None:
        """The columns by which a choice decides."""
        if choice.numbers:
            frame = self._polars(text, choice.columns, rows, quoted=False, dtype=pl.Float64)
            if frame is not None and all(frame[name].is_finite().fill_null(False).all() for name in choice.columns):
                return frame
        return self._polars(text, choice.columns, rows, quoted=False)

    def _chosen(self, frame: pl.DataFrame, lines: np.ndarray, faults: Sequence[tuple[int, Fault]]) -> Rows:
        for line, fault in faults:
            self._report(line, fault)
        return self._request.choose(self._request.with_places(frame, lines))

    def _marks(self, buffer: np.ndarray, quoted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where separators and line breaks outside quotes are, where quotes, and (if `quoted`) where all line breaks.

        A doubled quote closes its field and opens it again, which changes nothing for what is between quotes.
        """
        marks, quotes, breaks, inside = [], [], [], False
        for at in range(0, len(buffer), _SCAN):
            part = buffer[at : at + _SCAN]
            is_break = part == _LF
            is_mark = is_break | (part == self._separator)
            if quoted:
                is_quote = part == _QUOTE
                is_inside = np.logical_xor.accumulate(is_quote) ^ inside
                inside = bool(is_inside[-1])
                is_mark &= ~is_inside
                quotes.append(_positions(is_quote, at))
                breaks.append(_positions(is_break, at))
            marks.append(_positions(is_mark, at))
        return _concatenated(marks), _concatenated(quotes), _concatenated(breaks)

    def _is_well_quoted(self, buffer: np.ndarray, quotes: np.ndarray) -> bool:
        """Whether every quote opens a field, closes one or is doubled; those not yet to be judged at the end are."""
        quotes = quotes[: np.searchsorted(quotes, len(buffer) - 2)]
        opening, closing = quotes[0::2], quotes[1::2]
        before = np.where(opening > 0, buffer[opening - 1], _LF)
        after = buffer[closing + 1]
        ends_line = (after == _LF) | ((after == _CR) & (buffer[closing + 2] == _LF))
        return bool(
            np.all((before == self._separator) | (before == _LF) | (before == _QUOTE))
            and np.all((after == self._separator) | (after == _QUOTE) | ends_line)
        )

    def _parse(
        self, text: bytes, buffer: np.ndarray, starts: np.ndarray, marks: np.ndarray, quotes: np.ndarray | None
    ) -> pl.DataFrame | None:
        """The wanted columns of the rows in `text`, None if a field is not as long as its `marks` in `buffer` say."""
        frame = self._polars(text, list(self._wanted), len(marks), quoted=quotes is not None)
        if frame is None:
            return None
        quotes_before: dict[int, np.ndarray] = {}  # a field begins where the one before it ends
        for name, column in self._wanted.items():
            begins, ends = marks[:, column - 1] + 1 if column else starts, marks[:, column]
            if quotes is not None:
                for at, places in ((column, begins), (column + 1, ends)):
                    if at not in quotes_before:
                        quotes_before[at] = np.searchsorted(quotes, places)
                inner = quotes_before[column + 1] - quotes_before[column]
            if column == self._width - 1:
                ends = ends - ((ends > begins) & (buffer[ends - 1] == _CR))
            lengths = ends - begins
            if quotes is not None:
                lengths = lengths - (inner > 0) - inner // 2
            if not np.array_equal(frame[name].str.len_bytes().to_numpy(), lengths):
                return None
        return frame

    def _joined(self, data: bytes, starts: np.ndarray, ends: np.ndarray, good: np.ndarray) -> bytes:
        """The bytes of the records that are good, after the header."""
        edges = np.flatnonzero(np.diff(good.astype(np.int8), prepend=0, append=0))
        runs = map(slice, starts[edges[0::2]].tolist(), (ends[edges[1::2] - 1] + 1).tolist())
        return self._header + b"".join(map(data.__getitem__, runs))

    def _polars(
        self, text: bytes, names: Sequence[str], rows: int, *, quoted: bool, dtype: type[pl.DataType] = pl.String
    ) -> pl.DataFrame | None:
        """Some columns of `text`, header and all, as Polars reads them; None if it does not find so many rows, or a
        value that is not of the type."""
        if not rows or not names:
            return pl.DataFrame(schema=dict.fromkeys(names, dtype))
        places = {name: self._wanted[name] for name in names}
        try:
            frame = pl.read_csv(
                text,
                columns=sorted(places.values()),
                separator=self._dialect.separator,
                quote_char='"' if quoted else None,
                schema={str(column): dtype for column in range(self._width)},
                empty_string_is_null=False,
            )
        except pl.exceptions.PolarsError:
            return None
        if frame.height != rows:
            return None
        return frame.select(pl.col(str(column)).alias(name) for name, column in places.items())

    def _exact(self, data: bytes, line: int) -> Iterator[_Piece]:
        """As `_regular`, for any bytes, in pieces."""
        at, size, end = 0, _EXACT, data.rfind(b"\n") + 1
        while at < end:
            until = data.rfind(b"\n", at, at + size) + 1 or data.find(b"\n", at + size) + 1
            piece = self._exact_piece(data[at:until], line)
            if piece.size:
                yield piece
                at, line, size = at + piece.size, line + piece.lines, _EXACT
            elif until == end:
                return
            else:
                size *= 2

    def _exact_piece(self, data: bytes, line: int) -> _Piece:
        """The records that are complete in `data`, whole lines."""
        try:
            text, is_utf8 = data.decode(), True
        except UnicodeDecodeError:
            text, is_utf8 = data.decode(errors="surrogateescape"), False
        bounds = [0, *(np.flatnonzero(np.frombuffer(data, np.uint8) == _LF) + 1).tolist()]
        lines = Lines(text)
        reader = self._dialect.reader(lines)
        rows: list[list[str]] = []
        numbers: list[int] = []
        faults: list[tuple[int, Fault]] = []
        before = after = 0  # lines that records took, without and with the latest
        while True:
            fault: Fault | None = None
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if lines.exhausted:
                    break
                row, fault = [], str(error)
            before, after = after, reader.line_num
            if bounds[after] - bounds[before] > RECORD_LIMIT + 1:
                raise self._too_long(data[bounds[before] : bounds[after]], line + before)
            if not row and fault is None:
                if not self._blank_rows:
                    continue
                row = [""]
            if not is_utf8 and fault is None:
                fault = utf8_error(data[bounds[before] : bounds[after] - 1])
            if fault is None and len(row) != self._width:
                fault = len(row)
            if fault is not None:
                faults.append((line + before, fault))
                continue
            rows.append(row if not lines.stand_in else [field.replace(lines.stand_in, "\r") for field in row])
            numbers.append(line + before)
        frame = pl.DataFrame(  # of a list, Polars would name the nameless
            {name: pl.Series([row[at] for row in rows], dtype=pl.String) for name, at in self._wanted.items()}
        )
        return _Piece(bounds[after], after, partial(self._chosen, frame, np.array(numbers, np.int64), faults))

    def _report(self, line: int, fault: Fault) -> None:
        """A record that is left out: not UTF-8, of so many fields, or what the csv module says."""
        if isinstance(fault, UnicodeDecodeError):
            self._problems.add(*fault_of(fault, self._file, line))
        elif isinstance(fault, int):
            self._problems.add(WIDTH, self._file, line, f"{fault} field{'s' * (fault != 1)}, {self._width} expected")
        else:
            self._problems.add(QUOTING, self._file, line, fault)

    def _end(self, stream: Stream, rest: bytes, line: int) -> Rows:
        """No row; records what is wrong with the end of the file."""
        self._request.add_damage(stream)
        if rest and not stream.damage:
            text = rest.decode(errors="surrogateescape")
            if self._is_open(text):
                what = f"line {line:,} to the end of the file are left out"
                self._problems.add(UNCLOSED, self._file, self._opened(text, line), what)
            else:
                self._problems.add(NO_BREAK, self._file, line)
        return pl.DataFrame(), 0

    def _is_open(self, text: str) -> bool:
        return self._dialect.quoted and is_open(text, self._dialect.separator)

    def _opened(self, text: str, line: int) -> int:
        """The line of the quote that is still open where `text`, a record from `line` on, ends."""
        row = next(self._dialect.reader(Lines(text), strict=False))
        return line + sum(field.count("\n") for field in row[:-1])

    def _too_long(self, record: bytes, line: int) -> DataToolError:
        text = record[:RECORD_LIMIT].decode(errors="surrogateescape")
        if not self._is_open(text):
            return DataToolError(f"{self._path}, line {line:,}: a row of more than {RECORD_LIMIT:,} bytes")
        return DataToolError(
            f"{self._path}, line {self._opened(text, line):,}: a quote opens that is not closed within"
            f" {RECORD_LIMIT:,} bytes; is it not doubled? (quoted: false takes quotes as text)"
        )


def _positions(mask: np.ndarray, at: int) -> np.ndarray:
    positions = np.flatnonzero(mask)
    positions += at
    return positions


def _concatenated(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
