"""YouTube dumps that are packed, cut or read in several goes: the same data in the end, or faults with their place."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from interruptions import KILLED, WORK, Interrupting, interrupt
from youtube_files import Rows, channel, comment, thousand, video, write_lines

from dataset_tools import json_values
from dataset_tools.__main__ import main
from dataset_tools.blocks import read_values
from dataset_tools.check import check
from dataset_tools.problems import Problems
from dataset_tools.schema import read_atomic

BLOCK = 40_000  # bytes: one block of videos, a dozen of threads


def lines_of(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstd_of(data: bytes) -> bytes:
    """Packed as by a program that writes a dump for hours: what was written so far can be unpacked."""
    pack = zstandard.ZstdCompressor().compressobj()
    pieces = [data[at : at + 5000] for at in range(0, len(data), 5000)]
    flushed = [pack.compress(piece) + pack.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for piece in pieces]
    return b"".join([*flushed, pack.flush()])


def responses_of(rows: Rows) -> bytes:
    """Pages of responses as the elements of one list."""
    return json.dumps([{"items": rows[at : at + 50]} for at in range(0, len(rows), 50)], indent=1).encode()


# How a file of resources is written: its ending, and its bytes.
FORMS: dict[str, tuple[str, Callable[[Rows], bytes]]] = {
    "lines": (".jsonl", lines_of),
    "gzip": (".jsonl.gz", lambda rows: gzip.compress(lines_of(rows))),
    "zstd": (".ndjson.zst", lambda rows: zstd_of(lines_of(rows))),
    "list": (".json", lambda rows: b"\xef\xbb\xbf" + json.dumps(rows, indent=1).encode()),
    "packed list": (".json.zst", lambda rows: zstandard.compress(json.dumps(rows, indent=1).encode())),
    "list on a line": (".json", lambda rows: json.dumps(rows).encode()),
    "responses": (".json.gz", lambda rows: gzip.compress(responses_of(rows))),
    "response lines": (".jsonl", lambda rows: lines_of([{"items": rows[:300]}, {"items": rows[300:]}])),
}


def put(folder: Path, form: str) -> Path:
    """The thousand comments in a folder, threads before videos."""
    folder.mkdir(parents=True)
    ending, written = FORMS[form]
    for name, rows in zip(("videos", "threads"), thousand(), strict=True):
        (folder / f"{name}{ending}").write_bytes(written(rows))
    return folder


def content(folder: Path) -> dict[str, Any]:
    """A data set; of its meta file all but the names of the raw files."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    meta = json.loads(files.pop(f"{folder.name}.meta.json"))
    return {**files, "meta": {name: value for name, value in meta.items() if name != "raw_files"}}


