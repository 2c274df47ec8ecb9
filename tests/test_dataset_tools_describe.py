"""`describe`: every number of a small data set worked out by hand, every warning, and what the HTML file holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from damaged_folder import damaged
from html_pages import Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_tools import describe
from dataset_tools.__main__ import main
from dataset_tools.describe import Table
from dataset_tools.errors import DataToolError
from dataset_tools.portrait import _bins, page
from dataset_tools.portrait_format import percent
from dataset_tools.portrait_numbers import count
from dataset_tools.portrait_tables import AtomicTables, find_files
from dataset_tools.portrait_values import FastUsers, Ids, Part, Portrait, Spectrum, Texts, Times
from dataset_tools.portrait_warnings import Hint, known_scripts, warnings
from dataset_tools.schema import read_atomic
from dataset_tools.scripts import EMOJI, NONE, count_scripts
from dataset_tools.writer import write_dataset
from recbole_lsvcr.data.comment_candidates import CommentIndex
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables

HOUR, DAY = 3_600, 86_400
START = 1_600_041_600  # 2020-09-14 00:00 UTC
Frames = dict[str, pl.DataFrame]


def events(rows: list[tuple[Any, ...]], *columns: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=[*columns, "timestamp"], orient="row")


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five users, five videos, six comments; the third of its four days is empty."""
    inter = [
        ("a", "1", 0), ("b", "1", HOUR), ("a", "2", 2 * HOUR), ("c", "1", 3 * HOUR), ("a", "2", 5 * HOUR),
        ("b", "2", DAY), ("c", "2", DAY + HOUR),
        ("a", "3", 3 * DAY), ("b", "4", 3 * DAY + HOUR),
        ("d", "3", 3 * DAY + 2 * HOUR), ("c", "3", 3 * DAY + 3 * HOUR), ("d", "1", 3 * DAY + 4 * HOUR),
    ]  # fmt: skip
    cinter = [
        ("a", "c1", "1", 2 * HOUR), ("a", "c1", "1", 2 * HOUR), ("a", "c2", "1", 3 * HOUR),
        ("b", "c3", "2", DAY), ("a", "c1", "1", DAY + 4 * HOUR),
        ("b", "c3", "2", 3 * DAY + HOUR // 2), ("e", "c5", "3", 3 * DAY + 2 * HOUR),
    ]  # fmt: skip
    comments = [
        ("c1", "1", "Hello there", "", START - DAY),
        ("c2", "1", "Hello there", "", START),
        ("c3", "2", "你好", "", None),
        ("c4", "2", "", "", START),
        ("c5", "3", "Hello there", "", START + 3 * DAY),
        ("c6", "1", "😀 wow", "c1", START + HOUR),
    ]
    folder = tmp_path_factory.mktemp("describe") / "hand"
    tables = {
        "inter": events([(u, i, START + t) for u, i, t in inter], "user_id", "item_id"),
        "item": pl.DataFrame({"item_id": list("12345"), "title": ["One", "Two", "Two", "Привет", "日本のう"]}),
        "user": pl.DataFrame({"user_id": list("abcde")}),
        "cinter": events([(u, c, i, START + t) for u, c, i, t in cinter], "user_id", "comment_id", "item_id"),
        "comment": events(comments, "comment_id", "item_id", "content", "parent_id"),
    }
    write_dataset(folder, tables, meta={"source": "by hand"})
    return folder


def test_every_number_is_what_it_is_by_hand(hand: Path) -> None:
    unseen = dict.fromkeys(("Han", "Kana", "Hangul", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Cyrillic"), 0)
    unseen |= {"other Indic": 0, "other": 0, NONE: 0}
    assert count(hand, split=(0.6, 0.75)) == Portrait(
        name="hand",
        source="by hand",
        synthetic=False,
        rows={"inter": 12, "item": 5, "user": 5, "cinter": 7, "comment": 6},
        other_rows={},
        users=5,
        users_with_inter=4,  # e comments only
        users_with_both=2,  # a, b
        videos=5,
        videos_without_inter=1,
        inter=12,
        inter_repeats=1,  # a, 2
        density=11 / 20,
        cinter=6,  # one row is given twice
        cinter_repeats=2,  # a, c1 and b, c3
        records=5,
        comments=6,
        replies=1,
        untimed_comments=1,
        inter_per_user=Spectrum((2, 3, 4), (1, 2, 1)),
        inter_per_video=Spectrum((0, 1, 3, 4), (1, 1, 1, 2)),
        comments_per_video=Spectrum((0, 1, 2), (2, 1, 2)),
        records_per_user=Spectrum((1, 2), (1, 2)),
        fast_users=FastUsers(number=0, share=0.0, limit=1_000, examples=()),
        times=Times(
            first=START,
            last=START + 3 * DAY + 4 * HOUR,
            step=60,
            inter_by_day=(5, 2, 0, 5),
            cinter_by_day=(2, 2, 0, 2),
            inter_by_hour=(3, 3, 2, 2, 1, 1, *[0] * 18),
            cinter_by_hour=(2, 0, 2, 1, 1, *[0] * 19),
            empty_days=1,
            longest_gap=1,
            gap_start=START + 2 * DAY,
            before_gap=11 / 18,
        ),
        boundaries=(START + 3 * DAY, START + 3 * DAY + 2 * HOUR),  # of the 8th and the 10th interaction
        split={
            # a touched both comments of its video before it, so its two records have none to rank against.
            "train": Part(inter=7, instances=4, unseen_targets=0, users=3, unseen_users=0, records=3, lonely_records=2),
            "valid": Part(inter=2, instances=2, unseen_targets=2, users=2, unseen_users=0, records=1, lonely_records=0),
            "test": Part(inter=3, instances=2, unseen_targets=1, users=2, unseen_users=1, records=1, lonely_records=1),
        },
        titles=Texts(
            number=5,
            empty=0,
            repeats=1,
            repeats_nearby=0,
            lengths=Spectrum((3, 4, 6), (3, 1, 1)),
            scripts={**unseen, "Latin": 3, "Cyrillic": 1, "Kana": 1, EMOJI: 0},
        ),
        contents=Texts(
            number=6,
            empty=1,
            repeats=2,
            repeats_nearby=1,
            lengths=Spectrum((0, 2, 5, 11), (1, 1, 1, 3)),
            scripts={**unseen, "Latin": 4, "Han": 1, EMOJI: 1},
        ),
        ids={
            kind: Ids(number=number, floats=0, long=0, rounded=0, example="")
            for kind, number in (("user", 5), ("video", 5), ("comment", 6))
        },
    )


def test_a_spectrum_is_summed_up_as_its_values_would_be() -> None:
    values = np.array([0, 1, 3, 4, 4])
    some = Spectrum((0, 1, 3, 4), (1, 1, 1, 2))
    assert some.size == 5 and some.mean == values.mean()
    assert [some.quantile(share) for share in (0.2, 0.21, 0.5, 0.6, 0.61, 1)] == [0, 1, 3, 3, 4, 4]
    assert some.up_to(1) == 0.4
    assert some.share_of_top(0.2) == pytest.approx(1 / 3) and some.share_of_top(0.4) == pytest.approx(2 / 3)
    differences = np.abs(values[:, None] - values[None, :]).mean()
    assert some.gini == pytest.approx(differences / (2 * values.mean()))
    assert Spectrum((7,), (3,)).gini == pytest.approx(0)
    nothing = Spectrum()
    assert (nothing.mean, nothing.quantile(0.5), nothing.gini, nothing.up_to(3)) == (0, 0, 0, 0)


def test_bins_double() -> None:
    names, (first, second) = _bins(Spectrum((0, 1, 2, 3, 4, 5, 9), (1, 2, 3, 4, 5, 6, 7)), Spectrum((2, 1024), (1, 1)))
    assert names[:6] == ["0", "1", "2", "3–4", "5–8", "9–16"] and names[-1] == "513–1,024"
    assert first == [1, 2, 3, 9, 6, 7, 0, 0, 0, 0, 0, 0] and second == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Ärger über naïve", "Latin"),
        ("我a", "Latin"),
        ("没有遗憾 ok", "Han"),
        ("𠀀", "Han"),
        ("日本語です", "Kana"),
        ("ｶﾀｶﾅ", "Kana"),
        ("안녕", "Hangul"),
        ("Привет, ok", "Cyrillic"),
        ("γειά", "Greek"),
        ("مرحبا", "Arabic"),
        ("שלום", "Hebrew"),
        ("नमस्ते", "Devanagari"),
        ("வணக்கம்", "other Indic"),
        ("สวัสดี", "Thai"),
        ("გამარჯობა", "other"),
        ("123 !? ×÷", NONE),
        ("😀👍🏽❤️", NONE),
    ],
)  # fmt: skip
def test_the_script_of_a_text(text: str, script: str) -> None:
    found = count_scripts(pl.Series([text, ""]))
    assert {name for name, number in found.items() if number and name != EMOJI} == {script}
    assert found[script] == 1 and found[EMOJI] == ("😀" in text)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(['"', '""', "NA", "null", "'", "\\", "#x", "a\tb", " "]), max_size=8
    )
)
def test_what_is_read_is_what_the_reader_reads(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("read") / "x"
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    numbers = [str(place) for place in range(len(texts))]
    tables = {
        "inter": events([("NA", "v", START + 0.125)], "user_id", "item_id"),
        "item": pl.DataFrame({"item_id": ["v"], "title": ['"t"']}),
        "cinter": events([], "user_id", "comment_id", "item_id").cast(pl.String),
        "comment": pl.DataFrame(
            {"comment_id": numbers, "item_id": ["v"] * len(texts), "content": texts, "parent_id": texts},
            schema_overrides=dict.fromkeys(("comment_id", "item_id", "content", "parent_id"), pl.String),
        ),
    }
    write_dataset(folder, tables, meta={"source": "test"})
    with duckdb.connect() as sql:
        data = AtomicTables(sql, find_files(folder), folder.parent)
        read = [text for block in data.texts("comment") for text in block.to_list()]
        frame = read_atomic(folder / "x.comment")
        assert sorted(read) == sorted(frame["content"].to_list())
        found = data.run("SELECT comment_id, length, reply FROM comment ORDER BY comment_id::INTEGER")
        lengths = frame["content"].str.len_chars().to_list()
        assert found == list(zip(numbers, lengths, (frame["parent_id"] != "").to_list(), strict=True))
        assert [block.to_list() for block in data.texts("item")] == [['"t"']]
        assert data.run("SELECT user_id FROM person") == [("NA",)] and data.run("SELECT t FROM inter") == [
            (START + 0.125,)
        ]


@pytest.mark.parametrize("split", [(0.7, 0.85), (0.29, 0.29), (1_709_900_000.0, 1_711_000_000.0)])
def test_the_split_is_the_plugins(tiny_data: Path, split: tuple[float, float]) -> None:
    numbers = count(tiny_data / "tiny", split=split)
    data = JointData(Tables.load(tiny_data / "tiny"), split={"time": list(split)}) if split[0] < split[1] else None
    if data is None:
        assert numbers.split["valid"] == Part(0, 0, 0, 0, 0, 0, 0)
        return
    assert numbers.boundaries == tuple(data.split.boundaries) and numbers.synthetic
    candidates = CommentIndex(data)
    for phase, part in enumerate(numbers.split.values()):
        rows, records = data.rows("video", phase), data.rows("comment", phase)
        users = np.unique(data.videos.user[rows])
        assert (part.instances, part.users, part.records) == (len(rows), len(users), len(records))
        assert part.unseen_targets == (data.train_item_count[data.videos.item[rows]] == 0).sum()
        assert part.unseen_users == (data.train_user_count[users] == 0).sum()
        lists = candidates.lists(records)
        assert part.lonely_records == (np.bincount(lists.row[~lists.positive], minlength=len(records)) == 0).sum()


# ---------------------------------------------------------------------- warnings


def sound() -> Frames:
    """30 users, 20 videos, 100 comments, 20 days; nothing to warn about."""
    inter = [
        (f"u{user}", f"v{(user + 3 * step) % 20}", START + (2 * step + user % 2) * DAY + 7_001 * user)
        for step in range(10)
        for user in range(30)
    ]
    cinter = [
        (user, f"c{video[1:]}-{place % 5}", video, time + 60)
        for place, (user, video, time) in enumerate(inter)
        if place % 2
    ]
    comments = [
        (f"c{video}-{place}", f"v{video}", f"Comment {place} of video {video}", START - DAY)
        for video in range(20)
        for place in range(5)
    ]
    return {
        "inter": events(inter, "user_id", "item_id").sort("timestamp"),
        "item": pl.DataFrame({"item_id": [f"v{k}" for k in range(20)], "title": [f"Title {k}" for k in range(20)]}),
        "cinter": events(cinter, "user_id", "comment_id", "item_id").sort("timestamp"),
        "comment": events(comments, "comment_id", "item_id", "content"),
    }


def hints_of(folder: Path, tables: Frames, encoder: str = "minilm", **options: Any) -> dict[str, Hint]:
    write_dataset(folder, tables, meta={"source": "test"}, overwrite=True)
    found = list(warnings(count(folder, **options), encoder))
    for hint in found:
        assert hint.text[0].isupper() or hint.text[0].isdigit() or hint.text[0] == ".", hint
        assert hint.text.endswith(".") and ". " not in hint.text and any(map(str.isdigit, hint.text)), hint
    return {hint.key: hint for hint in found}


def test_a_sound_data_set_has_no_warnings(tmp_path: Path) -> None:
    assert hints_of(tmp_path / "x", sound()) == {}


def change(suffix: str, **columns: pl.Expr) -> Callable[[Frames], None]:
    def apply(tables: Frames) -> None:
        tables[suffix] = tables[suffix].with_columns(**columns)

    return apply


def times(change_of_time: Callable[[pl.Expr], pl.Expr]) -> Callable[[Frames], None]:
    def apply(tables: Frames) -> None:
        for suffix in ("inter", "cinter"):
            tables[suffix] = tables[suffix].with_columns(change_of_time(pl.col("timestamp")))

    return apply


def add(suffix: str, rows: list[tuple[Any, ...]]) -> Callable[[Frames], None]:
    def apply(tables: Frames) -> None:
        more = pl.DataFrame(rows, schema=tables[suffix].schema, orient="row")
        tables[suffix] = pl.concat([tables[suffix], more])

    return apply


def burst(number: int, seconds: float) -> Callable[[Frames], None]:
    """One user has `number` interactions at equal distances within `seconds`."""
    return add("inter", [("bot", f"v{k % 20}", START + int(k * seconds / (number - 1))) for k in range(number)])


def late(tables: Frames, column: str, *, new: int) -> None:
    """The last 60 video interactions are of `new` new users or videos."""
    place = pl.int_range(pl.len())
    name = pl.format("new{}", place % new)
    tables["inter"] = tables["inter"].with_columns(
        pl.when(place >= pl.len() - 60).then(name).otherwise(pl.col(column)).alias(column)
    )


def cold(tables: Frames) -> None:
    late(tables, "item_id", new=5)
    add("item", [(f"new{k}", f"New title {k}") for k in range(5)])(tables)


def comments_per_video(most: int) -> Callable[[Frames], None]:
    def apply(tables: Frames) -> None:
        kept = pl.col("comment_id").str.slice(-1).cast(pl.Int64) < most
        for suffix in ("comment", "cinter"):
            tables[suffix] = tables[suffix].filter(kept)

    return apply


def without_comments(tables: Frames) -> None:
    tables["cinter"] = tables["cinter"].clear()


def one_commenter(tables: Frames) -> None:
    tables["cinter"] = tables["cinter"].filter(pl.col("user_id") == "u1")


def quiet_days(tables: Frames) -> None:
    for suffix in ("inter", "cinter"):
        tables[suffix] = tables[suffix].filter(~(pl.col("timestamp") - START).is_between(5 * DAY, 9 * DAY))


def ids(name: str) -> Callable[[Frames], None]:
    """Video `v7` is called `name`."""

    def apply(tables: Frames) -> None:
        for suffix in tables:
            tables[suffix] = tables[suffix].with_columns(item_id=pl.col("item_id").replace("v7", name))

    return apply


CASES: list[tuple[str, Callable[[Frames], None], str]] = [
    ("lost_ids", ids("1.2e+05"), "1 (5.0 %) of the video ids look like rounded numbers, such as '1.2e+05'"),
    ("lost_ids", ids("17.0"), "'17.0'"),
    ("lost_ids", ids("7123456789012340000"), "'7123456789012340000'"),
    ("equal_times", times(lambda time: time * 0 + START), "All 450 events have the same time (2020-09-14 00:00)"),
    ("coarse_times", times(lambda time: time // DAY * DAY), "All 450 times are whole days"),
    ("coarse_times", times(lambda time: time // HOUR * HOUR), "All 450 times are whole hours"),
    ("gaps", quiet_days, " have no event, up to 4 in a row (from 2020-09-19 on;"),
    ("cold_targets", cold, "(100 %) of the test targets are videos without a training interaction"),
    ("new_users", lambda tables: late(tables, "user_id", new=10), "of the test users have no training interaction"),
    ("lonely_records", comments_per_video(1), "(100 %) of the test's comment records have no other comment"),
    ("few_comments", comments_per_video(1), "100 % of the videos have fewer than 2 comments"),
    ("fast_users", burst(30, 60), "1 user with 6.2 % of all interactions act too fast"),
    ("fast_users", burst(300, HOUR), "such as 'bot' with 300"),
    ("fast_users", burst(1_001, 20 * DAY), "more than 1,000 in all"),
    ("single_users", add("inter", [(f"one{k}", "v1", START + 61 * k) for k in range(31)]), "50.8 % of the users have"),
    ("single_videos", add("item", [(f"w{k}", f"Video {k}") for k in range(21)]), "51.2 % of the videos have one"),
    ("no_comment_histories", without_comments, "There are 0 comment interactions"),
    ("few_comment_histories", one_commenter, "Only 1 (3.3 %) of the users with video interactions"),
    (
        "untimed_comments",
        change("comment", timestamp=pl.when(pl.col("comment_id") > "c19").then(pl.col("timestamp"))),
        "of the comments have no posting time",
    ),
    (
        "short_titles",
        change("item", title=pl.when(pl.col("item_id") != "v3").then("title").otherwise(pl.lit(""))),
        "1 (5.0 %) of the titles are empty and 5.0 % shorter than 3 characters",
    ),
    ("short_titles", change("item", title=pl.col("item_id").str.slice(1)), "0 (0 %) of the titles are empty and 100 %"),
    (
        "empty_comments",
        change("comment", content=pl.when(pl.col("item_id") != "v3").then("content").otherwise(pl.lit(""))),
        "5 (5.0 %) of the comments are empty",
    ),
    (
        "repeated_comments",
        change("comment", content=pl.format("Comment of {}", pl.col("item_id"))),
        "80.0 % of the comments repeat the text of another one, 80.0 % one of the same video",
    ),
    (
        "encoder_language",
        change("comment", content=pl.format("没有遗憾 {}", pl.col("comment_id"))),
        "0 % of the titles and 100 % of the comments are in scripts (mostly Han) that the encoder 'minilm'",
    ),
]


@pytest.mark.parametrize(("key", "spoil", "text"), CASES, ids=[f"{key}-{k}" for k, (key, *_) in enumerate(CASES)])
def test_every_warning(tmp_path: Path, key: str, spoil: Callable[[Frames], None], text: str) -> None:
    tables = sound()
    spoil(tables)
    hints = hints_of(tmp_path / "x", tables)
    assert key in hints and text in hints[key].text, hints


@pytest.mark.parametrize("spoil", [burst(29, 30), burst(299, HOUR), burst(1_000, 20 * DAY)])
def test_a_busy_person_is_no_bot(tmp_path: Path, spoil: Callable[[Frames], None]) -> None:
    tables = sound()
    spoil(tables)
    assert "fast_users" not in hints_of(tmp_path / "x", tables)


def test_an_empty_part_is_warned_about(tmp_path: Path) -> None:
    hints = hints_of(tmp_path / "x", sound(), split=(0.8, 4e9))
    assert "leaves no video target for test: choose other boundaries" in hints["empty_part"].text


def test_rows_that_the_meta_file_does_not_know_are_warned_about(tmp_path: Path, hand: Path) -> None:
    folder = tmp_path / "hand"
    shutil.copytree(hand, folder)
    path = folder / "hand.inter"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    hints = {hint.key: hint.text for hint in warnings(count(folder))}
    assert hints["other_rows"].startswith(".inter has 11 rows but its meta file says 12")


def test_comment_files_may_be_missing_together(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_dataset(folder, sound(), meta={"source": "test"})
    for suffix in ("cinter", "comment", "meta.json"):
        (folder / f"x.{suffix}").unlink()
    numbers = count(folder)
    assert (numbers.comments, numbers.cinter, numbers.source) == (0, 0, "unknown")
    hints = list(warnings(numbers))
    assert [hint.key for hint in hints] == ["no_comment_histories"]
    assert "No warnings" not in page(numbers, describe.tables(numbers), hints)
    assert describe.as_text(numbers, describe.tables(numbers), hints).endswith(f"1 warning\n  - {hints[0].text}\n")


@pytest.mark.parametrize(
    ("encoder", "reads"),
    [
        ("minilm", {"Latin"}),
        ("sentence-transformers/all-MiniLM-L6-v2", {"Latin"}),
        ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", {"Latin", "Han", "Thai"}),
        ("hashing", {"Latin", "Han", "Thai"}),
        ("bert-base-chinese", {"Latin", "Han"}),
        ("some/folder", None),
    ],
)
def test_what_encoders_read(encoder: str, reads: set[str] | None) -> None:
    known = known_scripts(encoder)
    assert known is None if reads is None else known is not None and known & {"Latin", "Han", "Thai"} == reads


# ---------------------------------------------------------------------- the command and its files


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    name, user = "<script>alert(1)<b>&", "<img src=x onerror=alert(2)>\"'"
    tables = sound()
    add("inter", [(user, f"v{k % 20}", START + k) for k in range(31)])(tables)
    folder = tmp_path / name
    write_dataset(folder, tables, meta={"source": "</script><script>alert(3)", "synthetic": True})
    assert main(["describe", str(folder), "--html", str(tmp_path / "x.html")]) == 0
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    found = Page(text)
    assert [tag for tag, _ in found.tags if tag in ("script", "img", "link", "iframe", "b")] == ["script"] * 3
    found.assert_nothing_is_loaded()
    assert not [attributes for _, attributes in found.tags if "href" in attributes]
    assert found.texts["title"] == [f"{name} (synthetic) – portrait of a data set"]
    assert found.texts["h1"] == [f"{name} "] and found.texts["span"] == ["synthetic data"]
    assert found.texts["p"][0].startswith("source: </script><script>alert(3) · 31 users · 20 videos · 100 comments")
    assert repr(user) in found.texts["li"][0] and "such as" in found.texts["li"][0]
    charts, library, draw = found.texts["script"]
    assert [tag for tag, _ in found.tags].count("table") == 6
    assert len(json.loads(charts)) == 9 and "plotly.js" in library[:200] and "showSendToCloud: false" in draw
    drawn = {attributes["id"] for tag, attributes in found.tags if tag == "div" and "id" in attributes}
    assert drawn == {chart["id"] for chart in json.loads(charts)}
    policy = next(attributes for tag, attributes in found.tags if "http-equiv" in attributes)["content"]
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'unsafe-inline'")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_draws_the_page(tmp_path: Path, hand: Path) -> None:
    assert main(["describe", str(hand), "--html", str(tmp_path / "x.html")]) == 0
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, str(tmp_path / "x.html")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.count("main-svg") >= 9


def test_what_is_printed(hand: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "x.json"
    assert main(["describe", str(hand), "--split", "0.6", "0.75", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hand (source: by hand)" and lines[-1] == f"wrote {path}"
    by_name = {line[2:].split("  ")[0]: line.split("  ")[-1].strip() for line in lines if line.startswith("  ")}
    assert by_name["users"] == "5" and by_name["… of these, with comment interactions too"] == "2 (50.0 %)"
    assert by_name["… video unseen in training"] == "1 (50.0 %)" and by_name["with emoji"] == "1 (20.0 %)"
    sizes = lines[3 : lines.index("Spread") - 1]
    assert len({len(line) for line in sizes}) == 1  # aligned
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["split"]["train"]["instances"] == 4 and value["titles"]["scripts"]["Cyrillic"] == 1
    assert {hint["key"] for hint in value["warnings"]} >= {"gaps", "untimed_comments"}


def test_shares_are_rounded_with_care() -> None:
    shown = [percent(share) for share in (0, 0.00001, 0.00123, 0.0099, 0.123, 0.9995, 1)]
    assert shown == ["0 %", "< 0.01 %", "0.12 %", "0.99 %", "12.3 %", "> 99.9 %", "100 %"]


def test_control_characters_do_not_reach_the_terminal(hand: Path) -> None:
    table = Table("T", ("", "n"), (("a", "1"),))
    text = describe.as_text(count(hand), [table], [Hint("x", "bad \x1b[2Jid\x07.")])
    assert "bad \ufffd[2Jid\ufffd." in text and "\x1b" not in text


SWAPPED: list[tuple[str, bytes, bytes, str]] = [
    ("item", b"One", b"\xff", "hand.item, line 2: not UTF-8"),
    ("item", b"One", b'"One', "hand.item, line 2: a quote is not closed"),
    ("item", b"One\n", b"One\n\n", "hand.item, line 3: 1 fields"),
    ("item", b"2\tTwo", b"1\tTwo", "hand.item: 1 row: repeat the item_id of another one; find such rows with"),
    ("item", b"title:", b"name:", "hand.item has no column title"),
    ("inter", b"\t1600041600\n", b"\t1_6\n", "hand.inter, line 2: timestamp is '1_6'"),
    ("inter", b"\t1600041600\n", b"\tinf\n", "hand.inter, line 2: timestamp is 'inf'"),
    ("inter", b"\t1600041600\n", b"\t\n", "1 row: have no timestamp"),
    ("inter", b"\t1600041600\n", b"\t1600041600000\n", "1 row: have a timestamp outside 1990–2100"),
    ("inter", b"a\t1\t", b"\t1\t", "1 row: have no user_id"),
    ("inter", b"a\t1\t", b"a\t9\t", "name a video that .item does not have"),
    ("comment", b"c4\t2", b"c4\t9", "name a video that .item does not have"),
    ("cinter", b"e\tc5", b"e\tc9", "name a comment that .comment does not have"),
    ("cinter", b"c5\t3", b"c5\t1", "name another video than their comment does"),
]
OTHER_FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "hand.item").unlink(), "hand.item is missing; a data set is a folder <name>"),
    (lambda folder: (folder / "hand.comment").unlink(), "hand.comment is missing"),
    (lambda folder: (folder / "hand.item").write_bytes(b""), "hand.item is empty"),
    (lambda folder: (folder / "hand.inter").write_text(HEADER), "has no video interactions"),
    (lambda folder: cut(folder / "hand.inter", 3), "the last line has no line break; is the file cut short?"),
    (lambda folder: cut(folder / "hand.inter", 12, b"\n"), "hand.inter, line 13: 2 fields, the header has 3"),
]
HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"


def cut(path: Path, length: int, end: bytes = b"") -> None:
    path.write_bytes(path.read_bytes()[:-length] + end)


def swap(path: Path, old: bytes, new: bytes) -> None:
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def swapped(suffix: str, old: bytes, new: bytes, message: str) -> tuple[Callable[[Path], object], str]:
    return lambda folder: swap(folder / f"hand.{suffix}", old, new), message


@pytest.mark.parametrize(("damage", "message"), [*(swapped(*case) for case in SWAPPED), *OTHER_FAULTS])
def test_a_data_set_that_cannot_be_read_is_one_message(
    tmp_path: Path, hand: Path, damage: Callable[[Path], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = damaged(hand, tmp_path, damage)
    assert main(["describe", str(folder), "--html", str(tmp_path / "x.html")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.startswith("lsvcr-data describe: ") and not printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hand"]


def test_what_cannot_be_written_is_one_message(tmp_path: Path, hand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for targets, message in (
        (["--html", str(tmp_path)], "it is a folder; give a file"),
        (["--html", str(hand / "hand.inter")], "that is the name of a data set's file"),
        (["--html", str(tmp_path / "x"), "--json", str(tmp_path / "x")], "--html and --json name the same file"),
        (["--json", str(tmp_path / "x"), "--html", str(tmp_path / "file" / "x.html")], "cannot write"),
        (["--split", "0.9", "0.8"], "the split 0.9 0.8 cannot be used"),
        (["--split", "nan", "0.8"], "cannot be used"),
    ):
        assert main(["describe", str(hand), *targets]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and not printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert main(["describe", str(tmp_path / "none")]) == 2
    assert "is not a folder; give the folder of a data set" in capsys.readouterr().err


def test_without_plotly_the_message_says_so(hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    numbers = count(hand)
    with pytest.raises(DataToolError, match="needs the package plotly"):
        page(numbers, [], [])


def test_describing_imports_neither_torch_nor_recbole() -> None:
    code = "import sys, dataset_tools.__main__; sys.exit(bool({'torch', 'recbole', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
