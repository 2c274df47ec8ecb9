"""Fuzzing of everything that reads raw files: random files, sound and broken, against slow and independent readings.

    python benchmarks/fuzz_readers.py --seconds 600 --output fuzz_readers.json
    python benchmarks/fuzz_readers.py --reader csv --seed 7 --first 4711 --inputs 1   # one input again, with traceback

Input N of a reader is decided by (seed, reader, N) alone; `--first` goes on where an earlier run stopped (`next` of its
result). What is demanded of every input: nothing but `DataToolError` is raised, no more than 5 s of processor are used,
the interpreter survives (inputs run in a process of their own, which is started anew if not), and

- csv, tsv, headless, unquoted: the rows are those of Python's csv module, record by record, and what it cannot read is
  counted, whatever the size of a block; likewise jsonl and document with the json module,
- gzip, zstd: what is read without a fault is what gzip or zstandard unpack,
- parquet: the rows do not depend on the size of a block,
- rules: every row is kept or counted, what is kept keeps the rules, and cleaning it again changes nothing,
- kuaicomt, microlens, youtube, table, mapping: their functions on mutated raw files and mapping files,
- command: whole conversions; the folder is as before if the status is not 0, else `check` finds the data set sound,
- check: every change of a byte of a data set is noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import yaml

from dataset_tools import kuaicomt, microlens, table, youtube
from dataset_tools.__main__ import main as command
from dataset_tools.blocks import columns_of, read_blocks
from dataset_tools.check import check
from dataset_tools.errors import DataToolError
from dataset_tools.files import write_json
from dataset_tools.problems import Problems
from dataset_tools.reading import Reading
from dataset_tools.rules import clean_rows
from dataset_tools.schema import ATOMIC_FILES, TIME_RANGE
from dataset_tools.text import LOST_IDS

HANG = 5.0  # seconds of processor for one input
_KILL = 60.0  # seconds after which the process is ended
_SIZES = (1, 7, 64, 1 << 20)
_LONG = 20_000  # bytes up to which the slow readings are asked
Row = tuple[Any, ...]

# ---------------------------------------------------------------------- what files are made of

T0 = 1_696_132_800
IDS = [
    "u1",
    "u2",
    "u3",
    "v1",
    "v2",
    "c1",
    "c2",
    "1",
    "007",
    " u1",
    "v1 ",
    "\tv1",
    "[PAD]",
    "NA",
    "null",
    "",
    "x y",
    "İ",
]
TIMES = [str(T0), str(T0 + 5), f"{T0}.5", f"{T0}000", f"{T0 + 9}000.0", "0", "-1", "4102444800", "2023-10-01"]
TIMES += [
    "2023-10-01T12:00:00Z",
    "2023-10-01 12:00:00.25+08:00",
    "20231001",
    "2023-02-30",
    "+262143-01-01",
    "0000-00-00",
]
NUMBERS = ["0", "1", "2", "-0", "0.5", "1e400", "-1e400", "1e-400", "nan", "inf", "0x10", "١٢", "1_0", " 1 ", "9" * 400]
NUMBERS += ["", "true", "True", "1,5", "+1", ".5", "5.", "1e5", "9007199254740993", "-9223372036854775809", "1e308"]
TEXTS = [
    "a",
    "Title",
    'say "hi"',
    "line\nbreak",
    "cr\rhere",
    "tab\there",
    "#tag x",
    "＃tag",
    "#",
    "評價 😀",
    "\0",
    "\ufeff",
]
TEXTS += [
    " ",
    "",
    "\u2028",
    "\x85",
    "NA",
    "a,b;c|d",
    "\u0301",
    "\u202e",
    "x^",
    "=1+1",
    "\x1b[0m",
    "P",
    "PT1M2S",
    "PT٣S",
]
TEXTS += ["P1DT", "PT9999999999999999999S", '"', '""', "'", "\\", "\\ud800", "a" * 300, "\xad", "\u3000b\u3000"]
CELLS = IDS + TIMES + NUMBERS + TEXTS
PIECES = [
    b'"',
    b'""',
    b"\n",
    b"\r",
    b"\r\n",
    b",",
    b"\t",
    b";",
    b"|",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\\ud800",
]
PIECES += [b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b":", b"null", b"true", b"1e400", b"NaN", b"-Infinity", b"\\u0000"]
PIECES += [
    b"-0",
    b"0x10",
    "١٢".encode(),
    b"9" * 30,
    b"[PAD]",
    b"NA",
    b" ",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"x^",
    b"a",
]


def mutated(rng: random.Random, content: bytes, most: int = 6) -> bytes:
    """`content` after some changes: bytes, pieces, lines, its end."""
    for _ in range(rng.randint(1, most)):
        at, size = rng.randint(0, len(content)), rng.choice((1, 1, 2, 5, 40))
        match rng.randrange(10):
            case 0 if content:
                at %= len(content)
                content = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
            case 1 | 2 | 3:
                content = content[:at] + rng.choice(PIECES) + content[at:]
            case 4:
                content = content[:at] + content[at + size :]
            case 5:
                lines = content.split(b"\n")
                line = rng.randrange(len(lines))
                lines[line:line] = [lines[line]] * rng.choice((1, 1, 3))
                content = b"\n".join(lines)
            case 6:
                lines = content.split(b"\n")
                a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[a], lines[b] = lines[b], lines[a]
                content = b"\n".join(lines)
            case 7 if rng.random() < 0.3:
                content = content[:at]
            case 8 if rng.random() < 0.05:
                content = content[:at] + rng.choice(PIECES) * rng.choice((1000, 70_000)) + content[at:]
            case 9 if rng.random() < 0.05:
                content = b""
            case _:
                content = content[:at] + bytes([rng.randrange(256)]) + content[at:]
    return content


def maybe_mutated(rng: random.Random, content: bytes) -> bytes:
    return mutated(rng, content) if rng.random() < 0.6 else content


def csv_bytes(rng: random.Random, header: list[str] | None, rows: list[list[str]], separator: str = ",") -> bytes:
    """A CSV file as the csv module writes it."""
    out = io.StringIO(newline="")
    quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    writer = csv.writer(out, delimiter=separator, lineterminator=rng.choice(("\n", "\r\n")), quoting=quoting)
    writer.writerows(([header] if header else []) + rows)
    return (b"\xef\xbb\xbf" * (rng.random() < 0.1)) + out.getvalue().encode(errors="replace")


def cells(rng: random.Random, kinds: list[list[str]], most: int = 8) -> list[list[str]]:
    """Rows whose values are mostly of their column's kind."""
    return [[rng.choice(kind if rng.random() < 0.9 else CELLS) for kind in kinds] for _ in range(rng.randint(0, most))]


