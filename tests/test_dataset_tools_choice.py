"""Rows chosen while a raw file is read: as if chosen after it; and the thread that reads a block ahead."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_tools.ahead import ahead
from dataset_tools.blocks import Block, Choice, Position, read_blocks
from dataset_tools.problems import Problems
from dataset_tools.reading import _together
from dataset_tools.rules import numbers_of

CELL = st.sampled_from(["0", "1", "2", "x", "", "a,b", 'say "hi"', "two\nlines", "x^", "評", "\ufeff", "\r"])
ROWS = st.lists(st.tuples(CELL, CELL, st.sampled_from(["0", "1", "?"])), min_size=1, max_size=12)


def accepts(rows: pl.DataFrame, problems: Problems) -> pl.Series:
    """1 is wanted, 0 is not, anything else is a fault."""
    problems.add_rows("odd flag", rows.filter(~pl.col("flag").is_in(["0", "1"])), ["flag"])
    return rows["flag"].replace_strict({"0": False, "1": True}, default=None, return_dtype=pl.Boolean)


def as_csv(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("a", "b", "flag"), *rows])
    return text.getvalue().encode()


def as_lines(rows: list[tuple[str, ...]]) -> bytes:
    return b"".join(json.dumps(dict(zip(["a", "b", "flag"], row, strict=True))).encode() + b"\n" for row in rows)


def write(folder: Path, kind: str, rows: list[tuple[str, ...]]) -> Path:
    path = folder / f"t.{kind}"
    if kind == "parquet":
        pl.DataFrame(rows, schema=["a", "b", "flag"], orient="row").write_parquet(path)
    elif kind == "json":
        path.write_bytes(json.dumps([dict(zip(["a", "b", "flag"], row, strict=True)) for row in rows]).encode())
    else:
        content = (as_lines if "jsonl" in kind else as_csv)(rows)
        path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    return path


def rows_of(blocks: list[Block]) -> list[Any]:
    return [row for block in blocks for row in block.frame.select("a", "b", "flag", "_line").rows()]


def read(path: Path, size: int, **options: Any) -> tuple[list[Any], int, dict[str, int], list[Block]]:
    problems = Problems()
    blocks = list(read_blocks(path, ["b", "flag", "a"], problems, block_bytes=size, choice=CHOICE, **options))
    return rows_of(blocks), sum(block.left_out for block in blocks), problems.totals(), blocks


CHOICE = Choice(["flag"], accepts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("choice")


@settings(deadline=None, max_examples=60)
@given(
    rows=ROWS,
    size=st.sampled_from([1, 40, 1 << 20]),
    kind=st.sampled_from(["csv", "csv.gz", "jsonl", "json", "parquet"]),
)
def test_chosen_while_reading_is_chosen_after_it(folder: Path, rows: list[Any], size: int, kind: str) -> None:
    path = write(folder, kind, rows)
    problems = Problems()
    every = [
        row
        for block in read_blocks(path, ["a", "b", "flag"], problems, block_bytes=size)
        for row in block.frame.drop("_file").rows()
    ]
    assert len(every) == len(rows) and not problems.totals()
    got, left_out, faults, blocks = read(path, size)
    assert got == [row for row in every if row[2] == "1"]
    assert left_out == sum(row[2] == "0" for row in every)
    odd = sum(row[2] == "?" for row in every)
    assert faults == ({"odd flag": odd} if odd else {})
    for number, block in enumerate(blocks):
        after = read(path, size, start=block.position)
        assert after[0] == [
            row for later in blocks[number + 1 :] for row in later.frame.select("a", "b", "flag", "_line").rows()
        ]
        assert after[1] == sum(later.left_out for later in blocks[number + 1 :])


def test_faulty_rows_are_told_once_with_their_line(tmp_path: Path) -> None:
    plain = b"a,b,flag\nx,y,1\nx,y,?\nx,y,0\nx^,y,1\n"
    for content in (plain, plain.replace(b"x^", b'"x^"'), plain.replace(b"\n", b"\r\n")):
        (tmp_path / "t.csv").write_bytes(content)
        problems = Problems()
        (block,) = read_blocks(tmp_path / "t.csv", ["a", "flag"], problems, choice=CHOICE)
        assert block.frame.rows() == [("x", "1", 0, 2), ("x^", "1", 0, 5)] and block.left_out == 1
        (fault,) = problems.violations()
        assert (fault.kind, fault.count, fault.first) == ("odd flag", 1, ("line 3: flag='?'",))


def test_a_block_of_which_nothing_is_left_still_moves_on(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b,flag\n" + b"x,y,0\n" * 30)
    rows, left_out, _, blocks = read(tmp_path / "t.csv", 12)
    assert rows == [] and left_out == 30 and len(blocks) > 5
    assert blocks[-1].position == Position(9 + 180, 32)


NUMBER = st.one_of(
    st.sampled_from(
        ["", " ", "5.", ".5", "+5", " 5", "5 ", "1e5", "0x1", "1_0", "inf", "NaN", "1e400", "1e-400", "-0", "NA"]
    ),
    st.text("0123456789+-.eE_ \u00a0x", max_size=6),
    st.floats().map(repr),
    st.integers(-(2**63), 2**63).map(str),
)


@settings(deadline=None, max_examples=150)
@given(values=st.lists(NUMBER, min_size=1, max_size=4))
def test_a_rule_over_numbers_sees_them_however_they_are_read(folder: Path, values: list[str]) -> None:
    """Numbers of a block are read by Polars' CSV reader where all are finite, one by one from text elsewhere."""
    found = []
    for quoted in (False, True):  # a quoted row has the block read as text
        text = "".join(f"x,{value}\n" for value in values) + ('"x",1\n' if quoted else "")
        (folder / "n.csv").write_text("a,flag\n" + text)
        problems = Problems()
        seen: list[float | None] = []

        def accepts(rows: pl.DataFrame, problems: Problems, seen: list[float | None] = seen) -> pl.Series:
            numbers, sound = numbers_of(rows, ["flag"], problems)
            seen += [number if good else None for number, good in zip(numbers["flag"], sound, strict=True)]
            return pl.select(pl.when(sound).then(numbers["flag"] > 0)).to_series()

        choice = Choice(["flag"], accepts, numbers=True)
        blocks = list(read_blocks(folder / "n.csv", ["a", "flag"], problems, choice=choice))
        kept = [row for block in blocks for row in block.frame.rows()]
        found.append((seen[: len(values)], kept[: len(kept) - quoted], problems.totals()))
    assert found[0] == found[1]


