"""The values of a JSON file of any size with their lines: JSON lines, or one JSON document item by item."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dataset_tools.errors import DataToolError
from dataset_tools.raw_files import BOM, Position, Request, Stream

DOCUMENT_LIMIT = 512 << 20  # bytes of a JSON document, or of a line


@dataclass(frozen=True)
class Values:
    """Values that stand together in a JSON file, in its order, each with its line; of a document, with its item.

    `parts` goes once through them, and has to be used up before the next ones are asked for: a line is parsed, and its
    fault recorded, when its turn comes.
    """

    parts: Iterator[tuple[Any, int]]
    file: int  # index in `Problems`
    position: Position  # after these values


def read_json_values(request: Request, stream: Stream) -> Iterator[Values]:
    """The values of a JSON file, some at a time, from where the request begins; a list counts as its elements.

    What cannot be read is recorded in the request's problems; see `blocks.read_blocks`.
    """
    head, lines = _head(stream)
    if not lines:
        request.add_damage(stream)
        if not stream.damage:
            request.problems.add("empty file", request.file, None)
    elif is_json_lines(lines):
        position = request.start if request.start.offset else Position(len(BOM) if head.startswith(BOM) else 0)
        stream.unread(head)
        stream.skip(position.offset)
        yield from _read_lines(request, stream, position)
    else:
        request.problems.units[request.file] = "item"
        stream.unread(head.removeprefix(BOM))
        yield from _read_document(request, stream)


def is_json_lines(head: list[bytes]) -> bool:
    """Whether a file that begins so holds one JSON value per line, be it that its first line is damaged."""
    opens = head[0].strip() not in (b"{", b"[")
    return any(isinstance(parse_json(line), dict | list) for line in head[: 1 + opens])


def parse_json(line: bytes) -> Any:
    """The JSON value of a line, or the error."""
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return error


def fault_of(error: Exception, file: int, number: int | None) -> tuple[str, int, int | None, str]:
    """What `Problems.add` takes, for an error that `parse_json` or a decoder gave."""
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are not UTF-8", file, number, f"{error.reason} at byte {error.start}"
    if isinstance(error, json.JSONDecodeError):
        place = f"column {error.colno}" if number is not None else f"line {error.lineno}, column {error.colno}"
        return "text that is not JSON (is the file cut short?)", file, number, f"{error.msg}, {place}"
    return "text that is not JSON", file, number, str(error)


def _head(stream: Stream) -> tuple[bytes, list[bytes]]:
    """The first bytes of a file with, if it has so many, its first two lines that are not blank."""
    head = b""
    while True:
        more = stream.read(max(1 << 16, len(head)))
        head += more
        lines = [line for line in head.removeprefix(BOM).split(b"\n")[: None if not more else -1] if line.strip()]
        if not more or len(lines) > 1 or len(head) > DOCUMENT_LIMIT:
            return head, lines[:2] or [line for line in [head.removeprefix(BOM)] if line.strip()]


def _read_lines(request: Request, stream: Stream, position: Position) -> Iterator[Values]:
    rest, ended = b"", False
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
        if lines:
            parts = _parsed(lines, position.line, request)
            position = Position(position.offset + end, position.line + len(lines))
            request.check_line(position.line - 1)
            yield Values(parts, request.file, position)
    request.add_damage(stream)


def _parsed(lines: Iterable[bytes], first: int, request: Request) -> Iterator[tuple[Any, int]]:
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        value = parse_json(line)
        if isinstance(value, Exception):
            request.problems.add(*fault_of(value, request.file, number))
        elif isinstance(value, list):
            yield from ((part, number) for part in value)
        else:
            yield value, number


def _read_document(request: Request, stream: Stream) -> Iterator[Values]:
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
        numbered = zip(part, range(at + 1, at + 1 + len(part)), strict=True)
        yield Values(numbered, request.file, Position(at + len(part), at + 1 + len(part)))
