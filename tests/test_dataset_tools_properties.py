"""What holds for every source: any text survives, order and copies of rows do not matter, a cut is never silent."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slow_conversion import Tables, normal, title_and_tags, written

from dataset_tools.__main__ import main

T0 = 1_600_000_000
LINES = 12  # comments, and interactions, of the small dumps

few = settings(
    max_examples=2,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ODD = st.sampled_from([*'#＃",评\t\0\x85\u2028\ufeff\u200f\ud800 ', "\r\n", '""', "NA", "👨\u200d👩\u200d👧"])
TEXT = st.lists(st.one_of(ODD, st.text(max_size=4)), max_size=5).map("".join)
TEXTS = st.lists(TEXT, min_size=LINES, max_size=LINES)


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def event(k: int) -> tuple[str, str, int]:
    """User, video and time of event k; times are all different and in no order, pair k is that of k + 6."""
    return f"u{k % 3}", f"v{k % 2}", T0 + 100 * (5 * k % LINES)


def shown(text: str) -> str:
    """A text that may stand in UTF-8; JSON can hold the lone surrogate in escapes."""
    return text.replace("\ud800", "\ufffd")


Files = dict[str, str]


def kuaicomt(texts: list[str]) -> Files:
    rows = range(LINES)
    watched = [(u, v, f"{at}000", 1, 0, 0) for u, v, at in map(event, rows)]
    liked = [(u, f"c{k}", at, v, 1, k % 2) for k, (u, v, at) in enumerate(map(event, rows))]
    headers = {
        "user_video_inter.csv": "user_id,video_id,time_ms,is_like,is_collect,is_forward\n",
        "video_features.csv": "video_id,caption,category\n",
        "comment_features.csv": "comment_id,comment_content,video_id\n",
        "user_comment_inter.csv": "user_id,comment_id,time_stamp,photo_id,is_like,is_reply\n",
    }
    videos = [(f"v{v}", shown(texts[v]), "cat") for v in rows]
    comments = [(f"c{k}", shown(texts[k]), event(k)[1]) for k in rows]
    tables = (watched, videos, comments, liked)
    return {name: header + as_csv(table) for (name, header), table in zip(headers.items(), tables, strict=True)}


def microlens(texts: list[str]) -> Files:
    pairs = [[u, v, f"{at}000"] for u, v, at in map(event, range(LINES))]
    titles = [[f"v{v}", shown(texts[v]) + " t"] for v in range(LINES)]
    said = "".join(f"{event(k)[0]}\t{event(k)[1]}\t{normal(shown(text))}\n" for k, text in enumerate(texts))
    return {
        "m_pairs.csv": as_csv([["user", "item", "timestamp"], *pairs]),
        "m_titles.csv": as_csv([["item", "title"], *titles]),
        "m_comment_en.txt": said,
    }


def youtube(texts: list[str]) -> Files:
    def text(k: int, **more: Any) -> dict[str, Any]:
        user, on, at = event(k)
        when = datetime.fromtimestamp(at, UTC).isoformat()
        snippet = {"videoId": on, "textOriginal": texts[k], "publishedAt": when, "authorChannelId": {"value": user}}
        return {"kind": "youtube#comment", "id": f"c{k}", "snippet": snippet | more}

    videos = [
        {"kind": "youtube#video", "id": f"v{v}", "snippet": {"title": texts[v] + " t", "tags": [texts[-v]]}}
        for v in range(LINES)
    ]  # fmt: skip
    # Comments 0 to 5 begin threads; 6 to 11 answer to the first two of them, by video.
    said = [text(k) if k < 6 else text(k, parentId=f"c{k % 2}") for k in range(LINES)]
    return {
        "videos.jsonl": "".join(json.dumps(row) + "\n" for row in videos),
        "comments.jsonl": "".join(json.dumps(row) + "\n" for row in said),
    }  # fmt: skip


MAPPING = {
    "inter": {
        "file": "inter.csv", "columns": {"user_id": "u", "item_id": "i", "timestamp": {"column": "t", "time": "ms"}}
    },
    "item": {"file": "item.jsonl", "columns": {"item_id": "id", "title": "title", "tags": "tags"}},
    "comment": {"file": "comment.csv", "columns": {"comment_id": "c", "item_id": "i", "content": "text"}},
    "cinter": {"file": "cinter.csv", "columns": {"user_id": "u", "comment_id": "c", "item_id": "i", "timestamp": "t"}},
}  # fmt: skip


def table(texts: list[str]) -> Files:
    found = kuaicomt(texts)
    events = [[u, v, f"{at}000"] for u, v, at in map(event, range(LINES))]
    liked = [[u, f"c{k}", v, at] for k, (u, v, at) in enumerate(map(event, range(LINES)))]
    items = [{"id": f"v{v}", "title": texts[v] + " t", "tags": [texts[-v], "x"]} for v in range(LINES)]
    return {
        "inter.csv": as_csv([["u", "i", "t"], *events]),
        "item.jsonl": "".join(json.dumps(row) + "\n" for row in items),
        "comment.csv": found["comment_features.csv"].replace("comment_id,comment_content,video_id", "c,text,i"),
        "cinter.csv": as_csv([["u", "c", "i", "t"], *liked]),
    }


SOURCES: dict[str, Callable[[list[str]], Files]] = {
    "kuaicomt": kuaicomt, "microlens": microlens, "youtube": youtube, "table": table
}  # fmt: skip
PLAIN = [f"text {k}" if k % 4 else f'two\nlines, "{k}"' for k in range(LINES)]
every_source = pytest.mark.parametrize("source", SOURCES)


class Bench:
    """A folder for one conversion after the other."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder, self.source = folder, source
        mapping = folder / "map.yaml"
        mapping.write_text(yaml.safe_dump(MAPPING))
        self.options = ["--mapping", str(mapping)] if source == "table" else []
        self.plain: dict[str, Tables] = {}  # data sets of `PLAIN`

    def __call__(self, files: Files, *options: str) -> Tables | None:
        """The data set, None if the conversion ends with a message."""
        raw, out = self.folder / "raw", self.folder / "x"
        for old in (raw, out):
            shutil.rmtree(old, ignore_errors=True)
        raw.mkdir()
        for name, text in files.items():
            (raw / name).write_bytes(text.encode(errors="surrogateescape"))
        status = main([self.source, str(raw), str(out), *self.options, *options])
        assert (status, out.exists()) in ((0, True), (2, False))
        assert {path.name for path in self.folder.iterdir()} <= {"raw", "x", "map.yaml"}
        return written(out) if status == 0 else None

    def expected(self, repeat: str = "first") -> Tables:
        """The data set of `PLAIN`."""
        if repeat not in self.plain:
            self.plain[repeat] = self.data(SOURCES[self.source](PLAIN), "--repeat", repeat)
        return {suffix: list(rows) for suffix, rows in self.plain[repeat].items()}

    def data(self, files: Files, *options: str) -> Tables:
        """The data set, which there must be."""
        found = self(files, *options)
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path, source: str, quick: None) -> Bench:
    return Bench(tmp_path, source)


