"""Small data sets in memory for tests: hand-made ones by `Tables.from_arrays`, random ones by `make_tables`."""

from __future__ import annotations

import numpy as np

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables

DAY = 86_400.0
START = 1_600_000_000.0  # 2020-09-13 12:26:40 UTC, in the middle of a day


def make_tables(
    seed: int = 0,
    *,
    users: int = 12,
    videos: int = 10,
    comments: int = 60,
    interactions: int = 150,
    comment_interactions: int = 120,
    days: float = 12.0,
    tick: float = 3_600.0,
    replies: float = 0.1,
    unknown_times: float = 0.1,
    dirty: float = 0.1,
) -> Tables:
    """A random data set full of the cases that go wrong.

    Times are multiples of `tick` seconds, so many are equal; popularity is skewed, so users repeat videos and comments;
    some comments have no posting time, some were posted after people interacted with them (`dirty`), some are replies;
    some users have video interactions only, some videos have neither interactions nor comments.
    """
    rng = np.random.default_rng(seed)
    steps = int(days * DAY / tick)

    def times(n: int) -> list[float]:
        return [float(t) for t in START + tick * rng.integers(0, steps, n)]

    def skewed(n: int, k: int) -> list[int]:
        return [int(x) for x in np.minimum((k * rng.random(n) ** 2).astype(int), k - 1)]

    commented = max(1, videos - 2)  # the last videos have no comments
    under = skewed(comments, commented)
    rows: dict[str, dict[str, object]] = {}
    posted = times(comments)
    for c in range(comments):
        row: dict[str, object] = {"item_id": f"v{under[c]}", "user_id": f"u{int(rng.integers(users))}"}
        if rng.random() >= unknown_times:
            row["timestamp"] = posted[c]
        siblings = [k for k in range(c) if under[k] == under[c] and "parent_id" not in rows[f"c{k}"]]
        if siblings and rng.random() < replies:
            row["parent_id"] = f"c{siblings[int(rng.integers(len(siblings)))]}"
        rows[f"c{c}"] = row
    cinter = []
    who = skewed(comment_interactions, max(1, users - 3))  # the last users have no comment interactions
    what, when = skewed(comment_interactions, comments), times(comment_interactions)
    for u, c, t in zip(who, what, when, strict=True):
        post = rows[f"c{c}"].get("timestamp")
        if isinstance(post, float) and t < post and rng.random() >= dirty:
            t = post + tick * int(rng.integers(0, 48))
        cinter.append((f"u{u}", f"c{c}", t))
    watchers = [int(u) for u in rng.integers(0, users, interactions)]
    watched = skewed(interactions, videos)
    inter = [(f"u{u}", f"v{v}", t) for u, v, t in zip(watchers, watched, times(interactions), strict=True)]
    items = {f"v{v}": {"upload_time": START + tick * v, "tags": f"tag{v % 3}"} for v in range(videos)}
    return Tables.from_arrays(inter=inter, cinter=cinter, items=items, comments=rows, name=f"random-{seed}")


def make_talk(seed: int = 2) -> JointData:
    """Few videos and long records: many positives in a list."""
    tables = make_tables(seed, users=12, videos=8, comments=150, interactions=300, comment_interactions=600, days=40)
    return JointData(tables, split={"time": [0.5, 0.75]}, record_gap=5 * DAY)
