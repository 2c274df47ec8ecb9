"""Nothing at or after the start of a record shows: not in its inputs, its negatives, or the counts of its comments."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factories import DAY, START, make_tables
from joint_reference import comment_pool

from recbole_lsvcr.data.comment_candidates import CommentIndex
from recbole_lsvcr.data.comment_counts import CommentCounts
from recbole_lsvcr.data.comment_negatives import TrainingLists
from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables

BOUNDARIES = Split("time", valid_start=START + 20 * DAY, test_start=START + 30 * DAY)
DELETE = pytest.mark.parametrize("delete", [True, False], ids=["deleted", "changed"])


def joint(tables: Tables) -> JointData:
    return JointData(tables, split=BOUNDARIES, record_gap=3 * DAY, max_videos=6, max_records=4)


@pytest.fixture(scope="module", params=range(3))
def data(request: pytest.FixtureRequest) -> JointData:
    return joint(make_tables(request.param, users=12, videos=8, comments=120, comment_interactions=250, days=40.0))


def tampered(
    tables: Tables, time: float, kept: np.ndarray, rng: np.random.Generator, *, delete: bool, spared: int = 0
) -> Tables:
    """Every event at or after `time` is gone, or another one at another later time, of any user but `spared`; every
    comment posted later is posted at another later time. `kept` bool[J]: comment interactions that stay all the same.
    """

    def later(times: np.ndarray) -> np.ndarray:
        delay = rng.integers(0, 9 * DAY, len(times)) * (rng.random(len(times)) < 0.7)
        return times + delay

    def mixed(name: str, future: np.ndarray, high: int, never: int = 0) -> np.ndarray:
        values = getattr(tables, name)
        drawn = rng.integers(1, high - (never > 0), len(values))
        return np.where(future, drawn + ((drawn >= never) & (never > 0)), values).astype(values.dtype)

    def columns(prefix: str, values: dict[str, np.ndarray], future: np.ndarray) -> dict[str, np.ndarray]:
        order = np.flatnonzero(~future) if delete else np.argsort(values["time"], kind="stable")
        if delete:
            values = {name: getattr(tables, prefix + name) for name in values}
        return {prefix + name: column[order] for name, column in values.items()}

    future, cfuture = tables.inter_time >= time, (tables.cinter_time >= time) & ~kept
    inter = {
        "user": mixed("inter_user", future, tables.n_users, spared),
        "item": mixed("inter_item", future, tables.n_items),
        "time": np.where(future, later(tables.inter_time), tables.inter_time),
    }
    comment = mixed("cinter_comment", cfuture, tables.n_comments)
    cinter = {
        "user": mixed("cinter_user", cfuture, tables.n_users, spared),
        "item": tables.comment_item[comment],
        "comment": comment,
        "time": np.where(cfuture, later(tables.cinter_time), tables.cinter_time),
    }
    posted = tables.comment_time
    return dataclasses.replace(
        tables,
        comment_time=np.where(posted > time, later(posted) + 1, posted),
        **columns("inter_", inter, future),
        **columns("cinter_", cinter, cfuture),
    )


def same_instance(data: JointData, like: JointData, row: int) -> int:
    """The row of `data` that is of the user, video and time of the instance `row` of `like`."""
    same = [getattr(data.comments, name) == getattr(like.comments, name)[row] for name in ("user", "item", "time")]
    (found,) = np.flatnonzero(np.logical_and.reduce(same))
    return int(found)


def chosen(data: JointData, n: int) -> list[int]:
    """`n` of the instances."""
    return np.random.default_rng(0).choice(len(data.comments), n, replace=False).tolist()


def own_later(data: JointData, row: int) -> set[int]:
    """What the user of an instance interacts with at or after its time."""
    tables, user, time = data.tables, data.comments.user[row], data.comments.time[row]
    return set(tables.cinter_comment[(tables.cinter_user == user) & (tables.cinter_time >= time)].tolist())


@DELETE
def test_the_future_and_the_record_itself_change_no_input_and_no_negative(data: JointData, delete: bool) -> None:
    """Of everything at or after a record's start its first interaction alone is kept, so that there is an instance. The
    user's own comments, the record's and later ones, are no negatives by definition; nothing else may depend on them.
    """
    rng, compared = np.random.default_rng(1), 0
    fields = [field.name for field in dataclasses.fields(InstanceBatch) if field.name != "target_comments"]
    for row in chosen(data, 15):
        user, time = data.comments.user[row], float(data.comments.time[row])
        before = data.gather("comment", [row], training=False)
        first = np.flatnonzero(data.records.event_record == data.comments.record[row])[:1]
        kept = np.isin(np.arange(len(data.tables.cinter_time)), first)
        after = joint(tampered(data.tables, time, kept, rng, delete=delete))
        there = same_instance(after, data, row)
        # The inputs, asked for with the positives, which are never shown as popular.
        again = after.gather_at("comment", [user], before.item, [time], positives=before.target_comments)
        for field in fields:
            x, y = getattr(before, field), getattr(again, field)
            if field == "record_comments":
                width = max(x.shape[2], y.shape[2])
                x, y = (np.pad(z, [(0, 0), (0, 0), (0, width - z.shape[2])]) for z in (x, y))
            np.testing.assert_array_equal(x, y, err_msg=field)
        own = own_later(data, row) | own_later(after, there)
        pools = []
        for one, at in ((data, row), (after, there)):
            lists = CommentIndex(one).lists(np.array([at]))
            drawn = TrainingLists(one, count=200).draw(np.array([at]), rng)[0, 1:]
            pools.append(set(lists.comment[~lists.positive].tolist()))
            assert set(drawn[drawn > 0].tolist()) == pools[-1] or not pools[-1]
        assert pools[0] - own == pools[1] - own
        compared += len(pools[0] - own)
    assert compared > 50


@DELETE
def test_what_others_do_later_changes_neither_counts_nor_lists(data: JointData, delete: bool) -> None:
    rng, every = np.random.default_rng(0), np.arange(data.n_comments)[None]
    vectors = np.random.default_rng(1).normal(size=(data.n_comments, 6))
    for row in chosen(data, 10):
        user, time = data.comments.user[row : row + 1], data.comments.time[row : row + 1]
        own = data.tables.cinter_user == user
        after = joint(tampered(data.tables, float(time[0]), own, rng, delete=delete, spared=int(user[0])))
        counts = [CommentCounts(one.tables).before(every, user, time) for one in (data, after)]
        np.testing.assert_array_equal(*counts)
        there = same_instance(after, data, row)
        assert comment_pool(after, there) == comment_pool(data, row)
        if not comment_pool(data, row)[1]:
            continue  # which other videos somebody comments on may be known later only
        for choice in ("uniform", "hard"):
            for count in (3, 200):
                lists = [
                    TrainingLists(one, count=count, choice=choice, vectors=lambda ids: vectors[ids]).draw(
                        np.array([at]), np.random.default_rng(7)
                    )
                    for one, at in ((data, row), (after, there))
                ]
                np.testing.assert_array_equal(*lists)