def column(tables: Tables, suffix: str, name: str) -> list[str]:
    """The values of a column, by the row's id, which is its first field or, in .comment, that."""
    header, *rows = tables[suffix]
    at = [field.partition(":")[0] for field in header].index(name)
    return [row[at] for row in sorted(rows, key=lambda row: int(row[0][1:]))]


@every_source
@few
@given(texts=TEXTS)
def test_any_text_is_normalised_and_nothing_else(bench: Bench, texts: list[str]) -> None:
    got = bench.data(SOURCES[bench.source](texts))
    clean = [shown(text) for text in texts]
    contents = column(got, "comment", "content")
    assert contents == [normal(text) for text in clean]
    titles = column(got, "item", "title")
    if bench.source == "kuaicomt":
        assert list(zip(titles, column(got, "item", "tags"), strict=True)) == [title_and_tags(t, "cat") for t in clean]
    else:
        assert titles == [normal(f"{text} t") for text in clean]


def records(content: str, name: str) -> list[str]:
    """The records of a raw file as they stand in it."""
    if not name.endswith(".csv"):
        return content.splitlines(keepends=True) if "\n" in content else [content]
    found, rest = [], ""
    for line in io.StringIO(content, newline="\n"):
        rest += line
        if rest.count('"') % 2 == 0:
            found.append(rest)
            rest = ""
    return found


