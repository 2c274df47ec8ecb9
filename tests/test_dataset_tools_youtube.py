"""YouTube dumps: a channel worked out by hand, every form of file, and what is wrong with files."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from slow_conversion import convert, meta_of
from youtube_files import T0, Rows, channel, comment, spoken, thousand, video, write_lines

from dataset_tools import youtube
from dataset_tools.__main__ import main
from dataset_tools.blocks import read_values
from dataset_tools.check import check
from dataset_tools.problems import Problems
from dataset_tools.schema import read_atomic

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "youtube-bvgm"
DAY = 86_400.0


def dump(folder: Path) -> Path:
    videos, threads = channel()
    write_lines(folder / "videos.jsonl", videos)
    write_lines(folder / "threads.jsonl", threads)
    return folder


def tables(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    assert check(folder) == []
    return {
        suffix: read_atomic(folder / f"{folder.name}.{suffix}").rows()
        for suffix in ("inter", "cinter", "comment", "item")
    }


def test_a_channel_worked_out_by_hand(tmp_path: Path) -> None:
    assert main(["youtube", str(dump(tmp_path / "raw")), str(tmp_path / "x")]) == 0
    got = tables(tmp_path / "x")
    assert got["inter"] == [("b", "v2", T0 + DAY / 2), ("a", "v1", T0 + DAY), ("b", "v1", T0 + DAY + 10.5)]
    assert got["cinter"] == [("b", "T1", "v1", T0 + DAY + 10.5, 0.0, 1.0)]
    assert got["comment"] == [
        ("T1", "v1", 'say "hi" \ufffd 😀', "a", "", 2.0, 3.0, T0 + DAY),
        ("T1.1", "v1", "hm", "b", "T1", 2.0, None, T0 + DAY + 10.5),
        ("T1.2", "v1", "hm", "a", "T1", 2.0, None, T0 + DAY + 20),
        ("T3", "v2", "hm", "", "", 2.0, 0.0, T0 + 2 * DAY),
    ]
    assert got["item"] == [
        ("v1", "Title v1", "game_music ost", "OWNER", "20", T0),
        ("v2", "Title v2", "", "OWNER", "20", T0),
        ("v3", "Title v3", "", "OWNER", "20", T0),
    ]
    meta = json.loads((tmp_path / "x" / "x.meta.json").read_text())
    assert meta["notes"] == {
        "comments_given_twice": 0,
        "comments_read": 7,
        "comments_without_author": 1,
        "comments_by_owner_left_out": 2,
        "replies_to_owner_left_out": 1,
        "replies_to_oneself_no_interaction": 1,
    }
    assert meta["raw_files"] == ["threads.jsonl", "videos.jsonl"] and str(tmp_path) not in json.dumps(meta)


def test_the_owner_and_repeated_pairs_on_request(tmp_path: Path) -> None:
    options = ["--keep-owner", "--repeat", "all"]
    assert main(["youtube", str(dump(tmp_path / "raw")), str(tmp_path / "x"), *options]) == 0
    got = tables(tmp_path / "x")
    assert [row[:2] for row in got["inter"]] == [
        ("OWNER", "v2"), ("b", "v2"), ("a", "v1"), ("b", "v1"), ("a", "v1"), ("OWNER", "v1"),
    ]  # fmt: skip
    assert [row[:2] for row in got["cinter"]] == [("b", "T2"), ("b", "T1"), ("OWNER", "T1")]
    assert [row[0] for row in got["comment"]] == ["T1", "T1.1", "T1.2", "T1.3", "T2", "T2.1", "T3"]


def as_responses(folder: Path, videos: Rows, threads: Rows) -> list[Path]:
    """One indented response per file, the comments' gzip."""
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps({"kind": "youtube#videoListResponse", "items": videos}, indent=1))
    packed = json.dumps({"kind": "youtube#commentThreadListResponse", "items": threads}, indent=1)
    (folder / "b.json.gz").write_bytes(gzip.compress(packed.encode()))
    return [folder]


