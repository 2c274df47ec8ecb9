"""KuaiComt: a thousand rows by rules that can be counted by hand, against a slow conversion; variants and faults."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from benchmark_scripts import load
from kuaicomt_files import (
    CAPTIONS,
    T0,
    TALKED_ABOUT,
    USERS,
    VIDEOS,
    WATCHED,
    WATCHERS,
    few,
    impression,
    put,
    thousand,
    video,
)
from slow_conversion import (
    Tables,
    as_text,
    convert,
    kuaicomt,
    meta_of,
    same,
    title_and_tags,
)

from dataset_tools.__main__ import main
from dataset_tools.check import check

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("kuaicomt") / "raw", thousand())


@pytest.fixture(scope="module")
def expected(raw: Path) -> Tables:
    return as_text(kuaicomt(raw))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tables]:
    """The folder of `few` and the data set that it becomes."""
    folder = put(tmp_path_factory.mktemp("few") / "raw", few())
    return folder, as_text(kuaicomt(folder))


def test_a_thousand_rows_counted_by_hand(tmp_path: Path, raw: Path, expected: Tables) -> None:
    assert same(convert("kuaicomt", raw, tmp_path / "x"), expected)
    assert check(tmp_path / "x") == []
    meta = meta_of(tmp_path / "x")
    # Multiples of 5, 7 or 11 below 1000, 0 among them: 200 + 143 + 91 - 29 (of 35) - 19 (of 55) - 13 (of 77) + 3.
    positives = [i for i in range(1000) if i % 5 == 0 or i % 7 == 0 or i % 11 == 0]
    assert len(positives) == 200 + 143 + 91 - 29 - 19 - 13 + 3 == 376
    # User and video are those of i mod 17 * 23.
    pairs = {i % (WATCHERS * WATCHED) for i in positives}
    # Even: 500, multiples of 3: 334, of 6: 167.
    interactions = 500 + 334 - 167
    assert meta["rows"] == {
        "inter": len(pairs), "item": VIDEOS, "user": USERS, "cinter": interactions, "comment": 1000
    }  # fmt: skip
    assert meta["notes"] == {
        "impressions_read": 1000,
        "impressions_not_positive": 1000 - 376,
        "captions_without_words": sum(v % len(CAPTIONS) in (3, 4, 5) for v in range(VIDEOS)),
        "comment_rows_not_positive": 1000 - interactions,
    }
    assert meta["users"] == {"inter": WATCHERS, "cinter": USERS}
    assert meta["videos"] == {"inter": WATCHED, "cinter": TALKED_ABOUT}
    times = [T0 + 60 * (389 * i % 1000) + i / 1000 for i in positives]
    stamps = [T0 + 61 * (271 * m % 1000) for m in range(1000) if m % 2 == 0 or m % 3 == 0]
    assert meta["time_range"] == [min(*times, *stamps), max(*times, *stamps)]
    assert meta["dropped"] == {} and meta["k_core"] == {} and meta["source"] == "kuaicomt"
    assert sorted(meta["raw_files"]) == sorted(f"{name}.csv" for name in thousand())


def test_all_repeats_and_k_core(tmp_path: Path, raw: Path) -> None:
    every = convert("kuaicomt", raw, tmp_path / "x", "--repeat", "all")
    assert same(every, as_text(kuaicomt(raw), repeat="all")) and len(every["inter"]) == 1 + 376
    files = thousand()
    # User u keeps the videos up to 25 - u, so some users and videos have few interactions.
    files["user_video_inter"] = [impression(i) for i in range(1000) if i % WATCHERS + i % WATCHED <= 25]
    folder = put(tmp_path / "fewer", files)
    for core in ((8, 6), (8, 0), (0, 6)):
        options = ["--min-user-inter", str(core[0]), "--min-item-inter", str(core[1])]
        got, wanted = convert("kuaicomt", folder, tmp_path / "y", *options), as_text(kuaicomt(folder), core=core)
        assert same(got, wanted) and len(wanted["inter"]) > 50
        lost = USERS + 1 - len(wanted["user"]), VIDEOS + 1 - len(wanted["item"])
        told = meta_of(tmp_path / "y")["k_core"]
        assert (told["users_dropped"], told["videos_dropped"]) == lost and max(lost) > 0


def renamed(names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Rows in which videos are named otherwise."""
    swap = {"video": {"photo_id": "video_id"}, "photo": {"video_id": "photo_id"}, "mixed": {}}[names]
    return lambda row: {swap.get(name, name): value for name, value in row.items()}


