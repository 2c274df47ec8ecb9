"""The generator of raw KuaiComt-like files: what it promises about its files, recounted with the csv module."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import load

FILES = ("user_features", "video_features", "user_video_inter", "user_comment_inter", "comment_features")
SMALL = {"impressions": 20_000, "comments": 3_000, "comment_interactions": 600, "users": 80, "videos": 120}
Rows = list[dict[str, str]]
RAW, PANDAS = load("kuaicomt_raw"), load("kuaicomt_pandas")


def make(folder: Path, *more: str, **sizes: int) -> Path:
    """Run the command with small sizes."""
    counts = [text for name, size in {**SMALL, **sizes}.items() for text in (f"--{name.replace('_', '-')}", str(size))]
    assert RAW.main([str(folder), *counts, *more]) == 0
    return folder


def read(folder: Path, name: str, separator: str = ",") -> Rows:
    """Rows of a file as the csv module reads them, line breaks inside quotes included."""
    with open(folder / f"{name}.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter=separator, strict=True))


def truth(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "truth.json").read_text(encoding="utf-8")))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dirty"), "--dirty", "0.1")


def test_a_seed_decides_every_byte(clean: Path, tmp_path: Path) -> None:
    again, other = make(tmp_path / "again"), make(tmp_path / "other", "--seed", "2")
    assert contents(again) == contents(clean)
    assert sorted(contents(clean)) == sorted([*(f"{name}.csv" for name in FILES), "truth.json", "SYNTHETIC.txt"])
    for name in FILES:
        assert contents(other)[f"{name}.csv"] != contents(clean)[f"{name}.csv"]
    assert "SYNTHETIC" in truth(clean)["note"]


def test_the_columns_are_the_described_ones(clean: Path) -> None:
    expected = {
        "user_video_inter": "user_id,video_id,p_hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
        "is_collect,is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time",
        "user_comment_inter": "user_id,comment_id,time_stamp,photo_id,is_like,is_reply",
        "video_features": "video_id,author_id,video_type,upload_dt,caption,duration,category",
        "comment_features": "comment_id,comment_content,video_id,comment_like_cnt,comment_reply_out,"
        "show_comment_cnt_td",
        "user_features": "user_id,user_active_degree,is_live_author,produce_video_num,follow_count,"
        "follow_user_num_range,fans_count,fans_user_num_range,friend_user_num_range,register_days,"
        + ",".join(f"onehot_feat{number}" for number in range(21)),
    }
    for name in FILES:
        header = (clean / f"{name}.csv").read_text(encoding="utf-8").split("\n", 1)[0]
        assert header == expected[name]


def test_the_truth_is_what_is_in_the_files(clean: Path) -> None:
    told, rows = truth(clean), {name: read(clean, name) for name in FILES}
    assert told["rows"] == told["good_rows"] == {name: len(rows[name]) for name in FILES}
    sizes = ("users", "videos", "impressions", "comment_interactions", "comments")
    assert [len(rows[name]) for name in FILES] == [SMALL[size] for size in sizes]
    rules = {"like|collect|forward": ("is_like", "is_collect", "is_forward"), "long_view": ("long_view",)}
    for rule, flags in rules.items():
        pairs = [
            (row["user_id"], row["video_id"])
            for row in rows["user_video_inter"]
            if any(row[flag] == "1" for flag in flags)
        ]
        assert told["positives"][rule] == {
            "rows": len(pairs),
            "users": len({user for user, _ in pairs}),
            "videos": len({video for _, video in pairs}),
            "pairs": len(set(pairs)),
            "repeats": sum(times - 1 for times in Counter(pairs).values()),
        }
    talk = rows["user_comment_inter"]
    assert told["comment_interactions"] == {
        "rows": len(talk),
        "users": len({row["user_id"] for row in talk}),
        "comments": len({row["comment_id"] for row in talk}),
        "videos": len({row["photo_id"] for row in talk}),
        "pairs": len({(row["user_id"], row["comment_id"]) for row in talk}),
    }


def test_impressions_are_plausible_and_in_the_order_of_their_days(clean: Path) -> None:
    rows, videos = read(clean, "user_video_inter"), {row["video_id"]: row for row in read(clean, "video_features")}
    assert all(row["time_ms"].endswith(".0") for row in rows)
    days = [(float(row["time_ms"]) / 1000 - RAW.START) // 86_400 for row in rows]
    assert days == sorted(days) and days[0] == 0 and days[-1] == 34
    users = [row["user_id"] for row in rows]
    assert users != sorted(users)
    for row in rows:
        played, duration = float(row["play_time_ms"]), float(row["duration_ms"])
        assert row["long_view"] == str(int(played >= min(duration, 18_000)))
        assert duration == float(videos[row["video_id"]]["duration"])
    share = {name: sum(row[name] == "1" for row in rows) / len(rows) for name in (*RAW.FLAG_RATES, "long_view")}
    assert 0.22 < share["long_view"] < 0.32 and 0.015 < share["is_like"] < 0.045
    assert share["is_forward"] < share["is_collect"] < share["is_like"]
    by_view = Counter((row["long_view"], row["is_like"]) for row in rows)
    assert by_view["1", "1"] / by_view["1", "0"] > 2 * by_view["0", "1"] / by_view["0", "0"]


def test_comment_interactions_fit_their_comments_and_mostly_follow_upon_watching(clean: Path) -> None:
    comments = {row["comment_id"]: row["video_id"] for row in read(clean, "comment_features")}
    videos = {row["video_id"] for row in read(clean, "video_features")}
    assert len(comments) == SMALL["comments"] and set(comments.values()) <= videos
    watched: dict[tuple[str, str], list[float]] = {}
    for row in read(clean, "user_video_inter"):
        watched.setdefault((row["user_id"], row["video_id"]), []).append(float(row["time_ms"]) / 1000)
    talk, shortly_after = read(clean, "user_comment_inter"), 0
    for row in talk:
        assert comments[row["comment_id"]] == row["photo_id"]
        assert "1" in (row["is_like"], row["is_reply"])
        gaps = [int(row["time_stamp"]) - time for time in watched.get((row["user_id"], row["photo_id"]), [])]
        shortly_after += any(0 < gap < 900 for gap in gaps)
    assert shortly_after > 0.8 * len(talk)


def test_texts_hold_what_breaks_readers(clean: Path) -> None:
    texts = [row["comment_content"] for row in read(clean, "comment_features")]
    for piece in ("\n", "\r", ",", '"', "\t", "\x07", "[捂脸]", "😂"):
        assert any(piece in text for text in texts), piece
    assert {"", "NA", "null", "None"} <= set(texts)
    assert len(set(texts)) > 0.9 * len(texts)
    captions = [row["caption"] for row in read(clean, "video_features")]
    assert any("#" in caption for caption in captions)
    lines = (clean / "comment_features.csv").read_text(encoding="utf-8").count("\n")
    assert lines > SMALL["comments"] + 1  # records that span lines


def test_faults_are_added_as_told_and_leave_the_rest_as_it_is(clean: Path, dirty: Path) -> None:
    told = truth(dirty)
    for same in ("good_rows", "positives", "comment_interactions"):
        assert told[same] == truth(clean)[same]
    for name in FILES:
        good, rows = read(clean, name), read(dirty, name)
        assert told["rows"][name] == len(rows) == len(good) + sum(told["faults"][name].values())
        # Every good row is found once, in order; what stands between is a fault.
        left = iter(rows)
        for row in good:
            assert any(row == other for other in left)
        ids = [name for name in good[0] if name in ("user_id", "video_id", "photo_id", "comment_id")]
        before, after = (Counter(tuple(row.values()) for row in some) for some in (good, rows))
        copies = sum(times - before[row] for row, times in after.items() if row in before)
        missing = sum("NA" in [row[key] for key in ids] for row in rows)
        assert copies == told["faults"][name]["copy"]
        assert missing == told["faults"][name]["na_id"] > 0


def test_unknown_keys_and_bad_times_are_counted(dirty: Path) -> None:
    told = truth(dirty)["faults"]
    videos = {row["video_id"] for row in read(dirty, "video_features")}
    comments = {row["comment_id"] for row in read(dirty, "comment_features")}
    views, talk = read(dirty, "user_video_inter"), read(dirty, "user_comment_inter")
    unknown = sum(row["video_id"] not in videos | {"NA"} for row in views)
    assert unknown == told["user_video_inter"]["unknown_key"] > 0
    unknown = sum(row["photo_id"] not in videos | {"NA"} or row["comment_id"] not in comments | {"NA"} for row in talk)
    assert unknown == told["user_comment_inter"]["unknown_key"] > 0
    unknown = sum(row["video_id"] not in videos for row in read(dirty, "comment_features"))
    assert unknown == told["comment_features"]["unknown_key"] > 0

    def is_time(text: str, per_second: int) -> bool:
        try:
            seconds = float(text) / per_second
        except ValueError:
            return False
        return math.isfinite(seconds) and 631_152_000 <= seconds < 4_102_444_800

    bad = sum(not is_time(row["time_ms"], 1000) for row in views)
    assert bad == told["user_video_inter"]["bad_time"] > 0
    bad = sum(not is_time(row["time_stamp"], 1) for row in talk)
    assert bad == told["user_comment_inter"]["bad_time"] > 0


def test_names_separator_and_user_fields(clean: Path, tmp_path: Path) -> None:
    photo = make(tmp_path / "photo", "--names", "photo", "--separator", "tab", "--user-fields", "kuairand")
    video = make(tmp_path / "video", "--names", "video")
    for name in FILES:
        rows, plain = read(photo, name, "\t"), read(clean, name)
        assert "video_id" not in rows[0] and "photo_id" not in read(video, name)[0]
        if name != "user_features":
            assert [list(row.values()) for row in rows] == [list(row.values()) for row in plain]
    assert "photo_id" in read(photo, "comment_features", "\t")[0]
    users = read(photo, "user_features", "\t")[0]
    assert {"follow_user_num", "fans_user_num", "friend_user_num", "register_days_range"} <= set(users)


def test_scale_multiplies_every_count() -> None:
    _, options = RAW.parsed(["out", "--scale", "0.1", "--users", "4"])
    assert options.sizes == RAW.Sizes(11_969_668, 1_635_290, 100_267, 1, 8_245)
    assert RAW.parsed(["out"])[1].sizes == RAW.Sizes(**RAW.FULL_SIZE)


def test_the_smallest_set(tmp_path: Path) -> None:
    make(tmp_path, **dict.fromkeys(SMALL, 1))
    assert set(truth(tmp_path)["rows"].values()) == {1}


def test_the_plain_conversion_does_not_see_the_faults(clean: Path, dirty: Path, tmp_path: Path) -> None:
    for name, folder in (("clean", clean), ("dirty", dirty)):
        PANDAS.convert(folder, tmp_path / name)
    for suffix in ("inter", "item", "cinter", "comment"):
        expected = (tmp_path / "clean" / f"clean.{suffix}").read_bytes()
        assert (tmp_path / "dirty" / f"dirty.{suffix}").read_bytes() == expected
    told = truth(clean)["positives"]["like|collect|forward"]
    assert (tmp_path / "clean" / "clean.inter").read_bytes().count(b"\n") == told["pairs"] + 1
