"""Popular comments: always what counting one by one gives, however the snapshots arrive at it."""

from __future__ import annotations

import numpy as np
import pytest
from factories import DAY, START, make_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_reference import popular_of

from recbole_lsvcr.data import popular as popular_module
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.popular import PopularComments
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables

MIDNIGHT = 1_600_041_600.0  # 2020-09-14 00:00 UTC


def _tables(posted: dict[str, float | None], cinter: list[tuple[str, str, float]], **parents: str) -> Tables:
    comments = {c: {"item_id": "v", "timestamp": t, "parent_id": parents.get(c)} for c, t in posted.items()}
    return Tables.from_arrays(inter=[("x", "v", START)], cinter=cinter, comments=comments)


def _top(tables: Tables, time: float, user: str = "x", n: int = 10, exclude: list[str] | None = None, **options: float):
    """The tokens of the top comments of video `v`."""
    data = JointData(tables, split=Split("time", **options))
    users, comments = tables.users.to_list(), tables.comments.to_list()
    struck = None if exclude is None else np.array([[comments.index(c) for c in exclude]])
    found = data.popular(np.array([1]), np.array([time]), np.array([users.index(user)]), top=n, exclude=struck)
    return [comments[c] for c in found[0] if c]


def test_ranked_by_the_interactions_of_earlier_days_then_by_posting_time_then_by_file_order():
    tables = _tables(
        {"late": START + 9, "early": START, "same": START, "unknown": None, "liked": START + 20},
        [("a", "liked", MIDNIGHT - 1), ("b", "late", MIDNIGHT - 1), ("c", "late", MIDNIGHT - 1)],
    )
    assert _top(tables, MIDNIGHT - 1) == ["unknown", "early", "same", "late", "liked"]
    assert _top(tables, MIDNIGHT) == ["late", "liked", "unknown", "early", "same"]


def test_what_happens_on_the_day_itself_or_after_training_does_not_count():
    tables = _tables({"a": START, "b": START + 1}, [("u", "b", MIDNIGHT), ("u", "b", MIDNIGHT + DAY)])
    assert _top(tables, MIDNIGHT + DAY - 1) == ["a", "b"]
    assert _top(tables, MIDNIGHT + DAY) == ["b", "a"]
    assert _top(tables, MIDNIGHT + DAY, valid_start=MIDNIGHT, test_start=MIDNIGHT) == ["a", "b"]


def test_own_interactions_do_not_count():
    tables = _tables({"a": START, "b": START + 1}, [("u", "b", START + 2)])
    assert _top(tables, MIDNIGHT, user="x") == ["b", "a"]
    assert _top(tables, MIDNIGHT, user="u") == ["a", "b"]


def test_replies_and_comments_posted_later_and_excluded_ones_are_never_shown():
    posted = {"a": START, "answer": START, "b": MIDNIGHT + 5}
    tables = _tables(posted, [("u", "b", START), ("u", "answer", START)], answer="a")
    assert _top(tables, MIDNIGHT + 4) == ["a"]
    assert _top(tables, MIDNIGHT + 5) == ["b", "a"]
    assert _top(tables, MIDNIGHT + 5, exclude=["b"]) == ["a"]
    assert _top(tables, MIDNIGHT + 5, exclude=["b", "a"]) == []