def in_other_units(row: dict[str, Any]) -> dict[str, Any]:
    """Impressions in seconds, comment interactions in milliseconds."""
    if "time_ms" in row:
        return {**row, "time_ms": repr(float(row["time_ms"]) / 1000)}
    return {**row, "time_stamp": f"{row['time_stamp']}000"} if "time_stamp" in row else row


VARIANTS: dict[str, dict[str, Any]] = {
    "tab": {"separator": "\t"},
    "tsv, CRLF and a byte-order mark": {"separator": "\t", "ending": ".tsv", "crlf": True},
    "video_id": {"change": renamed("video")},
    "photo_id": {"change": renamed("photo")},
    "other units": {"change": in_other_units},
    "gzip": {"pack": gzip.compress, "ending": ".csv.gz"},
    "zstd": {"pack": zstandard.compress, "ending": ".txt.zst"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_to_write_the_files_gives_the_same_data(tmp_path: Path, expected: Tables, name: str) -> None:
    way = VARIANTS[name]
    change = way.get("change", lambda row: row)
    files = {file: [change(row) for row in rows] for file, rows in thousand().items()}
    folder = put(tmp_path / "raw", files, way.get("separator", ","), way.get("ending", ".csv"))
    for path in folder.iterdir():
        content = path.read_bytes()
        if "crlf" in way:
            at = [row.count(b"\n") for row in content.split(b'"')[1::2]]  # line breaks inside quotes stay
            assert any(at) or path.stem not in ("video_features", "comment_features")
            parts = content.split(b'"')
            parts[0::2] = [part.replace(b"\n", b"\r\n") for part in parts[0::2]]
            content = b"\xef\xbb\xbf" + b'"'.join(parts)
        path.write_bytes(way.get("pack", bytes)(content))
    assert same(convert("kuaicomt", folder, tmp_path / "x"), expected)


def test_columns_and_users_may_be_missing(tmp_path: Path) -> None:
    wanted = {
        "user_video_inter": "user_id video_id time_ms is_like is_collect is_forward",
        "video_features": "video_id caption",
        "comment_features": "comment_id comment_content video_id",
        "user_comment_inter": "user_id comment_id time_stamp photo_id is_like is_reply",
    }
    files = thousand()
    folder = put(
        tmp_path / "raw",
        {name: [{c: row[c] for c in columns.split()} for row in files[name]] for name, columns in wanted.items()},
    )
    path = folder / "video_features.csv"
    path.write_text(path.read_text().replace(',""\n', ",instead\n").replace(",\n", ",instead\n"))  # no category
    got = convert("kuaicomt", folder, tmp_path / "x")
    assert same(got, as_text(kuaicomt(folder))) and "user" not in got
    assert got["item"][0] == ("item_id:token", "title:token_seq", "tags:token_seq")


def test_authors_and_categories_read_as_missing_are_missing(tmp_path: Path) -> None:
    files = thousand()
    odd = ("NA", " null ", "[PAD]", "nan", "", "Nan", "n/a")
    for place, text in enumerate(odd):
        files["video_features"][place] |= {"author_id": text, "category": text, "caption": "#"}
    files["video_features"][4] |= {"caption": "words"}  # nothing else would be a title
    for place in (0, 1, 2, 3, 6):
        files["video_features"][place] |= {"caption": f"#tag{place}"}
    folder = put(tmp_path / "raw", files)
    got = convert("kuaicomt", folder, tmp_path / "x")
    assert same(got, as_text(kuaicomt(folder)))
    items = [dict(zip((name.split(":")[0] for name in got["item"][0]), row, strict=True)) for row in got["item"][1:]]
    assert [row["author_id"] for row in items[:7]] == [row["category"] for row in items[:7]] == [*[""] * 5, "Nan", ""]
    assert [row["tags"] for row in items[:7]] == ["tag0", "tag1", "tag2", "tag3", "", "Nan", "tag6"]


@pytest.mark.parametrize(("caption", "category", "title", "tags"), CAPTIONS)
def test_the_slow_conversion_splits_captions_as_the_table_says(
    caption: str, category: str, title: str, tags: str
) -> None:
    assert title_and_tags(caption, category) == (title, tags)


RULES: list[tuple[str, Callable[[int], bool]]] = [
    ("long_view", lambda i: i % 3 == 0),
    ("share", lambda i: i % 11 == 0),
    (" like , follow ", lambda i: i % 5 == 0 or i % 13 == 0),
    ("long_view = 1 AND is_hate = 0", lambda i: i % 3 == 0 and i % 29 != 0),
    ("play_time_ms >= 0.9 * duration_ms", lambda i: 1500 * i >= 54_000),
    ("is_like + is_collect > 1", lambda i: i % 35 == 0),
    ("is_like - is_collect", lambda i: (i % 5 == 0) != (i % 7 == 0)),
]


@pytest.mark.parametrize(("text", "rule"), RULES)
def test_positive_rules(tmp_path: Path, raw: Path, text: str, rule: Callable[[int], bool]) -> None:
    got = convert("kuaicomt", raw, tmp_path / "x", "--positive", text, "--repeat", "all")
    chosen = [i for i in range(1000) if rule(i)]
    times = [repr(round(T0 + 60 * (389 * i % 1000) + i / 1000, 3)) for i in chosen]
    assert [row[2] for row in got["inter"][1:]] == sorted(times)
    meta = meta_of(tmp_path / "x")
    assert meta["notes"]["impressions_not_positive"] == 1000 - len(chosen) and meta["options"]["positive"] == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("likes", "--positive 'likes': likes names no flag or column of user_video_inter.csv; give flags (like, "),
        (
            "user_id",
            "--positive 'user_id': user_id names no flag or column of user_video_inter.csv; give flags (like, ",
        ),
        ("like,", "--positive: 'like,' is not an SQL expression: "),
        ("", "--positive: '' is not an SQL expression: "),
        ("is_like = ", "--positive: 'is_like = ' is not an SQL expression: "),
        ("1 = 1", "--positive '1 = 1': it names no flag or column of user_video_inter.csv; give flags"),
        ("likes = 1", "likes names no flag or column of user_video_inter.csv"),
        ("is_like = 'a'", "--positive: \"is_like = 'a'\" cannot be evaluated: cannot compare string"),
        ("concat(is_like, 'a')", "is not a condition"),
        ("max(is_like) > 0", "--positive: 'max(is_like) > 0' needs more than one row at a time"),
        ("is_like > avg(is_like)", "--positive: 'is_like > avg(is_like)' needs more than one row at a time"),
    ],
)
def test_a_bad_rule_is_one_message(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert main(["kuaicomt", str(raw), str(tmp_path / "x"), "--positive", text]) == 2
    assert_one_message(capsys, message)
    assert list(tmp_path.iterdir()) == []


def assert_one_message(capsys: pytest.CaptureFixture[str], message: str) -> None:
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("lsvcr-data kuaicomt: ") and message in said.err
    assert "Traceback" not in said.err and "Warning" not in said.err


# ------------------------------------------------------------------ days and users


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        (["--since", "2023-10-01T04:00"], T0 + 4 * 3600, None),
        (["--until", "2023-10-01 12:30:00"], None, T0 + 12.5 * 3600),
        (["--since", "2023-09-30T20:00:00Z", "--until", "2023-10-01T08:00"], T0 + 4 * 3600, T0 + 8 * 3600),
        (["--since", "2023-10-01", "--until", "2023-10-02"], T0, T0 + 86_400),
    ],
)
def test_days(tmp_path: Path, raw: Path, options: list[str], low: float | None, high: float | None) -> None:
    tables, gone = kuaicomt(raw), 0
    for suffix in ("inter", "cinter"):
        stay = [r for r in tables[suffix] if (low or 0) <= r["timestamp"] < (high or 1e10)]
        gone += len(tables[suffix]) - len(stay)
        tables[suffix] = stay
    assert same(convert("kuaicomt", raw, tmp_path / "x", *options), as_text(tables))
    assert meta_of(tmp_path / "x")["notes"].get("positives_outside_the_days_or_users_chosen", 0) == gone


