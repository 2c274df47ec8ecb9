"""Conversions that are interrupted, killed, doubled or short of space: the same data in the end, or one message."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from interruptions import KILLED, WORK, Interrupting, interrupt
from kuaicomt_files import put, thousand
from slow_conversion import as_text, kuaicomt, same, written

from dataset_tools import database, engine, reading
from dataset_tools.__main__ import main
from dataset_tools.blocks import read_blocks
from dataset_tools.stage import Stage

BLOCK = 30_000  # bytes: three blocks of impressions, two of comments


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("stage") / "raw", thousand())


@pytest.fixture(scope="module")
def undisturbed(raw: Path) -> dict[str, bytes]:
    """The folder that a conversion makes which nothing disturbs."""
    out = raw.parent / "x"
    assert main(["kuaicomt", str(raw), str(out)]) == 0
    assert same(written(out), as_text(kuaicomt(raw)))
    return content(out)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def convert(raw: Path, parent: Path, *options: str) -> dict[str, bytes]:
    """Convert, and look that nothing else is left."""
    assert main(["kuaicomt", str(raw), str(parent / "x"), *options]) == 0
    assert [path.name for path in parent.iterdir() if path != raw] == ["x"]
    return content(parent / "x")


@pytest.fixture(autouse=True)
def every_block_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_ENOUGH", 1)


READER = Interrupting("read_blocks", BLOCK)


def test_a_conversion_goes_on_after_every_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, undisturbed: dict[str, bytes]
) -> None:
    every = READER.use(monkeypatch)
    assert convert(raw, tmp_path) == undisturbed
    assert every.given >= 9 and every.lines == [1] * 5
    begun = set()
    for after in range(1, every.given + 1):
        shutil.rmtree(tmp_path / "x")
        again = interrupt(monkeypatch, READER, after, "kuaicomt", str(raw), str(tmp_path / "x"))
        assert convert(raw, tmp_path) == undisturbed
        begun |= set(again.lines)
        assert len(again.lines) < 5 or again.lines[0] > 1 or after < 3
    assert len(begun) >= 5  # most of them in the middle of a file


def test_interrupted_twice_and_with_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = thousand()
    for place in (0, 300, 900):
        files["user_video_inter"][place]["is_like"] = "x"
        files["user_comment_inter"][place] |= {"is_like": 1, "time_stamp": "never"}
        files["comment_features"][place]["comment_id"] = "NA"
    raw = put(tmp_path / "raw", files)
    expected = convert(raw, tmp_path, "--on-error", "skip")
    told = capsys.readouterr().err
    for name in ("malformed number in is_like", "malformed number in .cinter", "comment_id that is empty"):
        assert f"3 × {name}" in told
    shutil.rmtree(tmp_path / "x")
    for after in (4, 3, 2):
        interrupt(monkeypatch, READER, after, "kuaicomt", str(raw), str(tmp_path / "x"))
    capsys.readouterr()
    assert convert(raw, tmp_path, "--on-error", "skip") == expected
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("change", ["longer", "newer", "rule", "source"])
def test_another_job_starts_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, change: str) -> None:
    mine = shutil.copytree(raw, tmp_path / "raw")
    again = interrupt(monkeypatch, READER, 8, "kuaicomt", str(mine), str(tmp_path / "x"))
    options = ["--positive", "long_view"] if change == "rule" else []
    path = mine / "user_video_inter.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "longer":
        path.write_bytes(b"".join([*lines, lines[1]]))
    if change == "newer":  # as many bytes, other users
        path.write_bytes(b"".join([lines[0], *lines[:500:-1], *lines[1:501]]).replace(b"\n1001,", b"\n1002,"))
        os.utime(path, ns=(1, os.stat(path).st_mtime_ns + 1))
    if change == "source":
        (mine / "user_features.csv").unlink()
    got = convert(mine, tmp_path, *options)
    assert again.lines == [1] * (4 if change == "source" else 5)
    rules: dict[str, Any] = {"positive": lambda row: row["long_view"] == "1"} if change == "rule" else {}
    assert same(written(tmp_path / "x"), as_text(kuaicomt(mine, **rules)))
    monkeypatch.undo()
    (tmp_path / "fresh").mkdir()
    assert got == convert(mine, tmp_path / "fresh", *options)


@pytest.mark.parametrize("options", [["--repeat", "all"], ["--min-user-inter", "999"]])
def test_choices_made_after_reading_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, undisturbed: dict[str, bytes], options: list[str]
) -> None:
    again = interrupt(monkeypatch, READER, 8, "kuaicomt", str(raw), str(tmp_path / "x"), *options)
    assert convert(raw, tmp_path) == undisturbed and len(again.lines) < 5


# ------------------------------------------------------------------ stopped after reading


RUN = engine.Engine.run


class StoppingAt:
    """`Engine.run` with Ctrl-C instead of statement number `at`."""

    def __init__(self, at: int) -> None:
        self.at, self.done = at, 0

    def __call__(self, one: engine.Engine, sql: str, *parameters: object) -> Any:
        self.done += 1
        if self.done == self.at:
            raise KeyboardInterrupt
        return RUN(one, sql, *parameters)


def test_a_conversion_goes_on_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, undisturbed: dict[str, bytes]
) -> None:
    stopping = StoppingAt(-1)
    monkeypatch.setattr(engine.Engine, "run", lambda *given: stopping(*given))
    assert convert(raw, tmp_path) == undisturbed
    total = stopping.done
    assert total > 60
    for at in range(2, total + 1, 15):
        shutil.rmtree(tmp_path / "x")
        stopping = StoppingAt(at)
        assert main(["kuaicomt", str(raw), str(tmp_path / "x")]) == 130
        assert [path.name for path in tmp_path.iterdir()] == [WORK]
        assert convert(raw, tmp_path) == undisturbed


def test_a_stopped_k_core_hides_no_author_of_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "m_pairs.csv").write_text(
        "user,item,timestamp\na,1,1700000000\na,2,1700000001\nb,1,1700000002\n"
    )
    (tmp_path / "raw" / "m_titles.csv").write_text("item,title\n1,One\n2,Two\n")
    (tmp_path / "raw" / "m_comment_en.txt").write_text("a\t1\tfine\nb\t1\tgood\n")
    command = ["microlens", str(tmp_path / "raw"), str(tmp_path / "x"), "--repeat", "all"]
    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "table", interrupted)
        assert main([*command, "--min-user-inter", "2"]) == 130
    assert main(command) == 0
    assert [row[3] for row in written(tmp_path / "x")["comment"][1:]] == ["a", "b"]


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("after", [2, 17, 40, 66, 76, 90])  # the last ones while the data set is written
def test_a_killed_conversion_goes_on(tmp_path: Path, raw: Path, undisturbed: dict[str, bytes], after: int) -> None:
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(after),
        "read_blocks",
        str(BLOCK),
        "kuaicomt",
        str(raw),
        str(tmp_path / "x"),
    ]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (tmp_path / "x").exists() and (tmp_path / WORK).exists()
    assert convert(raw, tmp_path) == undisturbed


# ------------------------------------------------------------------ two at once, too little space


def test_two_at_once_is_one_message(
    tmp_path: Path, raw: Path, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    with Stage(tmp_path / WORK, {}):
        assert main(["kuaicomt", str(raw), str(tmp_path / "x")]) == 2
        said = capsys.readouterr().err
        assert said == (
            f"lsvcr-data kuaicomt: another process is converting in {tmp_path / WORK}; wait for it, or stop it (where"
            " none is, the file system cannot lock: name another folder with --temp)\n"
        )
        assert list((tmp_path / WORK).iterdir()) == []
    assert convert(raw, tmp_path) == undisturbed


def test_no_room_to_sort_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connect = duckdb.connect

    def cramped(path: str, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        return connect(path, config={**config, "memory_limit": "1MB", "max_temp_directory_size": "1KB"})

    monkeypatch.setattr(database.duckdb, "connect", cramped)
    assert main(["kuaicomt", str(raw), str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lsvcr-data kuaicomt: the conversion stopped, nothing was written: Out of Memory Error: ")
    assert (
        said.count("\n") == 1 and f"(temporary files in {tmp_path}: free space there, name another folder with" in said
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [10_000, 30_000])  # bytes; a part has some 11,000, .comment some 40,000
def test_a_full_disk_is_one_message(
    tmp_path: Path, raw: Path, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    assert undisturbed["x.comment"][30_000:] and not undisturbed["x.inter"][30_000:]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert main(["kuaicomt", str(raw), str(tmp_path / "x")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert said.startswith("lsvcr-data kuaicomt: ") and "too large" in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ what must not matter


def in_blocks(size: int) -> Callable[[pytest.MonkeyPatch], list[str]]:
    def arrange(patch: pytest.MonkeyPatch) -> list[str]:
        patch.setattr(reading, "read_blocks", partial(read_blocks, block_bytes=size))
        patch.setattr(engine, "_ROWS_PER_BLOCK", size // 100)
        return []

    return arrange


def on_processors(count: int) -> Callable[[pytest.MonkeyPatch], list[str]]:
    def arrange(patch: pytest.MonkeyPatch) -> list[str]:
        patch.setattr(database.os, "cpu_count", lambda: count)
        return []

    return arrange


WAYS: dict[str, Callable[[pytest.MonkeyPatch], list[str]]] = {
    "blocks of 2,000 bytes": in_blocks(2000),
    "blocks of 20,011 bytes": in_blocks(20_011),
    "little memory": lambda patch: ["--memory", "0.25"],
    "one processor": on_processors(1),
    "seven processors": on_processors(7),
    "another temporary folder": lambda patch: ["--temp", "TEMP"],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_data_do_not_depend_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, undisturbed: dict[str, bytes], way: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    options = [str(temporary) if option == "TEMP" else option for option in WAYS[way](monkeypatch)]
    (tmp_path / "out").mkdir()
    assert convert(raw, tmp_path / "out", *options) == undisturbed
    assert list(temporary.iterdir()) == []


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(monkeypatch, READER, 3, "kuaicomt", str(raw), str(tmp_path / "x"))
    assert capsys.readouterr().err == (
        "lsvcr-data kuaicomt: interrupted, nothing was written; the same command goes on where it stopped, by"
        f" {tmp_path / WORK}\n"
    )


def test_data_sets_of_one_name_share_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Path, undisturbed: dict[str, bytes]
) -> None:
    temporary = ["--temp", str(tmp_path / "temporary" / "mine")]
    for parent in ("a", "b"):
        READER.use(monkeypatch, 4)
        assert main(["kuaicomt", str(raw), str(tmp_path / parent / "x"), *temporary]) == 130
    assert len(list((tmp_path / "temporary" / "mine").iterdir())) == 2
    for parent in ("a", "b"):
        again = READER.use(monkeypatch)
        assert main(["kuaicomt", str(raw), str(tmp_path / parent / "x"), *temporary]) == 0
        assert again.lines[0] > 1 and content(tmp_path / parent / "x") == undisturbed
    assert list((tmp_path / "temporary" / "mine").iterdir()) == []


def test_a_run_that_fails_leaves_no_folder_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = thousand()
    files["comment_features"][5]["comment_id"] = "NA"
    raw = put(tmp_path / "raw", files)
    for out in (tmp_path / "new" / "newer" / "x", tmp_path / "x"):
        assert main(["kuaicomt", str(raw), str(out), "--temp", str(tmp_path / "t" / "u")]) == 2
    assert "1 × comment_id that is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
