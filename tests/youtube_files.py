"""YouTube dumps for tests: resources as the API gives them, a channel of a few comments and one of a thousand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
T0 = 1577836800.0  # 2020-01-01T00:00:00Z


def video(name: str, at: str = "2020-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    snippet = {"title": f"Title {name}", "channelId": "OWNER", "publishedAt": at, "categoryId": "20", **more}
    return {"kind": "youtube#video", "id": name, "snippet": snippet}


def comment(name: str, author: str | None, at: str, text: str = "hm", **more: Any) -> dict[str, Any]:
    snippet: dict[str, Any] = {"textDisplay": text, "publishedAt": at, "likeCount": 2, **more}
    if author is not None:
        snippet["authorChannelId"] = {"value": author}
    return {"kind": "youtube#comment", "id": name, "snippet": snippet}


def thread(top: dict[str, Any], on: str, *replies: dict[str, Any]) -> dict[str, Any]:
    snippet = {"videoId": on, "topLevelComment": top, "totalReplyCount": len(replies)}
    for reply in replies:
        reply["snippet"]["parentId"] = top["id"]
    more = {"replies": {"comments": list(replies)}} if replies else {}
    return {"kind": "youtube#commentThread", "id": top["id"], "snippet": snippet, **more}


def channel() -> tuple[Rows, Rows]:
    """Two videos. T1: a writes, b replies, a replies to itself, the owner replies. T2: the owner writes, b replies."""
    videos = [video("v1", tags=["game music", "ost"]), video("v2"), video("v3")]
    threads = [
        thread(
            comment("T1", "a", "2020-01-02T00:00:00Z", textOriginal='say "hi"\n\ud800 😀'),
            "v1",
            comment("T1.1", "b", "2020-01-02T00:00:10.500Z"),
            comment("T1.2", "a", "2020-01-02T00:00:20Z"),
            comment("T1.3", "OWNER", "2020-01-02T00:00:30Z"),
        ),
        thread(
            comment("T2", "OWNER", "2020-01-01T00:00:05Z"),
            "v2",
            comment("T2.1", "b", "2020-01-01T12:00:00Z"),
        ),
        thread(comment("T3", None, "2020-01-03T00:00:00Z"), "v2"),
    ]
    return videos, threads


def write_lines(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def spoken(k: int) -> tuple[str, str, int, int | None]:
    """Author, video, time and parent of comment k of a thousand: those with k % 5 == 4 reply to comment k - 4, the rest
    begin threads. Author 0 owns the videos, author 7 is not told; times are all different and in no order."""
    parent = k - 4 if k % 5 == 4 else None
    return f"a{k % 13}", f"v{(k if parent is None else parent) % 11}", int(T0) + 60 * (389 * k % 1000), parent


def thousand() -> tuple[Rows, Rows]:
    """Twelve videos, the last without a comment, and the 800 threads of `spoken`."""

    def told(k: int) -> dict[str, Any]:
        author, _, at, _ = spoken(k)
        when = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        return comment(f"c{k}", None if author == "a7" else author, when, f"text {k}")

    videos = [{**video(f"v{v}"), "snippet": {**video(f"v{v}")["snippet"], "channelId": "a0"}} for v in range(12)]
    tops = [k for k in range(1000) if spoken(k)[3] is None]
    return videos, [thread(told(k), spoken(k)[1], *[told(k + 4)] * (k % 5 == 0)) for k in tops]