def json_value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice([*CELLS, "\ud800", "a\udc00b"])
    if kind < 6:
        return rng.choice((0, 1, -0.0, 2.5, 1e308, float("inf"), float("nan"), 10**30, -1, T0, True, False, None))
    if kind == 6 and rng.random() < 0.02:
        return deep(rng)
    if depth > 3 or kind < 8:
        return None
    if kind == 8:
        return [json_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(("a", "b", "c", "id", "")): json_value(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def deep(rng: random.Random) -> Any:
    """Nesting about as deep as the json module goes."""
    value: Any = 1
    for _ in range(rng.choice((50, 450, 900))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def deepened(rng: random.Random, content: bytes) -> bytes:
    """Now and then, one value replaced by deep nesting, up to what the parser refuses."""
    if rng.random() > 0.02:
        return content
    depth = rng.choice((rng.randint(900, 1010), 100_000))
    opens, closes = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return content.replace(b"1", opens * depth + b"1" + closes * depth, 1)


# ---------------------------------------------------------------------- slow and independent readings


def slow_csv(content: bytes, separator: str, width: int, line: int, *, quoted: bool) -> tuple[list[Row], int]:
    """By the csv module alone, one record at a time: the rows with their line, and how many faults there are."""
    lines = content.split(b"\n")
    tail = lines.pop()
    texts = [line.decode(errors="surrogateescape") + "\n" for line in lines]
    everything = "".join(texts)
    mark = next(char for char in map(chr, range(0xF0000, 0x10FFFF)) if char not in everything)
    texts = [re.sub(r"\r(?!\n)", mark, text) for text in texts]
    rows: list[Row] = []
    faults, at = 0, 0
    layout: dict[str, Any] = {"delimiter": separator, "strict": True}
    if not quoted:
        layout["quoting"] = csv.QUOTE_NONE
    while at < len(texts):
        for end in range(at + 1, len(texts) + 1):
            try:
                record = next(csv.reader(texts[at:end], **layout))
            except csv.Error as error:
                if str(error) == "unexpected end of data":
                    continue
                record = None
            break
        else:
            return rows, faults + 1
        if record is None or (record and (len(record) != width or re.search("[\udc80-\udcff]", "".join(record)))):
            faults += 1
        elif record:
            rows.append((*(field.replace(mark, "\r") for field in record), at + line))
        at = end
    return rows, faults + bool(tail)


def slow_json(content: bytes, columns: list[str]) -> tuple[list[Row], int] | None:
    """Line by line with the json module; None if the first line does not tell that these are JSON lines."""
    rows: list[Row] = []
    faults, first = 0, True
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError):
            value = None
            faults += 1
            if first:
                return None
            continue
        if first and not isinstance(value, dict | list):
            return None
        first = False
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                rows.append((*(as_listed(part.get(name)) for name in columns), number))
            else:
                faults += 1
    return rows, faults


def as_listed(value: Any) -> Any:
    """A JSON value as the list of texts that it is in a column of lists."""
    if value is None:
        return None
    return [as_text(part) for part in (value if isinstance(value, list) else [value]) if part is not None]


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return (
            value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if value.isascii()
            else re.sub("[\ud800-\udfff]", "\ufffd", value)
        )
    return str(int(value)) if isinstance(value, bool | int) else json.dumps(value)


# ---------------------------------------------------------------------- what the readers give

Found = tuple[list[Row], dict[str, int], str]


def found(path: Path, columns: list[str], size: int, **layout: Any) -> Found:
    """Rows with their line, faults by kind, and the message if reading stopped."""
    problems, rows, message = Problems(), [], ""
    try:
        for block in read_blocks(path, columns, problems, block_bytes=size, **layout):
            assert block.frame.height, "an empty block"
            rows += block.frame.drop("_file").rows()
    except DataToolError as error:
        message = str(error)
    return rows, problems.totals(), message


def same_for_every_size(path: Path, columns: list[str], rng: random.Random, **layout: Any) -> Found:
    """What is found, having made sure that it does not depend on the size of a block."""
    sizes = (rng.choice(_SIZES[:3]), _SIZES[3])
    if path.stat().st_size > _LONG:
        sizes = (1 << 12, 1 << 20)
    first, second = (found(path, columns, size, **layout) for size in sizes)
    if first[2] or second[2]:  # rows and faults before a stop hang on the blocks
        assert first[2] == second[2], f"messages differ with the size of a block: {first[2]!r} {second[2]!r}"
    else:
        assert listed(first[0]) == listed(second[0]), "rows differ with the size of a block"
        assert first[1] == second[1], f"faults differ with the size of a block: {first[1]} {second[1]}"
    return second


def listed(rows: list[Row]) -> list[Row]:
    return [
        (*(cell if cell is None or isinstance(cell, list) else [cell] for cell in row[:-1]), row[-1]) for row in rows
    ]


def fuzz_csv(
    rng: random.Random, folder: Path, *, separator: str = ",", quoted: bool = True, headless: bool = False
) -> None:
    width = rng.randint(1, 3)
    names = [f"c{number}" for number in range(width)]
    body = maybe_mutated(rng, csv_bytes(rng, None, cells(rng, [CELLS] * width), separator))
    start = b"\xef\xbb\xbf" * (rng.random() < 0.1)
    head = b"" if headless else (separator.join(names) + "\n").encode()
    path = folder / "t.csv"
    sound_header = rng.random() < 0.8
    content = start + head + body
    path.write_bytes(content if sound_header else mutated(rng, content))
    layout: dict[str, Any] = {"separator": separator, "quoted": quoted}
    if headless:
        layout["header"] = names
    if not sound_header:
        with contextlib.suppress(DataToolError):
            there = columns_of(path, **layout) or []
            same_for_every_size(path, [name for name in there if there.count(name) == 1], rng, **layout)
        return
    rows, faults, message = same_for_every_size(path, names, rng, **layout)
    if len(content) > _LONG:
        return
    data = content[len(start) + len(head) :]
    if headless and not start:
        data = data.removeprefix(b"\xef\xbb\xbf")
    expected, count = slow_csv(data, separator, width, 1 if headless else 2, quoted=quoted)
    if headless and data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):  # taken for a packed stream
        return
    if message:  # a headless file whose first line is empty
        assert headless and re.search("is empty", message) and not data.split(b"\n")[0].strip(b"\r"), message
        return
    assert rows == expected, f"rows differ from the csv module's: {rows} {expected}"
    assert sum(faults.values()) == count, f"{faults} but the csv module has {count} faults"


def fuzz_jsonl(rng: random.Random, folder: Path) -> None:
    columns = ["a", "b"]
    lines = []
    for _ in range(rng.randint(1, 6)):
        text = json.dumps({name: json_value(rng) for name in (*columns, "c")}, ensure_ascii=rng.random() < 0.5)
        lines.append(text.encode(errors="backslashreplace"))
    content = deepened(rng, maybe_mutated(rng, b"\n".join(lines) + b"\n" * (rng.random() < 0.8)))
    path = folder / "t.jsonl"
    path.write_bytes(content)
    rows, faults, message = same_for_every_size(path, columns, rng, optional=columns)
    flat = content.count(b"[") + content.count(b"{") < 300  # how deep the parser goes hangs on who calls it
    some = content.removeprefix(b"\xef\xbb\xbf").strip()
    expected = slow_json(content, columns) if some and flat and len(content) <= _LONG else None
    if expected is None or message:
        return
    got = [row for row in rows]
    assert [row[-1] for row in got] == [row[-1] for row in expected[0]], "lines differ from the json module's"
    assert listed(got) == expected[0], f"rows differ from the json module's: {listed(got)} {expected[0]}"
    assert sum(faults.values()) == expected[1], f"{faults}, but the json module has {expected[1]} faults"


def fuzz_document(rng: random.Random, folder: Path) -> None:
    items = [{name: json_value(rng) for name in "ab"} for _ in range(rng.randint(0, 5))]
    text = json.dumps(items, indent=rng.choice((0, 1, None))).encode()
    (folder / "t.json").write_bytes(deepened(rng, maybe_mutated(rng, text)))
    same_for_every_size(folder / "t.json", ["a", "b"], rng, optional=["a", "b"])


DTYPES = (
    pl.String,
    pl.Int64,
    pl.UInt8,
    pl.Float32,
    pl.Boolean,
    pl.Date,
    pl.Datetime("ms"),
    pl.List(pl.String),
    pl.Binary,
)
DTYPES += (pl.Categorical, pl.Decimal(10, 2), pl.Time, pl.Struct({"x": pl.Int8}), pl.List(pl.List(pl.Int8)), pl.Null)
PLAIN_VALUES = {pl.String: CELLS, pl.Binary: [b"x", b"\xff", b""], pl.Categorical: ["a", "b"]}


def parquet_bytes(rng: random.Random, columns: Mapping[str, list[str] | None], height: int | None = None) -> bytes:
    """A Parquet file; a column with a list of texts is mostly text of it, the others are of any type."""
    height = rng.randint(0, 6) if height is None else height
    series = []
    for name, texts in columns.items():
        if texts is not None and rng.random() < 0.8:
            series.append(pl.Series(name, [rng.choice([*texts, None]) for _ in range(height)], dtype=pl.String))
            continue
        dtype = rng.choice(DTYPES)
        if dtype in PLAIN_VALUES:
            values = [rng.choice([*PLAIN_VALUES[dtype], None]) for _ in range(height)]
            series.append(pl.Series(name, values, dtype=dtype))
        elif isinstance(dtype, pl.List | pl.Struct):
            shape: Any = (
                {"x": 1} if isinstance(dtype, pl.Struct) else ["q", None] if dtype.inner == pl.String else [[1]]
            )
            series.append(pl.Series(name, [rng.choice((shape, None)) for _ in range(height)], dtype=dtype))
        else:
            numbers = pl.Series(name, [rng.choice((0, 1, 100, None)) for _ in range(height)], dtype=pl.Int64)
            series.append(numbers.cast(dtype, strict=False) if dtype != pl.Null else pl.Series(name, [None] * height))
    out = io.BytesIO()
    pl.DataFrame(series).write_parquet(
        out, compression=rng.choice(("uncompressed", "snappy", "zstd")), row_group_size=rng.choice((1, 2, 100))
    )
    return out.getvalue()


def fuzz_parquet(rng: random.Random, folder: Path) -> None:
    content = parquet_bytes(rng, {"a": None, "b": None, "c": CELLS})
    path = folder / "t.parquet"
    path.write_bytes(mutated(rng, content, 3) if rng.random() < 0.8 else content)
    rows, _, message = same_rows_of_parquet(path, rng)
    assert message or len({len(row) for row in rows}) < 2


def same_rows_of_parquet(path: Path, rng: random.Random) -> Found:
    columns = ["a", "b", "c"]
    first, second = (found(path, columns, size, optional=columns) for size in (rng.choice((1, 64)), 1 << 20))
    if not (first[2] or second[2]):
        assert repr(first) == repr(second), "rows differ with the size of a block"
    return second


def fuzz_packed(rng: random.Random, folder: Path, *, zstd: bool = False) -> None:
    content = csv_bytes(rng, ["c0", "c1"], cells(rng, [CELLS, CELLS], 30))
    if zstd:
        import zstandard

        pack, ending = zstandard.ZstdCompressor(write_checksum=True).compress, ".zst"
    else:
        pack, ending = gzip.compress, ".gz"
    at = rng.randint(0, len(content))
    packed = pack(content[:at]) + pack(content[at:]) if rng.random() < 0.3 else pack(content)
    whole = packed
    if rng.random() < 0.8:
        packed = mutated(rng, packed, 3)
    path, plain = folder / f"t.csv{ending}", folder / "t.csv"
    path.write_bytes(packed)
    rows, faults, message = same_for_every_size(path, ["c0", "c1"], rng, separator=",")
    damaged = any("damaged" in kind for kind in faults) or "damaged" in message
    if packed == whole:
        assert not damaged, "a sound stream is taken for a damaged one"
    if not packed.startswith(whole[:2] if not zstd else whole[:4]) or damaged or message:
        return
    if zstd:
        unpacked = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read()
    else:
        try:
            unpacked = gzip.decompress(packed)
        except (EOFError, OSError, zlib.error):
            raise AssertionError("damage of a gzip stream that was not noticed") from None
    plain.write_bytes(unpacked)
    assert (rows, faults) == found(plain, ["c0", "c1"], 1 << 20, separator=",")[:2], "not what the stream holds"


def fuzz_rules(rng: random.Random, folder: Path) -> None:
    suffix = rng.choice(tuple(ATOMIC_FILES))
    height = rng.randint(0, 12)
    columns: dict[str, Any] = {}
    for name, field in ATOMIC_FILES[suffix].fields.items():
        if not field.required and rng.random() < 0.4:
            continue
        pool = IDS if field.type == "token" else TIMES if field.time else NUMBERS if field.type == "float" else TEXTS
        values = [
            None if rng.random() < 0.05 else rng.choice(pool if rng.random() < 0.85 else CELLS) for _ in range(height)
        ]
        if name == "tags" and rng.random() < 0.5:
            columns[name] = pl.Series(
                [None if value is None else [value, value, None] for value in values], dtype=pl.List(pl.String)
            )
        else:
            columns[name] = pl.Series(values, dtype=pl.String)
    places = {"_file": pl.Series([0] * height, dtype=pl.UInt32), "_line": pl.Series(range(height), dtype=pl.UInt32)}
    rows, problems = pl.DataFrame({**columns, **places}), Problems(["f"], ["line"])
    kept = clean_rows(suffix, rows, problems)
    assert kept.height + sum(problems.totals().values()) == height, "rows are lost uncounted"
    for name, field in ATOMIC_FILES[suffix].fields.items():
        if name not in kept.columns:
            continue
        values = [value for value in kept[name].to_list() if value not in (None, "")]
        if field.type == "token":
            assert not set(values) & LOST_IDS and all(value == value.strip() for value in values), name
            assert not field.required or len(values) == kept.height
        elif field.type == "float":
            assert all(isinstance(value, float) and math.isfinite(value) for value in values), name
            assert not field.time or all(TIME_RANGE[0] <= value < TIME_RANGE[1] for value in values)
        else:
            assert all(
                isinstance(value, str) and not re.search(r"[\x00-\x1f\x7f-\x9f]|^ | $|  ", value) for value in values
            )
    again = Problems(["f"], ["line"])
    assert clean_rows(suffix, kept, again).equals(kept) and not again.totals(), "cleaning twice is not cleaning once"


# ---------------------------------------------------------------------- sources


class FakeStage:
    """Takes the rows of a source by the rules, and forgets them."""

    def __init__(self, folder: Path) -> None:
        self.problems, self.notes, self.folder = Problems(), {}, folder
        self.resumed = False

    def take(self, unit: str, read: Callable[[Any], Iterator[Any]]) -> None:
        for tables, _ in read(None):
            for name, rows in tables.items():
                if name in ATOMIC_FILES:
                    clean_rows(name, rows, self.problems)

    @property
    def work(self) -> Any:
        return SimpleNamespace(problems=self.problems, notes=self.notes, stage=self)


def as_file(rng: random.Random, name: str, content: bytes) -> tuple[str, bytes]:
    """A raw file, now and then packed."""
    if rng.random() < 0.1:
        return f"{name}.gz", maybe_mutated(rng, gzip.compress(content)) if rng.random() < 0.3 else gzip.compress(
            content
        )
    return name, content


Columns = dict[str, list[str]]
FLAGS = ["0", "1", "1", "1.0"]
KUAICOMT: dict[str, Columns] = {
    "user_video_inter": {
        "user_id": IDS[:3], "video_id": IDS[3:5], "time_ms": TIMES[3:5] * 3 + TIMES, "is_like": FLAGS,
        "is_collect": FLAGS, "is_forward": FLAGS, "long_view": FLAGS, "play_time_ms": NUMBERS, "duration_ms": NUMBERS,
    },
    "video_features": {"video_id": IDS[3:5], "author_id": IDS, "upload_dt": TIMES[8:], "caption": TEXTS,
                       "duration": NUMBERS, "category": TEXTS},
    "comment_features": {"comment_id": IDS[5:7], "comment_content": TEXTS, "video_id": IDS[3:5],
                         "comment_like_cnt": NUMBERS, "comment_reply_out": NUMBERS},
    "user_comment_inter": {"user_id": IDS[:3], "comment_id": IDS[5:7], "time_stamp": TIMES[:3] * 3 + TIMES,
                           "photo_id": IDS[3:5], "is_like": FLAGS, "is_reply": FLAGS},
    "user_features": {"user_id": IDS[:3], "follow_count": NUMBERS, "register_days": NUMBERS, "x": CELLS},
}  # fmt: skip
MICROLENS: dict[str, tuple[str, Columns]] = {
    "m_pairs.csv": (",", {"user": IDS[:3], "item": IDS[3:5], "timestamp": TIMES[:5]}),
    "m_titles.csv": (",", {"item": IDS[3:5], "title": TEXTS}),
    "m_comment_en.txt": ("\t", {"user": IDS[:3], "item": IDS[3:5], "text": TEXTS}),
    "m_likes_and_views.txt": ("\t", {"item": IDS[3:5], "likes": NUMBERS, "views": NUMBERS}),
}
NAMES = ["", "_row", "_good", "_file", "a:b", 'q"', "USER_ID", "user_id", "x\ny", "t\tt", " y ", "_x", "評", "a.b", "A"]


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def header_of(rng: random.Random, columns: Columns) -> list[str]:
    names = list(columns)
    if rng.random() < 0.1:
        names[rng.randrange(len(names))] = rng.choice(NAMES)
    return names


def kuaicomt_files(rng: random.Random, raw: Path) -> None:
    for name, columns in KUAICOMT.items():
        if name == "user_features" and rng.random() < 0.5:
            continue
        names = header_of(rng, columns)
        kinds = list(columns.values())
        if rng.random() < 0.1:
            names, kinds = [*names, rng.choice(NAMES)], [*kinds, CELLS]
        content = csv_bytes(rng, names, cells(rng, kinds, 6), rng.choice(",\t"))
        file, content = as_file(rng, f"{name}.csv", content if rng.random() < 0.7 else mutated(rng, content))
        (raw / file).write_bytes(content)


POSITIVE = [
    "like,collect,forward",
    "long_view",
    "long_view = 1 AND is_like = 0",
    "is_like",
    "play_time_ms > 1",
    "1 = 1",
]
POSITIVE += [
    "is_like / 0",
    "CAST(is_like AS TEXT) = '1'",
    "is_like IN (1, 2)",
    "sum(is_like) > 1",
    "is_like +",
    "*",
    "''",
]


def fuzz_kuaicomt(rng: random.Random, folder: Path) -> None:
    raw, stage = emptied(folder / "raw"), FakeStage(folder)
    kuaicomt_files(rng, raw)
    files = kuaicomt.find(raw)
    rule = kuaicomt.positives(rng.choice(POSITIVE), files["user_video_inter"])
    share = rng.choice((1.0, 0.5))
    source = kuaicomt._Source(stage.work, rule, kuaicomt.Chosen(rng.choice((None, "2023-10-01")), None, share))
    with Reading(stage, list(files.values())) as reading:  # type: ignore[arg-type]
        for name, path in files.items():
            source.read(reading, name, path)


def microlens_files(rng: random.Random, raw: Path) -> None:
    for name, (separator, columns) in MICROLENS.items():
        if "titles" not in name and "pairs" not in name and rng.random() < 0.3:
            continue
        if separator == ",":
            content = csv_bytes(rng, header_of(rng, columns), cells(rng, list(columns.values()), 6))
        else:
            rows = cells(rng, list(columns.values()), 6)
            content = "".join("\t".join(re.sub(r"[\t\n\r]", " ", cell) for cell in row) + "\n" for row in rows).encode()
        file, content = as_file(rng, name, content if rng.random() < 0.7 else mutated(rng, content))
        (raw / file).write_bytes(content)


def fuzz_microlens(rng: random.Random, folder: Path) -> None:
    raw, stage = emptied(folder / "raw"), FakeStage(folder)
    microlens_files(rng, raw)
    files = microlens.find(raw)
    with Reading(stage, list(files.values())) as reading:  # type: ignore[arg-type]
        microlens._read(reading, files)


def resource(rng: random.Random) -> Any:
    """A YouTube resource; now and then a part of it is anything."""

    def some(value: Any) -> Any:
        return json_value(rng) if rng.random() < 0.04 else value

    def comment(name: str) -> Any:
        author = some({"value": some(rng.choice(IDS[:3]))})
        return some({
            "kind": "youtube#comment", "id": some(name),
            "snippet": some({"textDisplay": some(rng.choice(TEXTS)), "publishedAt": some(rng.choice(TIMES[8:])),
                             "likeCount": some(1), "authorChannelId": author,
                             "parentId": some(rng.choice((None, "c1"))), "videoId": some(rng.choice((None, "v1")))}),
        })  # fmt: skip

    kind = rng.randrange(10)
    if kind < 3:
        duration = some({"duration": some(rng.choice((*TEXTS, "PT1H2M3S")))})
        snippet = {"title": some(rng.choice(TEXTS)), "channelId": some("OWNER"), "tags": some(["a", some("b")])}
        snippet |= {"publishedAt": some(rng.choice(TIMES[8:])), "categoryId": some("20")}
        return some(
            {
                "kind": "youtube#video",
                "id": some(rng.choice(IDS[3:5])),
                "snippet": some(snippet),
                "contentDetails": duration,
            }
        )
    if kind < 8:
        name = rng.choice(IDS[5:7])
        snippet = {"videoId": some(rng.choice(IDS[3:5])), "topLevelComment": comment(name), "totalReplyCount": some(1)}
        replies = some({"comments": some([comment(f"{name}.{number}") for number in range(rng.randint(0, 2))])})
        return some({"kind": "youtube#commentThread", "id": name, "snippet": some(snippet), "replies": replies})
    return comment("c9") if kind == 8 else some({"items": some([{"kind": some("youtube#video")}])})


def youtube_files(rng: random.Random, raw: Path) -> None:
    for number in range(rng.randint(1, 2)):
        values = [resource(rng) for _ in range(rng.randint(1, 6))]
        text = json.dumps(values, indent=1) if rng.random() < 0.2 else "\n".join(map(json.dumps, values)) + "\n"
        content = text.encode()
        file, content = as_file(
            rng, f"{number}.json", deepened(rng, mutated(rng, content) if rng.random() < 0.4 else content)
        )
        (raw / file).write_bytes(content)


def fuzz_youtube(rng: random.Random, folder: Path) -> None:
    raw, stage = emptied(folder / "raw"), FakeStage(folder)
    youtube_files(rng, raw)
    files = youtube.list_files([raw])
    with Reading(stage, files) as reading:  # type: ignore[arg-type]
        for path in files:
            reading.take_values(path, youtube._rows)


EXPRESSIONS = [
    "n = 1",
    "n",
    "n * 2 > 1",
    "t / 1000",
    "length(u) > 1",
    "coalesce(n, 0) = 0",
    "u LIKE '%1'",
    "n + u",
    "-n",
]
EXPRESSIONS += [
    "CAST(n AS INT) = 1",
    "CAST(u AS DATE) IS NULL",
    "n BETWEEN 0 AND 1",
    "sqrt(n) > 0",
    "n % 0",
    "x",
    "NULL",
]
EXPRESSIONS += ["substr(u, 1, 1) = 'u'", "n IN (1, 'a')", "CASE WHEN n = 1 THEN 1 ELSE 0 END", "strptime(u, '%Y') = 1"]
SPECS: dict[str, list[Any]] = {
    "token": ["u", "i", {"column": "u", "prefix": "p"}, {"row": "r"}, {"value": 7}, {"expr": "n"}, {"column": "l.x"}],
    "token_seq": ["x", {"column": "x", "split": ";"}, {"value": 5}, {"expr": "n"}, "l", {"expr": "u"}],
    "float": ["n", {"expr": "n * 2"}, {"value": 1}, {"value": "x"}, {"value": None}, {"column": "u"}],
    "time": ["t", {"column": "t", "time": "ms"}, {"column": "t", "time": "iso", "zone": "Asia/Shanghai"},
             {"column": "t", "time": "%Y-%m-%d"}, {"column": "t", "time": "us"}, {"value": T0}],
}  # fmt: skip
RAW_COLUMNS: Columns = {"u": IDS[:3], "i": IDS[3:5], "t": TIMES[:3] * 3 + TIMES, "n": NUMBERS, "x": TEXTS, "l": CELLS}


def raw_table(rng: random.Random, raw: Path, stem: str) -> str:
    """A raw file of any format with the columns of `RAW_COLUMNS`; its name."""
    kind = rng.choice(("csv", "csv", "tsv", "jsonl", "json", "parquet"))
    rows = cells(rng, list(RAW_COLUMNS.values()), 6)
    if kind == "parquet":
        content = parquet_bytes(rng, RAW_COLUMNS)
    elif kind in ("csv", "tsv"):
        content = csv_bytes(rng, header_of(rng, RAW_COLUMNS), rows, "," if kind == "csv" else "\t")
    else:
        values = [
            {name: json_value(rng) if rng.random() < 0.1 else cell for name, cell in zip(RAW_COLUMNS, row, strict=True)}
            for row in rows
        ]
        text = "\n".join(map(json.dumps, values)) + "\n" if kind == "jsonl" else json.dumps(values, indent=1)
        content = deepened(rng, text.encode())
    if rng.random() < 0.3:
        content = mutated(rng, content, 3)
    file, content = (f"{stem}.{kind}", content) if kind == "parquet" else as_file(rng, f"{stem}.{kind}", content)
    (raw / file).write_bytes(content)
    return file


def mapping_of(rng: random.Random, raw: Path) -> dict[str, Any]:
    """A mapping, mostly sound, and its files."""
    mapping: dict[str, Any] = {}
    for suffix, file in ATOMIC_FILES.items():
        if suffix not in ("inter", "item") and rng.random() < 0.6:
            continue
        columns: dict[str, Any] = {}
        for name, field in file.fields.items():
            if field.required or rng.random() < 0.2:
                columns[name] = rng.choice(SPECS["time" if field.time else field.type])
        if rng.random() < 0.1:
            columns[rng.choice(NAMES)] = rng.choice(SPECS[rng.choice(list(SPECS))])
        if "item_id" in columns and rng.random() < 0.8:
            columns["item_id"] = "i"
        section: dict[str, Any] = {"file": raw_table(rng, raw, suffix), "columns": columns}
        if rng.random() < 0.3:
            section["where"] = rng.choice(EXPRESSIONS)
        if rng.random() < 0.05:
            section["quoted"] = False
        if rng.random() < 0.05:
            section["header"] = list(RAW_COLUMNS)
        if rng.random() < 0.1:
            section["file"] = rng.choice(
                (f"{suffix}*", f"[{suffix}", "**", "**x", str(raw / f"{suffix}.*"), "", [section["file"]] * 2)
            )
        mapping[suffix] = section
    return mapping


def fuzz_table(rng: random.Random, folder: Path) -> None:
    raw, stage = emptied(folder / "raw"), FakeStage(folder)
    text = yaml.safe_dump(mapping_of(rng, raw), allow_unicode=True)
    (folder / "map.yaml").write_text(text, encoding="utf-8")
    mapping = table.load_mapping(folder / "map.yaml")
    files = {suffix: table.files_of(raw, section, suffix) for suffix, section in mapping.items()}
    for suffix, section in mapping.items():
        with contextlib.suppress(DataToolError):
            source = table._Source(suffix, section, files[suffix], stage.work)
            with Reading(stage, files[suffix]) as reading:  # type: ignore[arg-type]
                for path in files[suffix]:
                    reading.take(path, source.needed, source.rows, key=f"{suffix}|{path}", **section.layout)


YAML_PIECES = [
    b"2023-13-45",
    b"!!int x",
    b"&a [*a]",
    b"? [a]\n",
    b"- ",
    b": ",
    b"  ",
    b"\n",
    b"\t",
    b"{",
    b"[" * 2000,
    b"'",
    b"~",
]
YAML_PIECES += [
    b"!!binary x",
    b"!!timestamp x",
    b"0o9",
    b"1e999",
    b"<<: 5\n",
    b"%TAG",
    b"---\n",
    b"\0",
    b"\xff",
    b"inter",
    b"*b",
]


def fuzz_mapping(rng: random.Random, folder: Path) -> None:
    raw = emptied(folder / "raw")
    content = yaml.safe_dump(mapping_of(rng, raw), allow_unicode=True).encode()
    for _ in range(rng.randint(1, 3)):
        at = rng.choice([found.end() for found in re.finditer(rb": ?|\n|^", content)])
        content = content[:at] + rng.choice(YAML_PIECES) + content[at:]
    (folder / "map.yaml").write_bytes(content if rng.random() < 0.7 else mutated(rng, content))
    for suffix, section in table.load_mapping(folder / "map.yaml").items():
        table.files_of(raw, section, suffix)


INTERNAL = re.compile(
    r"Catalog Error|Binder Error|Parser Error|INTERNAL|Traceback|Conversion Error|Invalid Input Error"
)


def fuzz_command(rng: random.Random, folder: Path) -> None:
    place = emptied(folder / "place")
    raw = emptied(place / "raw")
    source = rng.choice(("kuaicomt", "microlens", "youtube", "table"))
    args = [source, str(raw), str(place / "out")]
    if source == "table":
        (raw / "map.yaml").write_text(yaml.safe_dump(mapping_of(rng, raw), allow_unicode=True), encoding="utf-8")
        args += ["--mapping", str(raw / "map.yaml")]
    elif source == "kuaicomt":
        kuaicomt_files(rng, raw)
        args += ["--positive", rng.choice(POSITIVE[:3])]
    else:
        (microlens_files if source == "microlens" else youtube_files)(rng, raw)
    args += ["--on-error", rng.choice(("skip", "skip", "skip", "fail"))]
    if rng.random() < 0.3:
        args += ["--repeat", "all"]
    if rng.random() < 0.2:
        args += ["--min-user-inter", "2", "--min-item-inter", "1"]
    before = sorted(path.relative_to(place) for path in place.rglob("*"))
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = command(args)
    assert not INTERNAL.search(errors.getvalue()), f"an error of the machinery: {errors.getvalue()[-300:]}"
    if status:
        assert status == 2 and errors.getvalue().strip(), f"status {status}: {errors.getvalue()!r}"
        assert sorted(path.relative_to(place) for path in place.rglob("*")) == before, "something was written"
    else:
        violations = check(place / "out")
        assert not violations, f"unsound: {[str(violation) for violation in violations]}"


def fuzz_check(rng: random.Random, folder: Path) -> None:
    sound = folder / "sound" / "d"
    if not sound.exists():
        with contextlib.redirect_stdout(io.StringIO()):
            assert command(["sample", str(sound), "--users", "3", "--videos", "20", "--comments", "25"]) == 0
        (sound / "d.oracle.npz").unlink(missing_ok=True)
    shutil.rmtree(folder / "d", ignore_errors=True)
    shutil.copytree(sound, folder / "d")
    path = rng.choice(
        sorted(
            path
            for path in (folder / "d").iterdir()
            if path.suffix in (".inter", ".item", ".cinter", ".comment", ".json", ".yaml")
        )
    )
    content = path.read_bytes()
    if path.suffix == ".yaml" and rng.random() < 0.7:
        at = rng.choice([found.end() for found in re.finditer(rb": ?|\n|^", content)])
        path.write_bytes(content[:at] + rng.choice(YAML_PIECES) + content[at:])
    elif path.suffix == ".json" and rng.random() < 0.3:
        meta = json.loads(content)
        meta["files"] = rng.choice(
            (json_value(rng), {"": "x"}, [[1, 2]], {"\0": "", "../d": ""}, [["a", 1], [None, 2]])
        )
        path.write_text(json.dumps(meta))
    else:
        path.write_bytes(deepened(rng, mutated(rng, content, 2)))
    violations = check(folder / "d")
    if path.suffix not in (".json", ".yaml"):
        assert violations or path.read_bytes() == content, "a change that is not noticed"


READERS: dict[str, tuple[float, Callable[[random.Random, Path], None]]] = {  # share of the time
    "csv": (3, fuzz_csv),
    "tsv": (1, lambda rng, folder: fuzz_csv(rng, folder, separator="\t")),
    "headless": (1, lambda rng, folder: fuzz_csv(rng, folder, separator=";", headless=True)),
    "unquoted": (1, lambda rng, folder: fuzz_csv(rng, folder, separator="|", quoted=False)),
    "jsonl": (2, fuzz_jsonl),
    "document": (1, fuzz_document),
    "gzip": (1, fuzz_packed),
    "zstd": (1, lambda rng, folder: fuzz_packed(rng, folder, zstd=True)),
    "parquet": (2, fuzz_parquet),
    "rules": (2, fuzz_rules),
    "kuaicomt": (2, fuzz_kuaicomt),
    "microlens": (1, fuzz_microlens),
    "youtube": (2, fuzz_youtube),
    "table": (3, fuzz_table),
    "mapping": (1, fuzz_mapping),
    "command": (3, fuzz_command),
    "check": (2, fuzz_check),
}

# ---------------------------------------------------------------------- one input, and many


def run_one(name: str, seed: int, number: int, folder: Path) -> tuple[str, str] | None:
    """Run an input; its finding, as a signature and a text."""
    rng = random.Random(f"{seed}/{name}/{number}")
    began = time.process_time()
    try:
        READERS[name][1](rng, folder)
    except (DataToolError, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            raise
    except BaseException as error:  # noqa: BLE001 - a panic of Polars is no Exception
        places = [frame for frame in traceback.extract_tb(error.__traceback__) if "dataset_tools" in frame.filename]
        what = type(error).__name__
        if isinstance(error, AssertionError):
            where = re.split(r"[:\[{/]", str(error))[0] or traceback.extract_tb(error.__traceback__)[-1].line or ""
        else:
            where = f"{Path(places[-1].filename).name}, {places[-1].name}" if places else "fuzz_readers.py"
        return f"{what}: {where}", traceback.format_exc(limit=-6)
    used = time.process_time() - began
    return (f"slow: {name}", f"{used:.1f} s of processor") if used > HANG else None


def work(name: str, seed: int, number: Any, ready: Any, until: float, last: int, send: Any) -> None:
    """Inputs one after the other, in a process of their own; `number` says which one is at work, once `ready`."""
    ready.value = True
    with open(os.devnull, "w") as null, tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.dup2(null.fileno(), 2)  # what Polars says of its panics
        sys.stderr = null
        while number.value < last and time.monotonic() < until:
            finding = run_one(name, seed, number.value, Path(folder))
            if finding:
                send.send((number.value, *finding))
            number.value += 1


def fuzz(name: str, seed: int, first: int, last: int, seconds: float) -> dict[str, Any]:
    """Fuzz one reader; inputs, seconds, the number that comes next, and the findings by signature."""
    context = multiprocessing.get_context("spawn")
    began, findings = time.monotonic(), {}
    number = context.Value("q", first, lock=False)

    def note(at: int, what: str, text: str) -> None:
        known = findings.setdefault(what, {"times": 0, "input": at, "text": text[-1500:]})
        known["times"] += 1
        if known["times"] == 1:
            print(f"{name} {at}: {what}\n{text}", flush=True)

    while number.value < last and time.monotonic() < began + seconds:
        receive, send = context.Pipe(duplex=False)
        ready = context.Value("b", False, lock=False)
        process = context.Process(
            target=work, args=(name, seed, number, ready, began + seconds, last, send), daemon=True
        )
        process.start()
        send.close()
        at, since, killed = number.value, time.monotonic(), False
        while process.is_alive():
            with contextlib.suppress(EOFError):
                while receive.poll(0.2):
                    note(*receive.recv())
            if number.value != at or not ready.value:
                at, since = number.value, time.monotonic()
            if time.monotonic() - since > _KILL:
                process.kill()
                killed = True
        process.join()
        with contextlib.suppress(EOFError):
            while receive.poll():
                note(*receive.recv())
        if process.exitcode:
            note(number.value, f"hang: {name}" if killed else f"crash: {name}", f"exit status {process.exitcode}")
            number.value += 1
    return {
        "inputs": number.value - first,
        "seconds": round(time.monotonic() - began, 1),
        "next": number.value,
        "findings": {
            what: {"times": known["times"], "input": known["input"]} for what, known in sorted(findings.items())
        },
    }


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=(*READERS, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each reader")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="at most so many of each reader")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all readers together")
    parser.add_argument("--output", type=Path, help="result file; counts of an earlier run with this seed are added to")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parsed(argv)
    names = list(READERS) if options.reader == "all" else [options.reader]
    if options.inputs == 1:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            for name in names:
                print(name, *(run_one(name, options.seed, options.first, Path(folder)) or ["nothing"]), sep="\n")
        return 0
    earlier: dict[str, Any] = {}
    if options.output and options.output.exists():
        result = json.loads(options.output.read_text(encoding="utf-8"))
        earlier = result["readers"] if result["seed"] == options.seed else {}
    total, readers = sum(READERS[name][0] for name in names), dict(earlier)
    for name in names:
        before = earlier.get(name, {"inputs": 0, "seconds": 0.0, "next": options.first, "findings": {}})
        first = before["next"]
        got = fuzz(name, options.seed, first, first + options.inputs, options.seconds * READERS[name][0] / total)
        got["inputs"] += before["inputs"]
        got["seconds"] = round(got["seconds"] + before["seconds"], 1)
        got["findings"] = {**before["findings"], **got["findings"]}
        readers[name] = got
        print(
            f"{name}: {got['inputs']:,} inputs in {got['seconds']:,.0f} s, {len(got['findings'])} findings", flush=True
        )
        if options.output:
            every = {"inputs": sum(one["inputs"] for one in readers.values())}
            write_json(options.output, {"seed": options.seed, **every, "readers": readers})
    return 1 if any(one["findings"] for one in readers.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
