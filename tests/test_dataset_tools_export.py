"""The real channel once more, from a plain CSV export by mapping: the same files, byte for byte."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_tools.__main__ import main
from dataset_tools.schema import read_atomic

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "youtube-bvgm"
SPLIT = "\u241f"
MAPPING: dict[str, Any] = {
    "inter": {
        "file": "views*.csv.gz",
        "columns": {"user_id": "user", "item_id": "video", "timestamp": {"column": "at", "time": "iso"}},
    },
    "item": {
        "file": "videos.csv",
        "columns": {
            "item_id": "id",
            "title": "title",
            "tags": {"column": "tags", "split": SPLIT},
            "author_id": "channel",
            "category": "category",
            "upload_time": {"column": "at", "time": "iso"},
        },
    },
    "cinter": {
        "file": "replies.csv",
        "where": "is_own = 0",
        "columns": {
            "user_id": "user",
            "comment_id": "parent",
            "item_id": "video",
            "timestamp": {"column": "at", "time": "iso"},
            "like": {"value": 0},
            "reply": {"value": 1},
        },
    },
    "comment": {
        "file": "comments.csv",
        "columns": {
            "comment_id": "id",
            "item_id": "video",
            "content": "text",
            "user_id": "user",
            "parent_id": "parent",
            "like_count": "likes",
            "reply_count": "replies",
            "timestamp": {"column": "at", "time": "iso"},
        },
    },
}


def values(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(REAL / name, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def export(folder: Path) -> None:
    """The dump as tables, in its order: videos, comments, who commented where, and who answered whom."""
    folder.mkdir()
    owners = {}
    with open(folder / "videos.csv", "w", newline="", encoding="utf-8") as out:
        videos = csv.writer(out)
        videos.writerow(["id", "title", "tags", "channel", "category", "at"])
        for video in values("videos.jsonl.gz"):
            snippet = video["snippet"]
            owners[video["id"]] = snippet["channelId"]
            tags = SPLIT.join(snippet.get("tags", []))
            row = [video["id"], snippet["title"], tags, snippet["channelId"], snippet["categoryId"]]
            videos.writerow([*row, snippet["publishedAt"]])
    views: list[list[Any]] = []
    replies: list[list[Any]] = []
    with open(folder / "comments.csv", "w", newline="", encoding="utf-8") as out:
        comments = csv.writer(out)
        comments.writerow(["id", "video", "text", "user", "parent", "likes", "replies", "at"])
        for thread in values("commentThreads.jsonl.gz"):
            video, owner = thread["snippet"]["videoId"], owners[thread["snippet"]["videoId"]]
            top = thread["snippet"]["topLevelComment"]
            asked = author(top)
            for number, comment in enumerate([top, *(thread.get("replies") or {}).get("comments", [])]):
                snippet, user = comment["snippet"], author(comment)
                if user and user != owner:
                    views.append([user, video, snippet["publishedAt"]])
                if user == owner or (number and asked == owner):
                    continue
                text = snippet.get("textOriginal", snippet["textDisplay"])
                more = [snippet.get("parentId", ""), snippet["likeCount"]]
                count = "" if number else thread["snippet"]["totalReplyCount"]
                comments.writerow([comment["id"], video, text, user, *more, count, snippet["publishedAt"]])
                if number and user:
                    replies.append([user, top["id"], video, snippet["publishedAt"], int(user == asked)])
    for part, rows in enumerate((views[:50_000], views[50_000:])):
        with gzip.open(folder / f"views-{part}.csv.gz", "wt", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([["user", "video", "at"], *rows])
    with open(folder / "replies.csv", "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["user", "parent", "video", "at", "is_own"], *replies])


def author(comment: dict[str, Any]) -> str:
    return (comment["snippet"].get("authorChannelId") or {}).get("value", "")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real YouTube data are not on this machine")
def test_a_csv_export_of_the_channel_gives_the_same_files(tmp_path: Path) -> None:
    export(tmp_path / "raw")
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING, allow_unicode=True), encoding="utf-8")
    table = [str(tmp_path / "raw"), str(tmp_path / "table" / "x"), "--mapping", str(tmp_path / "mapping.yaml")]
    smaller = ["--min-user-inter", "5", "--min-item-inter", "5"]
    assert main(["table", *table, *smaller]) == 0
    assert main(["youtube", str(REAL), str(tmp_path / "youtube" / "x"), *smaller]) == 0
    ours, theirs = (
        json.loads((tmp_path / source / "x" / "x.meta.json").read_text())["files"] for source in ("table", "youtube")
    )
    assert ours == theirs
    inter, item = (read_atomic(tmp_path / "table" / "x" / f"x.{suffix}") for suffix in ("inter", "item"))
    assert (inter.height, inter["user_id"].n_unique()) == (58_519, 3_647)
    assert inter["item_id"].n_unique() == item.height == 2_246
