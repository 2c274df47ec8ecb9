"""Raw files block by block: what Python's csv module says of the same bytes, exact lines, faults, cuts and restarts."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from benchmark_scripts import load
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_tools import blocks as blocks_module
from dataset_tools import delimited, dialect, json_values
from dataset_tools.blocks import Block, Position, columns_of, read_blocks
from dataset_tools.errors import DataToolError
from dataset_tools.problems import Problems

SIZES = (1, 7, 64, 1 << 20)
Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


def read(path: Path, columns: list[str], **options: Any) -> tuple[list[Row], dict[str, tuple[str, ...]], list[Block]]:
    """Rows with their line at the end, the first places of every kind of fault, and the blocks."""
    problems = Problems()
    blocks = list(read_blocks(path, columns, problems, **options))
    rows = [row for block in blocks for row in block.frame.drop("_file").rows()]
    assert all(block.frame.height for block in blocks)
    assert all(block.frame["_file"].unique().to_list() == [0] for block in blocks)
    return rows, {fault.kind: fault.first for fault in problems.violations()}, blocks


def read_bytes(folder: Path, content: bytes, columns: list[str], name: str = "t.csv", **options: Any) -> Any:
    (folder / name).write_bytes(content)
    return read(folder / name, columns, **options)


SPECIAL = st.sampled_from(
    ["", '"', '""', "\n", "\r", "\r\n", ",", "\t", ";", "|", "\0", "\ufeff", "x^", " ", "評", "😀"]
)
TEXT = st.lists(st.one_of(SPECIAL, st.text(st.characters(exclude_categories=["Cs"]), max_size=3)), max_size=4).map(
    "".join
)
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1))


@settings(deadline=None, max_examples=100)
@given(table=TABLES, separator=st.sampled_from(",\t;|"), crlf=st.booleans(), size=st.sampled_from(SIZES))
@example(table=[["\ufeff"], ["x^"]], separator=",", crlf=False, size=1)
@example(table=[["", ""], ["\r", "\r\n"]], separator=",", crlf=True, size=7)
def test_any_table_is_what_was_written(
    folder: Path, table: list[list[str]], separator: str, crlf: bool, size: int
) -> None:
    names = [f"c{number}" for number in range(len(table[0]))]
    content = io.StringIO(newline="")
    writer = csv.writer(
        content,
        delimiter=separator,
        lineterminator="\r\n" if crlf else "\n",
        quoting=csv.QUOTE_MINIMAL if crlf else csv.QUOTE_ALL,  # it does not quote a carriage return before "\n"
    )
    expected = []
    writer.writerow(names)
    for row in table:
        expected.append((*row[::-1], 1 + content.getvalue().count("\n")))
        writer.writerow(row)
    options = {"separator": separator, "block_bytes": size}
    rows, faults, blocks = read_bytes(folder, content.getvalue().encode(), names[::-1], **options)
    assert (rows, faults) == (expected, {})
    for number, block in enumerate(blocks):
        start = Position(**json.loads(json.dumps(dataclasses.asdict(block.position))))
        again, _, _ = read(folder / "t.csv", names[::-1], start=start, separator=separator, block_bytes=10)
        assert again == expected[sum(block.frame.height for block in blocks[: number + 1]) :]


@settings(deadline=None, max_examples=400)
@given(parts=st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\xff", b"\xc3", b"\xa9", b"\0"]), max_size=40))
@example(parts=[b'a,he said "hi"\n', b'b,"x"y\nc,d\n"e\n",f\n'])
@example(parts=[b'a,5" disk\nb,c\nd,e\n'])
@example(parts=[b'"a\n"b\n,\n"'])
def test_any_bytes_are_read_as_the_csv_module_does_or_reported(folder: Path, parts: list[bytes]) -> None:
    content = b"".join(parts)
    expected, faults = load("fuzz_readers").slow_csv(content, ",", 2, 2, quoted=True)
    (folder / "t.csv").write_bytes(b"a,b\n" + content)
    for size, exact in zip((*SIZES, 1 << 20), (4, 4, 4, 4, 4 << 20), strict=True):
        problems = Problems()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delimited, "_EXACT", exact)
            blocks = list(read_blocks(folder / "t.csv", ["a", "b"], problems, block_bytes=size))
        assert [row for block in blocks for row in block.frame.drop("_file").rows()] == expected
        assert sum(problems.totals().values()) == faults


def test_a_cut_at_any_byte_gives_whole_rows_and_is_noticed(folder: Path) -> None:
    whole = 'a,b\r\n1,"x ""y""\r\nz"\r\n\r\n評,😀\r\n"",\r\n'.encode()
    rows, faults, _ = read_bytes(folder, whole, ["a", "b"])
    assert rows == [("1", 'x "y"\r\nz', 2), ("評", "😀", 5), ("", "", 6)]
    assert faults == {}
    ends = {end for end in range(len(whole)) if whole[:end].endswith(b"\n") and whole[:end].count(b"\n") != 2}
    for end in range(len(whole)):
        for size in (7, 1 << 20):
            try:
                part, faults, _ = read_bytes(folder, whole[:end], ["a", "b"], block_bytes=size)
            except DataToolError:
                assert end < 3  # the header is not whole
                continue
            assert part == rows[: len(part)]
            assert bool(faults) == (end not in ends)


FAULTY = b'a,b\n1,2\n"x\ny",3\n\n5\n6,7,8\nhe "hi",z\n"q"r,3\n\xff,1\n\x00,\r\nl\rm,"n\r"\n9,9'


@pytest.mark.parametrize("size", SIZES)
def test_faulty_rows_are_left_out_and_reported_with_their_line(folder: Path, size: int) -> None:
    rows, faults, _ = read_bytes(folder, FAULTY, ["b", "a"], block_bytes=size)
    assert rows == [("2", "1", 2), ("3", "x\ny", 3), ("z", 'he "hi"', 8), ("", "\0", 11), ("n\r", "l\rm", 12)]
    assert faults == {
        delimited.WIDTH: ("line 6: 1 field, 2 expected", "line 7: 3 fields, 2 expected"),
        delimited.QUOTING: ("line 9: ',' expected after '\"'",),
        "bytes that are not UTF-8": ("line 10: invalid start byte at byte 0",),
        delimited.NO_BREAK: ("line 13",),
    }


@pytest.mark.parametrize("size", SIZES)
def test_faulty_rows_between_quoted_ones(folder: Path, size: int) -> None:
    content = b'a,b\n"1\n","2,"\n"3"\n"4\xc3","5"\n"6",7\r\n"8","9\n'
    rows, faults, _ = read_bytes(folder, content, ["a", "b"], block_bytes=size)
    assert rows == [("1\n", "2,", 2), ("6", "7", 6)]
    assert faults == {
        delimited.WIDTH: ("line 4: 1 field, 2 expected",),
        "bytes that are not UTF-8": ("line 5: invalid continuation byte at byte 2",),
        delimited.UNCLOSED: ("line 7: line 7 to the end of the file are left out",),
    }


def test_many_rows_that_are_not_utf8(folder: Path) -> None:
    content = b"a\n" + b"".join(b"%d%s\n" % (number, b"\xe9" * (number % 3 == 0)) for number in range(60_000))
    rows, faults, _ = read_bytes(folder, content, ["a"])
    assert rows == [(str(number), number + 2) for number in range(60_000) if number % 3]
    assert faults["bytes that are not UTF-8"][1] == "line 5: unexpected end of data at byte 1"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'a,b\n1,2\n"x\ny","z\n' + b"1,2\n" * 100, 4),  # never closed
        (b'a,b\n1,2\n3,"' + b"\n" * 150 + b'"\n1,2\n', 3),
        (b"a,b\n1,2\n3," + b"4" * 150 + b"\n1,2\n", 3),
        (b'a,b\n1,2\n5" disk,"' + b"\n" * 150 + b'"\n1,2\n', 3),
        (b'a,b\n1,2\n5" disk,' + b"4" * 93 + b"\n1,2\n", 3),
        (b"a,b\n1,2\n3," + b"4" * 99 + b"\n1,2\n", 3),
    ],
)
def test_a_row_without_end_stops_with_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, line: int, size: int
) -> None:
    monkeypatch.setattr(delimited, "RECORD_LIMIT", 100)
    with pytest.raises(DataToolError, match=f"line {line}: a .* 100 bytes"):
        read_bytes(folder, content, ["a"], block_bytes=size)


def test_a_row_of_the_limit_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "RECORD_LIMIT", 100)
    for row in (
        b"4" * 98 + b",5\n",
        b'"' + b"\n" * 96 + b'",5\n',
        b'4"' + b"4" * 96 + b",5\n",
        b'"5",4"' + b"4" * 94 + b"\n",
    ):
        for size in SIZES:
            rows, faults, _ = read_bytes(folder, b"a,b\n" + row, ["a", "b"], block_bytes=size)
            assert len(row) == 101
            assert [("5" in row, row[2]) for row in rows] == [(True, 2)]
            assert faults == {}


def test_sound_files_do_not_need_the_csv_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited._Table, "_exact_piece", None)
    content = "a,b,c\n" + '1,"x ""評""\n,y",\r\n"","\n",3\n\n4,,5\n' * 3000
    rows, faults, blocks = read_bytes(folder, content.encode(), ["c", "b"], block_bytes=1 << 14)
    assert rows[:3] == [("", 'x "評"\n,y', 2), ("3", "\n", 4), ("5", "", 7)]
    assert rows[-1] == ("5", "", 1 + 3000 * 6)
    assert len(rows) == 9000
    assert len(blocks) > 3
    assert faults == {}


def test_marks_of_windows_and_blanks_around_names(folder: Path) -> None:
    content = b'\xef\xbb\xbf " a ; "; b \r\n1;2\r\n\r\n\xef\xbb\xbf3;4\r\n'
    (folder / "bom.txt").write_bytes(content.replace(b' " a ; "', b'" a ; "'))
    for size in SIZES:
        rows, faults, _ = read(folder / "bom.txt", ["b", "a ;"], separator=";", block_bytes=size)
        assert (rows, faults) == ([("2", "1", 2), ("4", "\ufeff3", 4)], {})
    assert columns_of(folder / "bom.txt") == ["a ;", "b"]


def test_a_header_of_two_lines(folder: Path) -> None:
    rows, _, blocks = read_bytes(folder, b'"a\nb",c\n1,2\n3,4\n', ["a\nb"], block_bytes=1)
    assert rows == [("1", 3), ("3", 4)]
    assert blocks[0].position == Position(12, 4)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_without_header(folder: Path, size: int) -> None:
    for start in (b"", b"\xef\xbb\xbf"):
        content = start + b"1,2\n3,4\n"
        rows, faults, blocks = read_bytes(folder, content, ["y"], header=["x", "y"], block_bytes=size)
        assert (rows, faults) == ([("2", 1), ("4", 2)], {})
        again, _, _ = read(folder / "t.csv", ["y"], header=["x", "y"], start=blocks[0].position)
        assert again == rows[blocks[0].frame.height :]
    assert columns_of(folder / "t.csv", header=["x", "y"]) == ["x", "y"]


def test_quotes_taken_as_text(folder: Path) -> None:
    for size in SIZES:
        content = b'a\tb\n"1\t5"\n""\t"\n'
        rows, faults, _ = read_bytes(folder, content, ["a", "b"], quoted=False, block_bytes=size)
        assert (rows, faults) == ([('"1', '5"', 2), ('""', '"', 3)], {})


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "is empty"),
        (b"\n1,2\n", {}, "line 1 is empty"),
        (b"a,b,a\n", {}, "names a more than once"),
        (b"1,2\n", {"header": ["a", "a"]}, "names a more than once"),
        (b"x,y\n1,2\n", {}, "has no column a; it has x, y"),
        (b"a,b", {"separator": "::"}, "separator is '::'"),
        (b"a,b", {"separator": '"'}, "separator is '\"'"),
        (b'a,"b\n1,2\n', {}, "line 1: a quote is opened"),
        (b"a" * 200, {}, "line 1 has no end"),
        (b'"a' + b"\n" * 200, {}, "line 1 has no end"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:12], {}, "gzip stream that is damaged"),
    ],
)
def test_files_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(dialect, "RECORD_LIMIT", 100)
    with pytest.raises(DataToolError, match=re.escape(message)):
        read_bytes(folder, content, ["a"], **options)


def test_names_of_files_and_columns(folder: Path) -> None:
    with pytest.raises(DataToolError, match="does not exist"):
        columns_of(folder / "none.csv")
    with pytest.raises(DataToolError, match="unknown ending"):
        read_bytes(folder, b"", ["a"], name="t.xlsx")
    with pytest.raises(DataToolError, match="_line is taken"):
        read_bytes(folder, b"_line\n1\n", ["_line"])
    rows, faults, blocks = read_bytes(folder, b"a,,\n1,2,3\n", ["z", "a", "a"], optional=["z"])
    assert (rows, faults) == ([("1", 2)], {})
    assert blocks[0].frame.schema == {"a": pl.String, "_file": pl.UInt32, "_line": pl.UInt32}
    assert read_bytes(folder, b"a,b\n1,2\n", ["z"], optional=["z"])[0] == [(2,)]
    assert read_bytes(folder, b"a,b\n", ["a"]) == ([], {}, [])
    assert read_bytes(folder, b"a,b", ["a"])[:2] == ([], {delimited.NO_BREAK: ("line 1",)})


def test_a_file_that_is_registered_keeps_its_index(folder: Path) -> None:
    problems = Problems()
    problems.open_file("other")
    index = problems.open_file(str(folder / "t.csv"))
    (folder / "t.csv").write_bytes(b"a\n1\n2,3\n")
    (block,) = read_blocks(folder / "t.csv", ["a"], problems, file=index)
    assert block.frame["_file"].to_list() == [1]
    assert [fault.file for fault in problems.violations()] == [str(folder / "t.csv")]
    assert len(problems.files) == 2


PACKED = b"a,b\n" + b"".join(b'%d,"x\n%d"\n' % (number, number * number % 1009) for number in range(1500))


@pytest.mark.parametrize("size", (1 << 10, 1 << 20))
def test_gzip_whole_cut_and_damaged(folder: Path, size: int) -> None:
    rows, _, _ = read_bytes(folder, PACKED, ["a", "b"])
    packed = gzip.compress(PACKED[:4000]) + gzip.compress(PACKED[4000:])
    whole = read_bytes(folder, packed, ["a", "b"], name="t.csv.gz", block_bytes=size)
    assert whole[:2] == (rows, {})
    middle = whole[2][len(whole[2]) // 2].position
    again, _, _ = read(folder / "t.csv.gz", ["a", "b"], start=middle, block_bytes=size)
    assert again == rows[len(rows) - len(again) :]
    assert again == [row for row in rows if row[2] >= middle.line]
    kind = "gzip stream that is damaged or cut short"
    for cut in (packed[: len(packed) // 3], packed[: len(packed) // 2], packed[:-1]):
        part, faults, _ = read_bytes(folder, cut, ["a", "b"], name="t.csv.gz", block_bytes=size)
        assert part == rows[: len(part)]
        assert 0 < len(part) <= len(rows)
        assert list(faults) == [kind]
    bad_sum = packed[:-8] + b"\0" * 4 + packed[-4:]
    assert read_bytes(folder, bad_sum, ["a", "b"], name="t.csv.gz", block_bytes=size)[0] == rows
    assert list(read(folder / "t.csv.gz", ["a", "b"])[1]) == [kind]


def test_zstd_whole_cut_and_damaged(folder: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    pack = zstandard.ZstdCompressor().compress
    rows, _, _ = read_bytes(folder, PACKED, ["a", "b"])
    packed = pack(PACKED[:4000]) + pack(PACKED[4000:])
    assert read_bytes(folder, packed, ["a", "b"], name="t.csv.zst", block_bytes=64)[:2] == (rows, {})
    assert read_bytes(folder, pack(b"a\n" + b"0\n" * 10**6), ["a"], name="t.csv.zst")[0][-1] == ("0", 10**6 + 1)
    for cut in (packed[:-1], packed[: -len(packed) // 3], packed + b"rest", packed[:-9] + b"\xff" * 9):
        part, faults, _ = read_bytes(folder, cut, ["a", "b"], name="t.csv.zst")
        assert part == rows[: len(part)]
        assert list(faults) == ["zstd stream that is damaged or cut short"]
    part, _, _ = read_bytes(folder, pack(PACKED[:4000]) + b"rest", ["a", "b"], name="t.csv.zst")
    assert len(part) > 200


def test_zstd_without_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DataToolError, match="pip install zstandard"):
        read_bytes(folder, b"\x28\xb5\x2f\xfd\0", ["a"], name="t.csv.zst")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet"])
def test_progress_adds_up_to_the_file(folder: Path, name: str) -> None:
    rows = pl.DataFrame({"a": range(50_000)})
    if name == "t.parquet":
        rows.write_parquet(folder / name)
    else:
        text = (rows.write_ndjson() if "json" in name else rows.write_csv()).encode()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    steps: list[int] = []
    _, _, blocks = read(folder / name, ["a"], block_bytes=1 << 16, advance=steps.append)
    assert sum(steps) == (folder / name).stat().st_size
    assert min(steps) >= 0
    assert sum(step > 0 for step in steps) > 1
    steps.clear()
    read(folder / name, ["a"], start=blocks[-2].position, advance=steps.append)
    assert sum(steps) == (folder / name).stat().st_size


JSON = b"""\xef\xbb\xbf{"a": 1, "b": {"c": true}}
{"a": "x", "b": {"c": null}}