def header_of(name: str) -> int:
    """How many records of a file are its header."""
    return int(name.endswith(".csv"))


@every_source
@few
@given(seed=st.integers(0, 1 << 30))
def test_the_order_of_rows_does_not_matter(bench: Bench, seed: int) -> None:
    files = SOURCES[bench.source](PLAIN)
    expected, shuffled = bench.expected(), {}
    for name, text in files.items():
        rows = records(text, name)
        first = header_of(name)
        if name == "m_comment_en.txt":  # ids and times go by the order of this file
            shuffled[name] = text
            continue
        shuffled[name] = "".join([*rows[:first], *Random(seed).sample(rows[first:], len(rows) - first)])
    assert shuffled != files
    got = bench.data(shuffled)
    assert {suffix: got[suffix] for suffix in ("inter", "cinter")} == {s: expected[s] for s in ("inter", "cinter")}
    assert {suffix: sorted(rows[1:]) for suffix, rows in got.items()} == {s: sorted(r[1:]) for s, r in expected.items()}


@every_source
@settings(few, max_examples=1)
@given(seed=st.integers(0, 1 << 30))
def test_copies_of_rows(bench: Bench, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """A copy in a file of features is a fault; a copied video interaction is a repeated pair, a copied comment
    interaction is one more row of .cinter (who reads it counts rows of the same user, comment and time once); a copied
    line of MicroLens' comments is one more comment."""
    files, random = SOURCES[bench.source](PLAIN), Random(seed)
    for name in files:
        rows, expected = records(files[name], name), bench.expected()
        at = random.randrange(header_of(name), len(rows))
        after = random.randrange(at, len(rows)) + 1
        copied = {**files, name: "".join([*rows[:after], rows[at], *rows[after:]])}
        if name in ("user_video_inter.csv", "m_pairs.csv", "inter.csv"):
            got = bench.data(copied)
            if bench.source == "microlens":  # the second comment of a pair has the time of its second row
                got["cinter"], got["comment"] = expected["cinter"], expected["comment"]
            assert got == expected
            every = bench.data(copied, "--repeat", "all")["inter"]
            assert len(every) == len(bench.expected("all")["inter"]) + 1
            assert set(every) == set(bench.expected("all")["inter"])
        elif name in ("user_comment_inter.csv", "cinter.csv"):
            got = bench.data(copied)
            header, *events = got.pop("cinter")
            assert set(events) == set(expected["cinter"][1:]) and len(events) == LINES + 1
            assert header == expected.pop("cinter")[0] and got == expected
        elif name == "m_comment_en.txt":
            assert len(bench.data(copied)["comment"]) == len(expected["comment"]) + 1
        else:
            capsys.readouterr()
            assert bench(copied) is None
            said = capsys.readouterr().err
            assert f"{name}: 1 × duplicated " in said and "_id in ." in said
            assert bench.data(copied, "--on-error", "skip") == expected


def reference(source: str, files: Files) -> dict[str, list[tuple[str, ...]]] | None:
    """Who did what when, which videos and comments there are, in some order; None where the files do not agree."""
    if not all(files.values()):
        return None
    found = {
        name: [json.loads(line) for line in text.splitlines()]
        if name.endswith(".jsonl")
        else [tuple(line.split("\t")) for line in text.splitlines()]
        if name.endswith(".txt")
        else list(csv.DictReader(io.StringIO(text, newline="")))
        for name, text in files.items()
    }
    if source != "table" and not all(found.values()):
        return None
    match source:
        case "kuaicomt":
            watched = [(r["user_id"], r["video_id"], r["time_ms"][:-3]) for r in found["user_video_inter.csv"]]
            videos = {row["video_id"] for row in found["video_features.csv"]}
            comments = {row["comment_id"]: row["video_id"] for row in found["comment_features.csv"]}
            touched = [(r["user_id"], r["comment_id"], r["photo_id"]) for r in found["user_comment_inter.csv"]]
        case "microlens":
            watched = [(row["user"], row["item"], row["timestamp"][:-3]) for row in found["m_pairs.csv"]]
            videos = {row["item"] for row in found["m_titles.csv"]}
            touched = [(u, f"c{k}", v) for k, (u, v, _) in enumerate(found["m_comment_en.txt"], start=1)]
            if {(user, on) for user, _, on in touched} - {pair[:2] for pair in watched}:
                return None
            comments = {comment: on for _, comment, on in touched}
        case "youtube":
            said = {row["id"]: row["snippet"] for row in found["comments.jsonl"]}
            videos = {row["id"] for row in found["videos.jsonl"]}
            comments = {name: one["videoId"] for name, one in said.items()}
            watched = [(*event(int(name[1:]))[:2], str(event(int(name[1:]))[2])) for name in said]
            replies = [(one["authorChannelId"]["value"], one["parentId"]) for one in said.values() if "parentId" in one]
            if not {parent for _, parent in replies} <= set(said):
                return None
            touched = [(u, p, comments[p]) for u, p in replies if said[p]["authorChannelId"]["value"] != u]
        case _:
            watched = [(row["u"], row["i"], row["t"][:-3]) for row in found["inter.csv"]]
            videos = {row["id"] for row in found["item.jsonl"]}
            comments = {row["c"]: row["i"] for row in found["comment.csv"]}
            touched = [(row["u"], row["c"], row["i"]) for row in found["cinter.csv"]]
    used = {on for _, on, _ in watched} | set(comments.values())
    if not watched or not used <= videos or not {comment for _, comment, _ in touched} <= set(comments):
        return None
    first: dict[tuple[str, str], str] = {}
    for user, on, at in sorted(watched, key=lambda row: int(row[2])):
        first.setdefault((user, on), at)
    return {
        "inter": sorted((*pair, at) for pair, at in first.items()),
        "cinter": sorted(touched),
        "item": sorted((on,) for on in videos),
        "comment": sorted(comments.items()),
    }


@every_source
@settings(few, max_examples=10)
@given(data=st.data())
def test_a_cut_is_never_silent(bench: Bench, data: st.DataObject) -> None:
    files = SOURCES[bench.source](PLAIN)
    name = data.draw(st.sampled_from(sorted(files)))
    content = files[name].encode()
    rows = [row.encode() for row in records(files[name], name)]
    ends = [sum(map(len, rows[:count])) for count in range(len(rows) + 1)]
    at = data.draw(st.one_of(st.sampled_from(ends), st.integers(0, len(content) - 1)))
    got = bench({**files, name: content[:at].decode(errors="surrogateescape")})
    whole = name.endswith(".jsonl") and at + 1 in ends  # JSON that lacks its line break alone is whole
    if at not in ends and not whole:
        assert got is None
        return
    kept = rows[: sum(end <= at + whole for end in ends) - 1]
    expected = reference(bench.source, {**files, name: b"".join(kept).decode()})
    if got is None or expected is None:
        assert got is None and expected is None
        return
    assert {
        suffix: sorted(row[: len(rows[0]) if rows else 3] for row in got[suffix][1:])
        for suffix, rows in expected.items()
    } == expected