def test_a_share_of_the_users_is_the_same_in_every_file_and_every_time(tmp_path: Path, raw: Path) -> None:
    got = convert("kuaicomt", raw, tmp_path / "x", "--user-share", "0.5")
    users = {row[0] for row in got["user"][1:]}
    assert 3 < len(users) < 16  # of 19; the draw is by the id alone, so this never changes
    tables = kuaicomt(raw)
    for suffix in ("inter", "cinter", "user"):
        tables[suffix] = [row for row in tables[suffix] if row["user_id"] in users]
    assert same(got, as_text(tables))
    files = {name: [*reversed(rows)] for name, rows in thousand().items()}
    for row in files["user_features"]:
        row["user_id"] = f" {row['user_id']} "  # blanks around an id do not count
    del files["video_features"][0], files["user_features"][0]
    folder = put(tmp_path / "other", files)
    more = convert("kuaicomt", folder, tmp_path / "y", "--user-share", "0.7", "--on-error", "skip")
    assert {row[0] for row in more["user"][1:]} >= users - {"1018"}
    with_days = convert("kuaicomt", raw, tmp_path / "z", "--user-share", "0.5", "--since", "2023-10-01T04:00")
    for suffix in ("inter", "cinter"):
        tables[suffix] = [row for row in tables[suffix] if row["timestamp"] >= T0 + 4 * 3600]
    assert same(with_days, as_text(tables))


