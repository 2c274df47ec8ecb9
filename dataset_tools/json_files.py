"""JSON and JSON-lines files, plain or gzip, value by value; what cannot be parsed is reported with file and line."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from tqdm import tqdm

from dataset_tools.errors import DataToolError
from dataset_tools.problems import Problems

SUFFIXES = tuple(f".{kind}{packed}" for kind in ("json", "jsonl", "ndjson") for packed in ("", ".gz"))
Document = tuple[Any, int, int]  # value, index of its file in `Problems`, line (or item) number


def list_files(raw: list[Path]) -> list[Path]:
    """The files named and, sorted, those in the folders named; `DataToolError` if there is none."""
    files: list[Path] = []
    for path in raw:
        if not path.exists():
            raise DataToolError(f"{path} does not exist; give files or folders of {', '.join(SUFFIXES)}")
        inside = (
            sorted(child for child in path.rglob("*") if child.name.endswith(SUFFIXES)) if path.is_dir() else [path]
        )
        if not inside:
            raise DataToolError(f"{path} holds no file of {', '.join(SUFFIXES)}")
        files += inside
    return files


def read_documents(files: list[Path], problems: Problems) -> Iterator[Document]:
    """Every JSON value of `files`, one per line or one per file; a list counts as its elements."""
    with tqdm(total=sum(path.stat().st_size for path in files), unit="B", unit_scale=True, disable=None) as progress:
        for path in files:
            progress.set_description(path.name)
            try:
                with open(path, "rb") as raw:
                    seen = 0
                    for document in _read_file(path, raw, problems):
                        progress.update(raw.tell() - seen)
                        seen = raw.tell()
                        yield document
            except OSError as error:
                raise DataToolError(f"cannot read {path}: {error.strerror or error}") from error


def _read_file(path: Path, raw: BinaryIO, problems: Problems) -> Iterator[Document]:
    file = problems.open_file(str(path))
    try:
        lines = enumerate(_unpacked(raw), start=1)
        head = list(itertools.islice(((number, line) for number, line in lines if line.strip()), 2))
        if not head:
            problems.add("empty file", file, None)
        elif is_json_lines([line for _, line in head]):
            yield from _read_lines(file, itertools.chain(head, lines), problems)
        else:
            raw.seek(0)
            problems.units[file] = "item"
            yield from _read_one_document(file, _unpacked(raw).read(), problems)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problems.add("gzip stream that is damaged or cut short", file, None, str(error))


def _unpacked(raw: BinaryIO) -> BinaryIO:
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw))) if packed else raw


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


def _read_lines(file: int, lines: Iterable[tuple[int, bytes]], problems: Problems) -> Iterator[Document]:
    for number, line in lines:
        if not line.strip():
            continue
        value = parse_json(line)
        if isinstance(value, Exception):
            problems.add(*fault_of(value, file, number))
        else:
            yield from ((part, file, number) for part in (value if isinstance(value, list) else [value]))


def fault_of(error: Exception, file: int, number: int | None) -> tuple[str, int, int | None, str]:
    """What `Problems.add` takes, for an error that `parse_json` or a decoder gave."""
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are not UTF-8", file, number, f"{error.reason} at byte {error.start}"
    if isinstance(error, json.JSONDecodeError):
        place = f"column {error.colno}" if number is not None else f"line {error.lineno}, column {error.colno}"
        return "text that is not JSON (is the file cut short?)", file, number, f"{error.msg}, {place}"
    return "text that is not JSON", file, number, str(error)


def _read_one_document(file: int, content: bytes, problems: Problems) -> Iterator[Document]:
    value = parse_json(content)
    if isinstance(value, Exception):
        problems.add(*fault_of(value, file, None))
        return
    for number, part in enumerate(value if isinstance(value, list) else [value], start=1):
        yield part, file, number
