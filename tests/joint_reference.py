"""What the joint data set must give, computed one instance at a time in plain Python from the definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables


@dataclass
class Record:
    item: int
    start: float
    end: float
    comments: list[int]


def records_of(tables: Tables, user: int, gap: float, boundaries: np.ndarray, before: float = math.inf) -> list[Record]:
    """The records formed by a user's comment interactions before a time, by (end, start, item)."""
    found: list[Record] = []
    latest: dict[int, Record] = {}
    for u, v, c, t in zip(
        tables.cinter_user.tolist(),
        tables.cinter_item.tolist(),
        tables.cinter_comment.tolist(),
        tables.cinter_time.tolist(),
        strict=True,
    ):
        if u != user or t >= before:
            continue
        run = latest.get(v)
        if run is None or t - run.end > gap or any(run.end < b <= t for b in boundaries):
            run = latest[v] = Record(v, t, t, [])
            found.append(run)
        run.end = t
        if c not in run.comments:
            run.comments.append(c)
    return sorted(found, key=lambda r: (r.end, r.start, r.item))


def videos_of(tables: Tables, user: int, before: float) -> list[int]:
    """The user's videos strictly before a time, oldest first."""
    events = zip(tables.inter_user.tolist(), tables.inter_item.tolist(), tables.inter_time.tolist(), strict=True)
    return [v for u, v, t in events if u == user and t < before]


def popular_of(
    tables: Tables, counted: np.ndarray, user: int, item: int, time: float, exclude: list[int] | None = None
) -> list[int]:
    """All comments that may be shown as popular, best first; `counted` are the training rows of `.cinter`."""
    day_start = math.floor(time / 86_400) * 86_400
    use = counted & (tables.cinter_time < day_start) & (tables.cinter_user != user)
    counts = np.bincount(tables.cinter_comment[use], minlength=tables.n_comments)
    shown = [
        c
        for c in range(1, tables.n_comments)
        if tables.comment_item[c] == item
        and not tables.comment_is_reply[c]
        and tables.comment_time[c] <= time
        and c not in (exclude or [])
    ]
    return sorted(shown, key=lambda c: (-counts[c], tables.comment_time[c], c))


def record_history(
    tables: Tables, kind: str, user: int, item: int, time: float, *, gap: float, boundaries: np.ndarray, last: int
) -> list[tuple[int, list[int]]]:
    """The comment history of an instance as (video, comments), oldest first."""
    found = records_of(tables, user, gap, boundaries, before=time)
    if kind == "video":
        found = [r for r in found if not (r.item == item and time - r.end < gap)]
    return [(r.item, r.comments) for r in found[-last:]]


def comment_pool(data: JointData, row: int) -> tuple[set[int], set[int]]:
    """The positives and the possible negatives of a comment instance."""
    tables, instance = data.tables, data.comments
    user, item, time = int(instance.user[row]), int(instance.item[row]), instance.time[row]
    record = int(instance.record[row])
    positives = set(data.records.comments[data.records.offsets[record] : data.records.offsets[record + 1]].tolist())
    touched = set(tables.cinter_comment[tables.cinter_user == user].tolist())
    pool = {
        comment
        for comment in range(1, data.n_comments)
        if tables.comment_item[comment] == item
        and not tables.comment_is_reply[comment]
        and tables.comment_time[comment] <= time
    }
    return positives, pool - touched - positives