def convert(raw: Path, parent: Path, *options: str) -> dict[str, Any]:
    """Convert, and look that nothing else is left."""
    assert main(["youtube", str(raw), str(parent / "x"), *options]) == 0
    assert [path.name for path in parent.iterdir() if path != raw] == ["x"]
    return content(parent / "x")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The data set of the plain dump in one block a file."""
    folder = tmp_path_factory.mktemp("whole")
    whole = convert(put(folder / "raw", "lines"), folder)
    assert whole["meta"]["notes"]["comments_read"] == 1000 and check(folder / "x") == []
    return whole


READER = Interrupting("read_values", BLOCK)


@pytest.mark.parametrize("form", FORMS)
def test_a_dump_goes_on_after_every_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any], form: str
) -> None:
    raw = put(tmp_path / "raw", form)
    assert convert(raw, tmp_path) == undisturbed
    shutil.rmtree(tmp_path / "x")
    every = READER.use(monkeypatch)
    assert convert(raw, tmp_path) == undisturbed
    assert [start.line for start in every.starts] == [1, 1]
    few = {"list on a line": 2, "response lines": 3}
    assert every.given == few.get(form, every.given) and (form in few or every.given >= 8)
    begun = []
    for after in range(1, every.given + 1, 1 if form == "lines" else 3):
        shutil.rmtree(tmp_path / "x")
        again = interrupt(monkeypatch, READER, after, "youtube", str(raw), str(tmp_path / "x"))
        assert convert(raw, tmp_path) == undisturbed
        begun.append(again.starts[0])
        assert again.given == every.given - after
    inside = {start.line for start in begun if start.offset}
    assert len(inside) >= (5 if form == "lines" else 1 if form in few else 2)


def faulty(folder: Path) -> Path:
    """A dump with four kinds of faults at its start, in its middle and at its end, by line and by item."""
    folder.mkdir()
    videos, threads = thousand()
    lines = lines_of(threads).splitlines(keepends=True)
    for place in (790, 400, 0):
        lines[place:place] = [
            b'{"kind": "youtube#channel"}\n', b'{"kind": \n', b"[1, \xff]\n", b'{"kind": "youtube#comment"}\n'
        ]  # fmt: skip
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
    several = [part for row in videos for part in (row, {"kind": "other"})]
    (folder / "b.json").write_text(json.dumps(several, indent=1))
    return folder


def test_interrupted_again_and_again_with_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = faulty(tmp_path / "raw")
    expected = convert(raw, tmp_path, "--on-error", "skip")
    told = capsys.readouterr().err
    assert "faults in the raw data, 24 dropped:" in told
    for name, places in (
        ("a.jsonl.gz: 3 × not a video, comment thread or comment", "(line 1: kind 'youtube#channel'; line 405: kind "),
        (
            "a.jsonl.gz: 3 × text that is not JSON (is the file cut short?)",
            "(line 2: Expecting value, column 10; li",
        ),
        ("a.jsonl.gz: 3 × bytes that are not UTF-8", "(line 3: invalid start byte at byte 4; line 407: invalid"),
        ("a.jsonl.gz: 3 × resource without what the API always gives", "(line 4: 'snippet'; line 408: 'snippet'; "),
        ("b.json: 12 × not a video, comment thread or comment", "(item 2: kind 'other'; item 4: kind 'other'; item "),
    ):
        assert f"{name} {places}" in told
    shutil.rmtree(tmp_path / "x")
    for after in (3, 2, 1):
        interrupt(monkeypatch, READER, after, "youtube", str(raw), str(tmp_path / "x"), "--on-error", "skip")
    capsys.readouterr()
    assert convert(raw, tmp_path, "--on-error", "skip") == expected
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("after", "inside"), [(2, False), (12, True), (20, True), (30, True), (60, False)])
def test_a_killed_conversion_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any], after: int, inside: bool
) -> None:
    raw = put(tmp_path / "raw", "zstd")
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(after),
        "read_values",
        str(BLOCK),
        "youtube",
        str(raw),
        str(tmp_path / "x"),
    ]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (tmp_path / "x").exists() and (tmp_path / WORK).exists()
    again = READER.use(monkeypatch)
    assert convert(raw, tmp_path) == undisturbed
    assert any(start.line > 1 for start in again.starts[:1]) == inside


def unpacked(packed: bytes, kind: str) -> bytes:
    """All that stands in the beginning of a packed file."""
    if kind == "gzip":
        return zlib.decompressobj(31).decompress(packed)
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_of_a_cut_file_the_lines_before_the_cut_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, share: float
) -> None:
    ending, written = FORMS[kind]
    videos, threads = thousand()
    packed = written(threads)
    packed = packed[: int(len(packed) * share)]
    whole = b"".join(line for line in unpacked(packed, kind).splitlines(keepends=True) if line.endswith(b"\n"))
    assert share - 0.09 < len(whole) / len(lines_of(threads)) < share + 0.09
    name = f"threads{ending}"
    for folder in ("cut", "plain"):
        write_lines(tmp_path / folder / "videos.jsonl", videos)
    (tmp_path / "cut" / name).write_bytes(packed)
    (tmp_path / "plain" / "threads.jsonl").write_bytes(whole)

    assert main(["youtube", str(tmp_path / "cut"), str(tmp_path / "x")]) == 2
    assert f"{name}: 1 × {kind} stream that is damaged or cut short" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "plain"]
    got = {}
    for folder in ("cut", "plain"):
        assert main(["youtube", str(tmp_path / folder), str(tmp_path / folder / "x"), "--on-error", "skip"]) == 0
        got[folder] = content(tmp_path / folder / "x")
    assert got["cut"]["meta"].pop("dropped") == {f"{kind} stream that is damaged or cut short": 1}
    assert got["plain"]["meta"].pop("dropped") == {}
    assert got["cut"] == got["plain"]


def test_a_cut_document_is_one_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = put(tmp_path / "raw", "responses")
    path = raw / "threads.json.gz"
    path.write_bytes(path.read_bytes()[:-30])
    assert main(["youtube", str(raw), str(tmp_path / "x")]) == 2
    assert "threads.json.gz: 1 × gzip stream that is damaged or cut short" in capsys.readouterr().err


def test_lines_documents_and_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = put(tmp_path / "raw", "list")
    monkeypatch.setattr(json_values, "DOCUMENT_LIMIT", 10_000)
    assert main(["youtube", str(raw), str(tmp_path / "x")]) == 2
    assert "threads.json is one JSON document of more than 10,000 bytes; write one val" in capsys.readouterr().err
    rows = [video("v1"), comment("c1", "a", "2020-01-02T00:00:00Z", "long" * 3000), video("v2")]
    write_lines(raw / "threads.json", rows)
    assert main(["youtube", str(raw), str(tmp_path / "x")]) == 2
    assert "threads.json, line 2: a line of more than 10,000 bytes" in capsys.readouterr().err
    (raw / "threads.json").unlink()
    (raw / "threads.json").mkdir()
    assert main(["youtube", str(raw), str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == f"lsvcr-data youtube: cannot read {raw / 'threads.json'}: Is a directory\n"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_byte_order_mark_and_a_name_without_ending(tmp_path: Path) -> None:
    videos, threads = channel()
    (tmp_path / "videos").write_bytes(b"\xef\xbb\xbf" + lines_of(videos))
    (tmp_path / "threads.dump").write_bytes(gzip.compress(lines_of(threads)))
    raw = [str(tmp_path / name) for name in ("videos", "threads.dump")]
    assert main(["youtube", *raw, str(tmp_path / "x")]) == 0
    assert read_atomic(tmp_path / "x" / "x.item")["item_id"].to_list() == ["v1", "v2", "v3"]


@pytest.mark.parametrize("form", ["lines", "list", "responses"])
def test_the_values_do_not_depend_on_the_blocks(tmp_path: Path, form: str) -> None:
    path = next(put(tmp_path / "raw", form).glob("threads*"))
    found: list[Any] = []
    for size in (1, 999, 8 << 20):
        problems = Problems()
        blocks = [(list(values.parts), values.position) for values in read_values(path, problems, block_bytes=size)]
        found.append([part for parts, _ in blocks for part in parts])
        assert problems.units == ["line" if form == "lines" else "item"] and not problems.totals()
        for at, (_, position) in enumerate(blocks[:: max(1, len(blocks) // 9)]):
            after = [part for parts, _ in blocks[at * max(1, len(blocks) // 9) + 1 :] for part in parts]
            again = read_values(path, problems, file=0, start=position)
            assert [part for values in again for part in values.parts] == after
    assert found[0] == found[1] == found[2]
    assert [line for _, line in found[0]] == list(range(1, (16 if form == "responses" else 800) + 1))