def as_response_lines(folder: Path, videos: Rows, threads: Rows) -> list[Path]:
    """Pages of responses, one per line, and two files named one by one."""
    pages = [{"items": threads[:1]}, {"items": threads[1:]}]
    return [write_lines(folder / "c.jsonl", pages), write_lines(folder / "v.jsonl", [{"items": videos}])]


def as_lists(folder: Path, videos: Rows, threads: Rows) -> list[Path]:
    """A JSON list, on one line and on several."""
    folder.mkdir()
    (folder / "c.json").write_text("[" + ",\n".join(json.dumps(row) for row in threads) + "]\n")
    (folder / "v.json").write_text(json.dumps(videos))
    return [folder / "c.json", folder / "v.json"]


def as_listed_replies(folder: Path, videos: Rows, threads: Rows) -> list[Path]:
    """Threads with their first reply only, and comments.list with all of them: what the API gives."""
    replies = [reply for row in threads for reply in row.get("replies", {}).get("comments", [])]
    for row in threads:
        if "replies" in row:
            row["replies"] = {"comments": row["replies"]["comments"][:1]}
    return [write_lines(folder / "a.jsonl", threads), write_lines(folder / "b.jsonl", [*replies, *videos])]


@pytest.mark.parametrize("form", [as_responses, as_response_lines, as_lists, as_listed_replies])
def test_every_form_of_dump_gives_the_same_data(tmp_path: Path, form: Any) -> None:
    main(["youtube", str(dump(tmp_path / "raw")), str(tmp_path / "x")])
    raw = form(tmp_path / "other", *channel())
    assert main(["youtube", *map(str, raw), str(tmp_path / "y")]) == 0
    expected, got = tables(tmp_path / "x"), tables(tmp_path / "y")
    assert {suffix: sorted(rows, key=str) for suffix, rows in got.items()} == {
        suffix: sorted(rows, key=str) for suffix, rows in expected.items()
    }