@pytest.mark.parametrize("share", ["0", "1.5", "x", "nan", "-1"])
def test_a_share_that_is_none(tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str], share: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["kuaicomt", str(raw), str(tmp_path / "x"), "--user-share", share])
    assert caught.value.code == 2 and "is no share of the users (above 0, at most 1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "soon"], "--since 'soon' is no day or time; give one such as 2023-10-07"),
        (["--until", "2023-02-30"], "--until '2023-02-30' is no day or time"),
        (["--since", "2023-10-02", "--until", "2023-10-02"], "--since 2023-10-02 is not before --until 2023-10-02"),
    ],
)
def test_bad_days_are_one_message(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["kuaicomt", str(raw), str(tmp_path / "x"), *options]) == 2
    assert_one_message(capsys, message)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ faults

OUTSIDE = "timestamp outside 1990–2100 in"
FINE = "timestamp in milli- or microseconds, seconds expected, in"
MISSING = "that is empty or read as missing (NA, null …) in"
FAULTS: dict[str, dict[str, tuple[dict[str, Any], str]]] = {  # by file: what a good row becomes, the message
    "user_video_inter": {
        "user NA": ({"user_id": "NA"}, f"user_id {MISSING} .inter"),
        "video null": ({"video_id": "null"}, f"item_id {MISSING} .inter"),
        "video unknown": ({"video_id": "7"}, "item_id in .inter that .item does not have"),
        "user unknown": ({"user_id": "7"}, "user_id in .inter that .user does not have"),
        "time empty": ({"time_ms": ""}, "malformed number in .inter"),
        "time text": ({"time_ms": "2023-10-01"}, "malformed number in .inter"),
        "time nan": ({"time_ms": "nan"}, "malformed number in .inter"),
        "time in s": ({"time_ms": "1696141175"}, f"{OUTSIDE} .inter"),
        "time in us": ({"time_ms": "1696141175214000"}, f"{FINE} .inter"),
        "flag": ({"is_collect": "yes"}, "malformed number in is_collect"),
        "flag empty": ({"is_like": ""}, "malformed number in is_like"),
        "flag inf": ({"is_forward": "inf"}, "malformed number in is_forward"),
        "played": ({"play_time_ms": "long"}, "malformed number in .inter"),
    },
    "video_features": {
        "video id": ({"video_id": "nan"}, f"item_id {MISSING} .item"),
        "upload": ({"video_id": "77", "upload_dt": "2023-02-30"}, "malformed number in .item"),
        "upload late": ({"video_id": "77", "upload_dt": "3023-02-03"}, "upload_time outside 1990–2100 in .item"),
        "no title": ({"video_id": "77", "caption": " \x07", "category": ""}, "empty title in .item"),
        "video twice": ({"caption": "again"}, "duplicated item_id in .item"),
    },
    "comment_features": {
        "comment id": ({"comment_id": ""}, f"comment_id {MISSING} .comment"),
        "comment twice": ({"comment_content": "again"}, "duplicated comment_id in .comment"),
        "comment of no video": ({"comment_id": "8", "video_id": "7"}, "item_id in .comment that .item does not have"),
        "likes": ({"comment_id": "8", "comment_like_cnt": "1k"}, "malformed number in .comment"),
    },
    "user_comment_inter": {
        "liked NA": ({"comment_id": "NA"}, f"comment_id {MISSING} .cinter"),
        "liked unknown": ({"comment_id": "8"}, "comment_id in .cinter that .comment does not have"),
        "liked elsewhere": ({"photo_id": 50_002}, "item_id in .cinter that is not its comment's"),
        "liked nowhere": ({"photo_id": 7}, "item_id in .cinter that .item does not have"),
        "liked in ms": ({"time_stamp": "1696141175214"}, f"{FINE} .cinter"),
        "liked late": ({"time_stamp": "99999999999"}, f"{OUTSIDE} .cinter"),
        "like": ({"is_like": "x"}, "malformed number in is_like"),
    },
    "user_features": {
        "user id": ({"user_id": ""}, f"user_id {MISSING} .user"),
        "user twice": ({"fans_count": "9"}, "duplicated user_id in .user"),
        "fans": ({"user_id": "9", "fans_count": "1w"}, "malformed number in fans_count"),
    },
}