@pytest.mark.parametrize("top", [1, 3, 10, 30])
def test_a_video_with_more_comments_than_a_snapshot_holds_is_answered_exactly(top: int):
    """20 comments that only `u` likes fall behind the 20 others for `u`: no snapshot of 16 can say that."""
    posted = {f"plain{k}": START + k for k in range(20)} | {f"liked{k}": START + 100 + k for k in range(20)}
    tables = _tables(posted, [("u", f"liked{k}", START + 200) for k in range(20)])
    plain, liked = list(posted)[:20], list(posted)[20:]
    assert _top(tables, MIDNIGHT, user="x", n=top) == (liked + plain)[:top]
    assert _top(tables, MIDNIGHT, user="u", n=top) == (plain + liked)[:top]
    assert _top(tables, MIDNIGHT, user="x", n=top, exclude=liked[:18]) == (liked[18:] + plain)[:top]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(3, 8),
    comments=st.integers(1, 160),
    top=st.sampled_from([1, 3, 10, 20]),
)
def test_equals_counting_one_by_one(seed: int, videos: int, comments: int, top: int):
    tables = make_tables(seed, users=6, videos=videos, comments=comments, comment_interactions=250, dirty=0.3)
    rng = np.random.default_rng(seed)
    counted = rng.random(len(tables.cinter_time)) < 0.8
    popular = PopularComments(tables, counted)
    n = 40
    items, users = rng.integers(0, tables.n_items, n), rng.integers(1, tables.n_users, n)
    times = START + rng.integers(0, 13 * 24, n) * 3_600.0
    exclude = np.where(rng.random((n, 3)) < 0.5, rng.integers(0, tables.n_comments, (n, 3)), 0)
    row, column = np.nonzero(exclude)
    own = popular.own_groups(users, items)
    for struck in (None, (row, exclude[row, column])):
        found = popular.top(items, times, own, top, struck)
        for q in range(n):
            left_out = [] if struck is None else exclude[q].tolist()
            expected = popular_of(tables, counted, users[q], items[q], times[q], left_out)[:top]
            assert found[q].tolist() == expected + [0] * (top - len(expected))


def test_the_random_data_reaches_every_way_of_answering(monkeypatch: pytest.MonkeyPatch):
    """Guards the test above: if its data stopped needing corrections or counting, it would prove less than it says."""
    calls: dict[str, int] = {}
    for name in ("_correct", "_count"):
        original = getattr(PopularComments, name)

        def counting(self, queries, *rest, name=name, original=original):
            calls[name] = calls.get(name, 0) + len(queries)
            return original(self, queries, *rest)

        monkeypatch.setattr(PopularComments, name, counting)
    for seed in range(5):
        tables = make_tables(seed, users=6, videos=4, comments=150, comment_interactions=250, dirty=0.3)
        popular = PopularComments(tables, np.ones(len(tables.cinter_time), bool))
        rng = np.random.default_rng(seed)
        items, users = rng.integers(1, tables.n_items, 200), rng.integers(1, tables.n_users, 200)
        times = START + rng.integers(0, 13 * 24, 200) * 3_600.0
        popular.top(items, times, popular.own_groups(users, items), 10)
    assert 0 < calls["_count"] < calls["_correct"] < 1000


def test_no_comments_at_all():
    tables = Tables.from_arrays(inter=[("a", "v", START), ("a", "w", START + 1)])
    data = JointData(tables, split=Split("time"))
    assert data.popular(np.array([1, 2]), np.array([START, START]), np.array([1, 1]), top=3).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("slot_bits", [1, 22])
def test_own_groups_are_those_of_the_pair_whatever_shares_its_slot(monkeypatch: pytest.MonkeyPatch, slot_bits: int):
    monkeypatch.setattr(popular_module, "_SLOT_BITS", slot_bits)
    monkeypatch.setattr(popular_module, "_ASKED", 7)
    tables = make_tables(3, users=6, videos=8, comments=60, comment_interactions=100)
    counted = np.ones(len(tables.cinter_time), bool)
    shown = ~tables.comment_is_reply[tables.cinter_comment]
    pairs = sorted(set(zip(tables.cinter_user[shown].tolist(), tables.cinter_item[shown].tolist(), strict=True)))
    users, items = (grid.ravel() for grid in np.mgrid[: tables.n_users, : tables.n_items])
    found = PopularComments(tables, counted).own_groups(users, items)
    expected = [pairs.index(pair) if pair in pairs else -1 for pair in zip(users, items, strict=True)]
    assert found.tolist() == expected and 0 < len(pairs) < len(users)