def break_file(folder: Path, name: str) -> None:
    """One way to damage a dump."""
    threads, videos = folder / "threads.jsonl", folder / "videos.jsonl"
    lines = threads.read_bytes().splitlines(keepends=True)
    match name:
        case "cut":
            threads.write_bytes(b"".join(lines)[:-40])
        case "utf8":
            threads.write_bytes(lines[0] + b'{"kind": "\xff"}\n' + lines[1])
        case "first line":
            threads.write_bytes(lines[0][50:] + lines[1] + lines[2])
        case "empty":
            threads.write_bytes(b"")
        case "duplicate":
            threads.write_bytes(b"".join([*lines, lines[0]]))
        case "unknown":
            videos.write_text(videos.read_text().replace('"id": "v2"', '"id": "v9"'))
        case "gzip":
            threads.unlink()
            (folder / "threads.jsonl.gz").write_bytes(gzip.compress(b"".join(lines))[:-30])
        case "time":
            threads.write_text(threads.read_text().replace("2020-01-03T00:00:00Z", "2020-13-03T00:00:00Z"))
        case "kind":
            threads.write_bytes(b'{"kind": "youtube#channel"}\n' + b"".join(lines))
        case "part":
            threads.write_bytes(b'{"kind": "youtube#commentThread", "id": "q"}\n' + b"".join(lines))
        case "orphan":
            write_lines(folder / "more.jsonl", [comment("Q.1", "a", "2020-01-01T00:00:00Z", parentId="Q")])
        case "document":
            threads.unlink()
            (folder / "threads.json").write_text('{\n "items": [\n  {"kind": \n')


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut", "threads.jsonl: 1 × text that is not JSON (is the file cut short?) (line 3: "),
        ("utf8", "threads.jsonl: 1 × bytes that are not UTF-8 (line 2: invalid start byte at byte 10)"),
        ("first line", "threads.jsonl: 1 × text that is not JSON (is the file cut short?) (line 1: "),
        ("empty", "threads.jsonl: 1 × empty file"),
        ("duplicate", "threads.jsonl: 4 × duplicated comment_id in .comment (line 4: comment_id='T1'; "),
        ("unknown", "threads.jsonl: 3 × item_id in .comment that .item does not have (line 2: item_id='v2'; "),
        ("gzip", "threads.jsonl.gz: 1 × gzip stream that is damaged or cut short"),
        ("time", "threads.jsonl: 1 × malformed number in .comment (line 3: timestamp='2020-13-03T00:00:00Z')"),
        ("kind", "threads.jsonl: 1 × not a video, comment thread or comment (line 1: kind 'youtube#channel')"),
        ("part", "threads.jsonl: 1 × resource without what the API always gives (line 1: 'snippet')"),
        ("orphan", "more.jsonl: 1 × comment whose thread, and so its video, is missing (line 1: comment_id='Q.1' "),
        ("document", "threads.json: 1 × text that is not JSON (is the file cut short?) (Expecting value, line 4, "),
    ],
)
def test_bad_input_is_one_message_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    break_file(dump(tmp_path / "raw"), name)
    assert main(["youtube", str(tmp_path / "raw"), str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_folder_without_dumps_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for raw, message in (("", "holds no file of .json"), ("none", "does not exist")):
        assert main(["youtube", str(tmp_path / raw), str(tmp_path / "x")]) == 2
        assert message in capsys.readouterr().err
    videos = write_lines(tmp_path / "v.jsonl", channel()[0])
    assert main(["youtube", str(videos), str(tmp_path / "x")]) == 2
    assert "found 3 videos and 0 comments; a data set needs both" in capsys.readouterr().err


def test_a_thousand_comments_counted_by_hand(tmp_path: Path) -> None:
    videos, threads = thousand()
    assert (len(videos), len(threads)) == (12, 800)
    write_lines(tmp_path / "raw" / "videos.jsonl", videos)
    write_lines(tmp_path / "raw" / "threads.jsonl", threads)
    got = convert("youtube", tmp_path / "raw", tmp_path / "x")
    assert check(tmp_path / "x") == []

    rows = [(k, *spoken(k)) for k in range(1000)]
    by_owner = {k for k, author, *_ in rows if author == "a0"}
    to_owner = {k for k, *_, parent in rows if parent in by_owner}
    nobody = {k for k, author, *_ in rows if author == "a7"}
    in_time = sorted(rows, key=lambda row: row[3])
    first: dict[tuple[str, str], int] = {}
    for k, author, on, at, _ in in_time:
        if k not in by_owner | nobody:
            first.setdefault((author, on), at)
    assert len(first) == 11 * 11  # 13 authors without the owner and nobody; 13 and 11 have no divisor in common
    assert got["inter"][1:] == [(*pair, str(at)) for pair, at in sorted(first.items(), key=lambda entry: entry[1])]
    replies = [row for row in in_time if row[4] is not None and row[0] not in by_owner | to_owner | nobody]
    # Replies never have their parent's author: k and k - 4 differ modulo 13.
    assert got["cinter"][1:] == [(a, f"c{p}", on, str(at), "0", "1") for _, a, on, at, p in replies]
    tops = [k for k in range(1000) if spoken(k)[3] is None]
    kept = [k for top in tops for k in ((top, top + 4) if top % 5 == 0 else (top,)) if k not in by_owner | to_owner]
    assert got["comment"][1:] == [
        (
            f"c{k}", spoken(k)[1], f"text {k}", "" if k in nobody else spoken(k)[0],
            "" if spoken(k)[3] is None else f"c{spoken(k)[3]}", "2",
            "" if spoken(k)[3] is not None else str(int(k % 5 == 0)), str(spoken(k)[2]),
        )
        for k in kept
    ]  # fmt: skip
    assert [row[0] for row in got["item"][1:]] == [f"v{v}" for v in range(12)]
    # Every 13th of a thousand numbers: 77 from 0 on, 77 from 7 on.
    assert len(by_owner) == len(nobody) == 77
    assert meta_of(tmp_path / "x")["notes"] == {
        "comments_given_twice": 0,
        "comments_read": 1000,
        "comments_without_author": 77,
        "comments_by_owner_left_out": 77,
        "replies_to_owner_left_out": len(to_owner),
        "replies_to_oneself_no_interaction": 0,
    }


@pytest.mark.skipif(not REAL.is_dir(), reason="the real YouTube data are not on this machine")
def test_the_real_channel(tmp_path: Path) -> None:
    began = time.process_time()
    assert main(["youtube", str(REAL), str(tmp_path / "full")]) == 0
    assert time.process_time() - began < 60
    meta = json.loads((tmp_path / "full" / "full.meta.json").read_text())
    assert meta["notes"]["comments_read"] == 156_837 and meta["rows"]["item"] == 2_386
    # The data's README counts the 26 comments without author, under 8 videos, as one user's.
    assert meta["notes"]["comments_without_author"] == 26
    assert meta["rows"]["inter"] == 128_272 - 8 and meta["users"]["inter"] == 58_999 - 1
    assert meta["videos"]["inter"] == 2_267 and meta["rows"]["cinter"] == 21_203
    assert check(tmp_path / "full") == []


def test_durations_in_other_digits_are_none(tmp_path: Path) -> None:
    videos, threads = channel()
    videos[0]["contentDetails"] = {"duration": "PT1M٣S"}
    raw = [write_lines(tmp_path / "v.jsonl", videos), write_lines(tmp_path / "t.jsonl", threads)]
    assert main(["youtube", *map(str, raw), str(tmp_path / "x")]) == 0
    assert read_atomic(tmp_path / "x" / "x.item", ["duration"]).to_series().to_list()[0] == 60


def test_deep_nesting_is_a_fault_at_its_line(tmp_path: Path) -> None:
    for depth in range(880, 1010):
        path = tmp_path / f"{depth}.jsonl"
        for opens, closes in (("[", "]"), ('{"a":', "}")):
            deep = opens * depth + "1" + closes * depth
            lines = [video("v1"), {"kind": "DEEP"}, {**video("v2"), "id": "DEEP"}]
            path.write_text("".join(json.dumps(line).replace('"DEEP"', deep) + "\n" for line in lines))
            problems = Problems()
            tables = [youtube._rows(values, problems) for values in read_values(path, problems)]
            rows = sum(table["item"].height for table in tables if "item" in table)
            assert rows + sum(problems.totals().values()) == 3


def test_faults_of_many_files_some_without_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = dump(tmp_path / "raw")
    for number in range(25):
        lost = [comment(f"q{number}.{at}", "a", "2020-01-01T00:00:00Z") for at in range(5)]
        write_lines(folder / f"w{number:02d}.jsonl", lost)
    write_lines(folder / "x.jsonl", [comment("Q.1", "a", "2020-01-01T00:00:00Z", parentId="Q")])
    assert main(["youtube", str(folder), str(tmp_path / "x")]) == 2
    message = capsys.readouterr().err
    assert "126 faults" in message and "x.jsonl: 1 × comment whose thread, and so its video, is missing" in message


def test_comments_of_which_none_can_be_placed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "raw" / "x.jsonl"
    write_lines(path, [video("v1"), comment("Q.1", "a", "2020-01-01T00:00:00Z", parentId="Q")])
    assert main(["youtube", str(path), str(tmp_path / "x"), "--on-error", "skip"]) == 2
    said = capsys.readouterr().err
    assert "1 × comment whose thread, and so its video, is missing" in said
    assert "no video interaction is left, nothing was written" in said and "Traceback" not in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]
