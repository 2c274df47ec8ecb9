"""The raw files of KuaiComt by rules that can be counted by hand: a thousand rows, or a few, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slow_conversion import write_rows

T0 = 1_696_089_600  # 2023-10-01 00:00 in Shanghai, Unix seconds
CAPTIONS = [  # caption, category, and what becomes of them: title, tags
    ("所以，怎么会没有遗憾呢#张睿  #李晟", "明星娱乐", "所以，怎么会没有遗憾呢", "张睿 李晟 明星娱乐"),
    ("#a#b c", "x y", "c", "a b x_y"),
    ("＃全角 ok ＃尾", "美食", "ok", "全角 尾 美食"),
    ("#只有 #标签", "", "只有 标签", "只有 标签"),
    ("", "猫", "猫", "猫"),
    ("", "x y", "x y", "x_y"),
    ('he said "hi",\nand left', "", 'he said "hi", and left', ""),
    ("NA", "", "NA", ""),
    ("a # b ##", "c", "a # b ##", "c"),
    ("x #同 y #同", "同", "x y", "同"),
    ("tab\there\r\nand\x07 there", "k", "tab here and there", "k"),
    ("#t, more", "", "more", "t,"),
    ("  #t\u3000word ", "", "word", "t"),
]
VIDEOS, WATCHED, TALKED_ABOUT, USERS, WATCHERS = 30, 23, 26, 19, 17
CONTENTS = ["乱了、猫还怕老鼠[捂脸]", "", "NA", 'two\nlines, "quoted"', "tab\tin", "👍", " "]


def impression(i: int) -> dict[str, Any]:
    """Row i: user i % 17, video i % 23, flags by divisors, times all different and in no order."""
    divisors = {"like": 5, "follow": 13, "comment": 19, "forward": 11, "collect": 7, "hate": 29}
    return {
        "user_id": 1000 + i % WATCHERS,
        "video_id": 50_000 + i % WATCHED,
        "p_hourmin": 100 * (i % 24),
        "time_ms": f"{(T0 + 60 * (389 * i % 1000)) * 1000 + i}.0",
        "is_click": 1,
        **{f"is_{name}": int(i % divisor == 0) for name, divisor in divisors.items()},
        "long_view": int(i % 3 == 0),
        "play_time_ms": 1500 * i,
        "duration_ms": 60_000.0,
    }


def video(v: int) -> dict[str, Any]:
    caption, category, *_ = CAPTIONS[v % len(CAPTIONS)]
    return {
        "video_id": 50_000 + v,
        "author_id": 7 * v,
        "video_type": ("NORMAL", "AD")[v % 5 == 0],
        "upload_dt": "" if v == 4 else f"2023-09-{v + 1:02}",
        "caption": caption,
        "duration": 1000 * v + 500,
        "category": category,
    }


def comment(c: int) -> dict[str, Any]:
    content, on = CONTENTS[c % len(CONTENTS)], 50_000 + c % TALKED_ABOUT
    names = "comment_id comment_content video_id comment_like_cnt comment_reply_out show_comment_cnt_td"
    return dict(zip(names.split(), (f"{900_000 + c}", content, on, c, c // 2, 5), strict=True))


def comment_interaction(m: int) -> dict[str, Any]:
    """Row m: comment 7 m % 1000, user m % 19; a like if m is even, a reply if m is a multiple of 3."""
    c = 7 * m % 1000
    names = "user_id comment_id time_stamp photo_id is_like is_reply"
    values = 1000 + m % USERS, 900_000 + c, T0 + 61 * (271 * m % 1000), 50_000 + c % TALKED_ABOUT, m % 2 < 1, m % 3 < 1
    return dict(zip(names.split(), map(int, values), strict=True))


def user(u: int) -> dict[str, Any]:
    return {
        "user_id": 1000 + u,
        "user_active_degree": "full_active",
        "fans_count": "" if u == 3 else u * u,
        "onehot": u,
    }


Files = dict[str, list[dict[str, Any]]]


def thousand() -> Files:
    """The raw files, row by row."""
    return {
        "user_video_inter": [impression(i) for i in range(1000)],
        "video_features": [video(v) for v in range(VIDEOS)],
        "comment_features": [comment(c) for c in range(1000)],
        "user_comment_inter": [comment_interaction(m) for m in range(1000)],
        "user_features": [user(u) for u in range(USERS)],
    }


def put(folder: Path, files: Files, separator: str = ",", ending: str = ".csv") -> Path:
    """The raw files in a folder."""
    for name, rows in files.items():
        write_rows(folder / f"{name}{ending}", [list(rows[0]), *(list(row.values()) for row in rows)], separator)
    return folder


def few() -> Files:
    """Three videos, their comments and the users, and the first rows about them: for what goes wrong with a row."""
    files = thousand()
    files["video_features"] = files["video_features"][:3]
    known = {row["video_id"] for row in files["video_features"]}
    for name, column in (
        ("user_video_inter", "video_id"), ("comment_features", "video_id"), ("user_comment_inter", "photo_id")
    ):  # fmt: skip
        files[name] = [row for row in files[name] if row[column] in known][:40]
    comments = {int(row["comment_id"]) for row in files["comment_features"]}
    files["user_comment_inter"] = [row for row in files["user_comment_inter"] if row["comment_id"] in comments]
    return files