{"a": 2.5
{"a": \xff}
17
[{"a": null}, {"a": "\\ud800", "b": 3}]\r
{"b": {"c": [1, null, "y"]}}"""


@pytest.mark.parametrize("size", SIZES)
def test_json_lines(folder: Path, size: int) -> None:
    rows, faults, blocks = read_bytes(folder, JSON, ["a", "b.c"], name="t.jsonl", block_bytes=size)
    plain = [(row[0], row[1][0] if isinstance(row[1], list) and len(row[1]) == 1 else row[1], row[2]) for row in rows]
    expected = [("1", "1", 1), ("x", None, 2), (None, None, 7), ("\ufffd", None, 7), (None, ["1", "y"], 8)]
    assert plain == expected
    assert faults == {
        "text that is not JSON (is the file cut short?)": ("line 4: Expecting ',' delimiter, column 10",),
        "bytes that are not UTF-8": ("line 5: invalid start byte at byte 6",),
        "JSON that is not an object": ("line 6",),
    }
    for number, block in enumerate(blocks):
        start = Position(**json.loads(json.dumps(dataclasses.asdict(block.position))))
        again, _, _ = read(folder / "t.jsonl", ["a", "b.c"], start=start, block_bytes=size)
        assert again == rows[sum(block.frame.height for block in blocks[: number + 1]) :]
    assert len(blocks) == {1: 4, 7: 4, 64: 3, 1 << 20: 2}[size]
    assert columns_of(folder / "t.jsonl") is None


def test_json_lines_lack_a_column(folder: Path) -> None:
    lines = b'{"a": 1}\n{"b": 2}\n{"b": 3}\n'
    with pytest.raises(DataToolError, match="has no column z; it has a, b"):
        read_bytes(folder, lines, ["a", "b", "z"], name="t.jsonl", block_bytes=1)
    rows, faults, blocks = read(folder / "t.jsonl", ["a", "z"], optional=["z"], block_bytes=1)
    assert (rows, faults) == ([("1", None, 1), (None, None, 2), (None, None, 3)], {})
    for block in blocks:  # only the first line has `a`, which a later run must not take for lacking
        assert read(folder / "t.jsonl", ["a"], start=block.position)[0] == [
            (None, line) for line in range(block.position.line, 4)
        ]
    for nothing in (b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n\n"):
        assert read_bytes(folder, nothing, ["a"], name="t.jsonl") == ([], {"empty file": ()}, [])
    assert read_bytes(folder, b'[1]\n{"a', ["a"], name="t.jsonl")[:2] == (
        [],
        {
            "JSON that is not an object": ("line 1",),
            "text that is not JSON (is the file cut short?)": ("line 2: Unterminated string starting at, column 2",),
        },
    )


def test_json_lines_packed(folder: Path) -> None:
    lines = [json.dumps({"a": str(number * number % 1009)}) + "\n" for number in range(3000)]
    packed = gzip.compress("".join(lines).encode())
    expected = [(str(number * number % 1009), number + 1) for number in range(3000)]
    assert read_bytes(folder, packed, ["a"], name="t.jsonl.gz", block_bytes=64)[:2] == (expected, {})
    for size in (64, 1 << 20):
        cut = packed[: len(packed) // 2]
        rows, faults, _ = read_bytes(folder, cut, ["a"], name="t.jsonl.gz", block_bytes=size)
        assert rows == expected[: len(rows)]
        assert rows
        assert list(faults) == ["gzip stream that is damaged or cut short"]
    cut = packed[:12]
    assert list(read_bytes(folder, cut, ["a"], name="t.jsonl.gz")[1]) == ["gzip stream that is damaged or cut short"]


def test_a_json_document(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"a": number} for number in range(50)]
    content = json.dumps([*items, 7], indent=1).encode()
    problems = Problems()
    (folder / "t.json").write_bytes(b"\xef\xbb\xbf" + content)
    blocks = list(read_blocks(folder / "t.json", ["a"], problems, block_bytes=100))
    expected = [(str(number), number + 1) for number in range(50)]
    assert [row for block in blocks for row in block.frame.drop("_file").rows()] == expected
    assert problems.units == ["item"]
    assert [fault.first for fault in problems.violations()] == [("item 51",)]
    assert len(blocks) > 5
    for block in blocks:
        assert read(folder / "t.json", ["a"], start=block.position)[0] == expected[block.position.offset :]
    assert list(read_bytes(folder, content[:-2], ["a"], name="t.json")[1]) == [
        "text that is not JSON (is the file cut short?)"
    ]
    monkeypatch.setattr(json_values, "DOCUMENT_LIMIT", 100)
    with pytest.raises(DataToolError, match="one JSON document of more than 100 bytes"):
        read_bytes(folder, content, ["a"], name="t.json")
    long_line = b'{"a": 1}\n{"a": 2}\n{"a": "' + b"x" * 100 + b'"}\n{"a": 3}\n'
    for size in SIZES:
        with pytest.raises(DataToolError, match="line 3: a line of more than 100 bytes"):
            read_bytes(folder, long_line, ["a"], name="t.json", block_bytes=size)


def test_parquet_keeps_its_types(folder: Path) -> None:
    frame = pl.DataFrame(
        {"a": range(5000), "b": [["x", None]] * 5000, "c": [None, 1.5] * 2500},
        schema={"a": pl.Int32, "b": pl.List(pl.String), "c": pl.Float64},
    )
    frame.write_parquet(folder / "t[1].parquet", row_group_size=700)
    expected = [(*row[::-1], line) for line, row in enumerate(frame.rows(), start=1)]
    rows, faults, blocks = read(folder / "t[1].parquet", ["c", "b", "a", "z"], optional=["z"], block_bytes=9000)
    assert (rows, faults) == (expected, {})
    assert len(blocks) > 5
    assert max(block.frame.height for block in blocks) < 1000
    assert blocks[0].frame.schema == {
        "c": pl.Float64,
        "b": pl.List(pl.String),
        "a": pl.Int32,
        "_file": pl.UInt32,
        "_line": pl.UInt32,
    }
    for block in blocks:
        again, _, _ = read(folder / "t[1].parquet", ["c", "b", "a"], start=block.position)
        assert again == expected[block.position.offset :]
    assert columns_of(folder / "t[1].parquet") == ["a", "b", "c"]
    assert read(folder / "t[1].parquet", ["z"], optional=["z"])[0] == [(line,) for line in range(1, 5001)]
    problems = Problems()
    list(read_blocks(folder / "t[1].parquet", ["a"], problems))
    assert problems.units == ["row"]
    with pytest.raises(DataToolError, match="has no column z; it has a, b, c"):
        read(folder / "t[1].parquet", ["z"])
    with pytest.raises(DataToolError, match="cannot read"):
        read_bytes(folder, (folder / "t[1].parquet").read_bytes()[:-9], ["a"], name="t.parquet")


@pytest.mark.parametrize("separator", [None, ","])
def test_a_quote_left_open_in_the_first_line_of_a_large_file_is_found_at_once(
    folder: Path, separator: str | None
) -> None:
    began = time.process_time()
    with pytest.raises(DataToolError, match="line 1: a quote is opened that is never closed"):
        read_bytes(folder, b'"a,b\n' + b"1,2\n" * 200_000, ["b"], separator=separator)
    assert time.process_time() - began < 20


@pytest.mark.parametrize("size", SIZES)
def test_a_column_without_name_keeps_it(folder: Path, size: int) -> None:
    for field in (b"1", b'"1"', b'x"1"'):  # by Polars, and by the csv module
        rows, _, blocks = read_bytes(folder, b"a,\n1," + field + b"\n", ["", "a"], block_bytes=size)
        assert blocks[0].frame.columns == ["", "a", "_file", "_line"]
        assert rows == [(field.decode().removeprefix('"').removesuffix('"' * (field[:1] == b'"')), "1", 2)]
    _, _, blocks = read_bytes(folder, b'{"": 1}\n{"": 2}\n', [""], name="t.jsonl", block_bytes=size)
    assert blocks[0].frame.columns == ["", "_file", "_line"]


def test_a_header_of_very_many_columns(folder: Path) -> None:
    width = 60_000
    began = time.process_time()
    content = ",".join(f"c{number}" for number in range(width)) + ",,\n" + "1," * width + "2,3\n"
    rows, faults, _ = read_bytes(folder, content.encode(), ["c59999"])
    assert (rows, faults) == ([("1", 2)], {})
    rows, faults, _ = read_bytes(folder, (b"," * width + b"x\n") * 2, ["x"])
    assert (rows, faults) == ([("x", 2)], {})
    assert time.process_time() - began < 10


def test_lists_within_lists_are_text_and_nesting_has_an_end(folder: Path) -> None:
    lines = b'{"a": [["x"], "y", {"z": [1]}]}\n{"a": 1}\n'
    rows, faults, _ = read_bytes(folder, lines, ["a"], name="t.jsonl")
    assert (rows, faults) == ([(['["x"]', "y", '{"z": [1]}'], 1), (["1"], 2)], {})
    for opens, closes in ((b"[", b"]"), (b'{"a":', b"}")):
        for depth in (300, 600, *range(880, 1010), 100_000):
            deep = b'{"a": ' + opens * depth + b"1" + closes * depth + b'}\n{"a": 1}\n'
            rows, faults, _ = read_bytes(folder, deep, ["a"], name="t.jsonl")
            assert [row[-1] for row in rows] == ([1, 2] if not faults else [2])
            assert set(faults) <= {"text that is not JSON"}


def test_parquet_categories_are_text(folder: Path) -> None:
    frame = pl.DataFrame({"a": ["7", None], "b": ["x", "y"]}, schema={"a": pl.Categorical, "b": pl.Enum(["x", "y"])})
    frame.write_parquet(folder / "categories.parquet")
    rows, faults, blocks = read(folder / "categories.parquet", ["a", "b"])
    assert (rows, faults) == ([("7", "x", 1), (None, "y", 2)], {})
    assert blocks[0].frame.schema["a"] == blocks[0].frame.schema["b"] == pl.String


def test_parquet_bytes_are_text(folder: Path) -> None:
    frame = pl.DataFrame({"a": [b"x", "評".encode(), b"\xff", None], "b": [1, 2, 3, 4]})
    frame.write_parquet(folder / "bytes.parquet")
    rows, faults, blocks = read(folder / "bytes.parquet", ["a", "b"])
    assert rows == [("x", 1, 1), ("評", 2, 2), (None, 4, 4)]
    assert faults == {"bytes that are not UTF-8": ("row 3: a=b'\\xff'",)}
    assert blocks[0].frame.schema["a"] == pl.String


def test_parquet_at_whose_damage_polars_panics(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"a": [1, 2, 3]}).write_parquet(folder / "t.parquet")

    def panics(path: Path) -> pl.LazyFrame:
        raise pl.exceptions.PanicException("index out of bounds")

    with monkeypatch.context() as patch:
        patch.setattr(blocks_module, "_scan", panics)
        for reading in (lambda: read(folder / "t.parquet", ["a"]), lambda: columns_of(folder / "t.parquet")):
            with pytest.raises(DataToolError, match=r"cannot read .*index out of bounds"):
                reading()
    with monkeypatch.context() as patch:  # fewer rows than the file's end tells
        patch.setattr(pl.LazyFrame, "slice", lambda rows, first, height: pl.LazyFrame({"a": [1]}))
        with pytest.raises(DataToolError, match="fewer rows than its end says"):
            read(folder / "t.parquet", ["a"])
