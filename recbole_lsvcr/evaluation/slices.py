"""Parts of the instances shown apart: unseen videos and users, no records, history length, popularity, candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recbole_lsvcr.data.instances import Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.segments import offsets_of, search_segments
from recbole_lsvcr.data.splits import TRAIN

ALL = "all"
# Always in the table, with 0 instances if need be; buckets without instances are not.
FIXED = (ALL, "seen_items", "unseen_items", "unseen_users", "no_records")
HISTORY_EDGES = (1, 5, 10, 20, 50)
POPULARITY_EDGES = (1, 10, 100, 1000)
CANDIDATE_EDGES = (2, 10, 50, 100, 1000)


def instance_slices(
    data: JointData, kind: Kind, rows: np.ndarray, records: np.ndarray, lengths: np.ndarray | None = None
) -> Mapping[str, np.ndarray]:
    """Which instances each slice holds.

    A video is unseen when no training interaction has it (for comments: the watched video, and no training record
    either), a user when no training interaction (for comments: nor record) is theirs. `history_5-9`: so many videos
    before the instance, not cut to what a model reads. `popularity_10-99`: so many training interactions with the
    video. `candidates_10-49` (comments): so many comments in the whole list.

    Args:
        rows: int64[I], instance rows. records: int64[I], comment records in the history of each. lengths: int64[I],
            lengths of the whole comment lists.

    Returns:
        slice name -> bool[I], in the order they are shown.
    """
    instances = data.videos if kind == "video" else data.comments
    popularity = data.train_item_count[instances.item[rows]]
    items, users = data.train_item_count > 0, data.train_user_count > 0
    if kind == "comment":
        trained = data.rows("comment", TRAIN)
        items[data.comments.item[trained]] = True
        users[data.comments.user[trained]] = True
    seen = items[instances.item[rows]]
    flags = {
        ALL: np.ones(len(rows), bool),
        "seen_items": seen,
        "unseen_items": ~seen,
        "unseen_users": ~users[instances.user[rows]],
        "no_records": records == 0,
    }
    history = history_lengths(data, instances.user[rows], instances.time[rows])
    flags |= _buckets("history", history, HISTORY_EDGES) | _buckets("popularity", popularity, POPULARITY_EDGES)
    return flags if lengths is None else flags | _buckets("candidates", lengths, CANDIDATE_EDGES)


def history_lengths(data: JointData, users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """int64[I]: video interactions of each user strictly before each time."""
    tables = data.tables
    order = np.argsort(tables.inter_user, kind="stable")  # by user; within a user still by time
    offsets = offsets_of(tables.inter_user[order], data.n_users)
    begin = offsets[users]
    return search_segments(tables.inter_time[order], begin, offsets[users + 1], times) - begin


def _buckets(name: str, values: np.ndarray, edges: tuple[int, ...]) -> dict[str, np.ndarray]:
    """`name_1-4`, `name_5-9`, … `name_50+`: half-open ranges between the edges."""
    result = {}
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        label = f"{name}_{low}+" if high is None else f"{name}_{low}-{high - 1}"
        result[label] = (values >= low) if high is None else (values >= low) & (values < high)
    return result