# ------------------------------------------------------------------ small blocks together


def test_small_blocks_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset_tools.reading._ENOUGH", 10)
    monkeypatch.setattr("dataset_tools.reading._MOST_PARTS", 4)

    def blocks() -> Iterator[Block]:
        for number, height in enumerate([4, 4, 4, 12, 0, 0, 0, 0, 3]):
            frame = pl.DataFrame({"a": [str(number)] * height}, schema={"a": pl.String})
            yield Block(frame if number != 2 else frame.select(pl.concat_list("a")), Position(number, number), number)

    got = list(_together(blocks()))
    assert [block.frame.height for block in got] == [8, 4, 12, 0, 3]
    assert [block.position.offset for block in got] == [1, 2, 3, 7, 8]
    assert [block.left_out for block in got] == [1, 2, 3, 22, 8]


# ------------------------------------------------------------------ one ahead


def test_items_come_in_order_and_one_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    came = []
    for item in ahead(items()):
        came.append(item)
        time.sleep(0.02)
        assert len(made) <= len(came) + 1
    assert came == made == [0, 1, 2, 3, 4]
    assert list(ahead([])) == [] and list(ahead([None])) == [None]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_at_its_place(error: type[BaseException]) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error("three")

    came = []
    with pytest.raises(error, match="three"):
        for item in ahead(items()):
            came.append(item)
    assert came == [1, 2]


def test_leaving_early_closes_what_is_read() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    coming = ahead(items())
    assert next(coming) == 0
    coming.close()  # type: ignore[attr-defined]
    assert closed.is_set() and not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