@pytest.mark.parametrize(
    ("file", "change", "kind"),
    [pytest.param(file, *fault, id=name) for file, faults in FAULTS.items() for name, fault in faults.items()],
)
def test_every_fault_is_fatal_or_dropped(
    tmp_path: Path,
    small: tuple[Path, Tables],
    capsys: pytest.CaptureFixture[str],
    file: str,
    change: dict[str, Any],
    kind: str,
) -> None:
    files = few()
    model = next(row for row in files[file] if row.get("is_like", 1) and row.get("photo_id", 50_000) != 50_002)
    files[file].append({**model, **change})  # without it the data set is `small`
    folder = put(tmp_path / "raw", files)
    content = (folder / f"{file}.csv").read_bytes()
    line = content.count(b"\n")  # the last row's, which has no line break inside
    assert main(["kuaicomt", str(folder), str(tmp_path / "x")]) == 2
    assert_one_message(capsys, f"{file}.csv: 1 × {kind} (line {line}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert same(convert("kuaicomt", folder, tmp_path / "x", "--on-error", "skip"), small[1])
    assert meta_of(tmp_path / "x")["dropped"] == {kind: 1}
    assert f"1 × {kind}" in capsys.readouterr().err


@pytest.mark.parametrize("time", ["nan", "inf", "1696141175", "", "soon"])
def test_a_bad_time_is_a_fault_with_days_chosen_too(
    tmp_path: Path, small: tuple[Path, Tables], capsys: pytest.CaptureFixture[str], time: str
) -> None:
    files = few()
    files["user_video_inter"].append({**files["user_video_inter"][0], "time_ms": time})
    folder = put(tmp_path / "raw", files)
    for days in (["--since", "2023-09-30"], ["--until", "2023-10-03"]):
        assert main(["kuaicomt", str(folder), str(tmp_path / "x"), *days]) == 2
        assert "user_video_inter.csv: 1 × " in (said := capsys.readouterr().err) and "(line 42: timestamp=" in said


def test_a_hashtag_of_control_characters_alone_is_no_title(tmp_path: Path, small: tuple[Path, Tables]) -> None:
    files = few()
    files["video_features"].append({**video(7), "video_id": 77, "caption": "#\x07", "category": "food"})
    got = convert("kuaicomt", put(tmp_path / "raw", files), tmp_path / "x")
    assert got["item"][-1][:3] == ("77", "food", "food")


# ------------------------------------------------------------------ generated files


def test_generated_files_with_and_without_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The benchmark's files: what its truth says, and the same data set when faults are added and dropped."""
    generator = load("kuaicomt_raw")
    sizes = generator.Sizes(impressions=3000, comments=900, comment_interactions=300, users=40, videos=60)
    for name, dirty in (("clean", 0.0), ("dirty", 0.05)):
        generator.generate(tmp_path / name, generator.Options(sizes, seed=3, dirty=dirty))
    got = convert("kuaicomt", tmp_path / "clean", tmp_path / "x")
    assert same(got, as_text(kuaicomt(tmp_path / "clean"))) and check(tmp_path / "x") == []
    truth = json.loads((tmp_path / "dirty" / "truth.json").read_text())
    positives, meta = truth["positives"]["like|collect|forward"], meta_of(tmp_path / "x")
    assert meta["rows"]["inter"] == positives["pairs"] and positives["repeats"] > 0
    assert (meta["users"]["inter"], meta["videos"]["inter"]) == (positives["users"], positives["videos"])
    assert (meta["rows"]["cinter"], meta["users"]["cinter"]) == (300, truth["comment_interactions"]["users"])

    assert main(["kuaicomt", str(tmp_path / "dirty"), str(tmp_path / "y")]) == 2
    assert not (tmp_path / "y").exists() and "faults in the raw data, nothing written" in capsys.readouterr().err
    mended = convert("kuaicomt", tmp_path / "dirty", tmp_path / "y", "--on-error", "skip")
    # A copied comment interaction is a row like any other; the joint data count those of one moment once.
    header, *events = mended.pop("cinter")
    copies = truth["faults"]["user_comment_inter"]["copy"]
    assert copies > 0 and list(dict.fromkeys(events)) == list(dict.fromkeys(got["cinter"][1:]))
    assert header == got["cinter"][0] and len(events) == 300 + copies
    assert mended == {suffix: rows for suffix, rows in got.items() if suffix != "cinter"}
    harmful = {**truth["faults"], "user_video_inter": truth["faults_among_positives"]["like|collect|forward"]}
    copied = ("user_video_inter", "user_comment_inter")
    expected = sum(
        count
        for file, kinds in harmful.items()
        for kind, count in kinds.items()
        if kind != "copy" or file not in copied
    )
    assert sum(meta_of(tmp_path / "y")["dropped"].values()) == expected


# ------------------------------------------------------------------ files


def two_endings(folder: Path) -> None:
    (folder / "comment_features.tsv.gz").write_bytes(b"")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{name}.csv").unlink()


def cut(name: str, lines: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / f"{name}.csv"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))

    return change


def header(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / f"{name}.csv"
        path.write_text(path.read_text().replace(old, new, 1))

    return change


NAMES = ["user_video_inter", "video_features", "comment_features", "user_comment_inter", "user_features"]
BROKEN: list[tuple[Callable[[Path], None], str]] = [
    *((without(name), f"raw has no {name}.csv (also .tsv, .txt, with .gz or .zst); it has ") for name in NAMES[:4]),
    (two_endings, "raw has comment_features.csv and comment_features.tsv.gz; keep one of them"),
    *((cut(name, 0), f"{name}.csv is empty") for name in NAMES),
    *((cut(name, 1), f"{name}.csv: 1 × file without a row") for name in NAMES),
    (header("user_video_inter", "time_ms", "when"), "user_video_inter.csv has no column time_ms or timestamp or "),
    (header("video_features", "video_id", "id"), "video_features.csv has no column video_id or photo_id; it has id, "),
    (header("video_features", "caption", "title"), "video_features.csv has no column caption; it has video_id, "),
    (header("user_comment_inter", "is_reply", "x"), "user_comment_inter.csv has no column is_reply; it has user_id, "),
    (header("user_features", "user_id", "uid"), "user_features.csv has no column user_id; it has uid, "),
    (header("comment_features", "comment_content", "video_id"), "the header names video_id more than once"),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(BROKEN)))
def test_bad_files_are_one_message_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    change, message = BROKEN[at]
    change(put(tmp_path / "raw", few()))
    assert main(["kuaicomt", str(tmp_path / "raw"), str(tmp_path / "x")]) == 2
    assert_one_message(capsys, message)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_nothing_left_is_an_error(
    tmp_path: Path, small: tuple[Path, Tables], capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--since", "2030-01-01"], ["--min-user-inter", "999"]):
        assert main(["kuaicomt", str(small[0]), str(tmp_path / "x"), *options]) == 2
        assert_one_message(capsys, "no video interaction is left, nothing was written; are the files whole, ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_or_cannot_be_read(
    tmp_path: Path, small: tuple[Path, Tables], capsys: pytest.CaptureFixture[str]
) -> None:
    for raw in (tmp_path / "none", small[0] / "user_features.csv"):
        assert main(["kuaicomt", str(raw), str(tmp_path / "x")]) == 2
        assert_one_message(capsys, "is not a folder; give the folder of user_video_inter, ")
    folder = put(tmp_path / "in" / "raw", few())
    folder.parent.chmod(0)
    me = os.geteuid()
    try:
        if me == 0:  # who may read everything
            os.seteuid(65534)
        assert main(["kuaicomt", str(folder), str(tmp_path / "x")]) == 2
    finally:
        os.seteuid(me)
        folder.parent.chmod(0o700)
    assert_one_message(capsys, "Permission denied")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# ------------------------------------------------------------------ users


def users_with(tmp_path: Path, name: str) -> Path:
    files = few()
    files["user_features"] = [{name: 5, **row} for row in files["user_features"]]
    return put(tmp_path / "raw", files)


def test_an_index_without_a_name_is_left_out_of_the_users(tmp_path: Path, small: tuple[Path, Tables]) -> None:
    assert same(convert("kuaicomt", users_with(tmp_path, ""), tmp_path / "x"), small[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Fans_count", ".user would have the columns Fans_count and fans_count, which differ in case only"),
        ("a:b", "'a:b' cannot be the name of a column of .user: blanks, colons and quotes have a meaning there"),
        ("a b", "'a b' cannot be the name of a column of .user"),
        ("_file", "the column name _file is taken; rename it in the raw file"),
    ],
)
def test_column_names_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert main(["kuaicomt", str(users_with(tmp_path, name)), str(tmp_path / "x")]) == 2
    assert_one_message(capsys, message)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
