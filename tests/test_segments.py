"""Look-ups in flat arrays: what NumPy gives, segment by segment."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_lsvcr.data import segments
from recbole_lsvcr.data.layouts import Timeline
from recbole_lsvcr.data.segments import count_marked, offsets_from_sizes, offsets_of, search_segments, stable_order


@pytest.mark.parametrize("n", [0, 1, 5, 40_000])
def test_stable_order_is_lexsort(n: int):
    rng = np.random.default_rng(n)
    first, second, third = rng.integers(0, 50, n), rng.integers(0, 7, n).astype(np.int32), rng.integers(0, 3, n)
    first[:1] = 2**31 - 1
    assert np.array_equal(stable_order(first), np.argsort(first, kind="stable"))
    assert np.array_equal(stable_order(first, second, third), np.lexsort((third, second, first)))


def test_offsets():
    ids = np.array([1, 1, 4], np.int32)
    assert offsets_of(ids, 6).tolist() == [0, 0, 2, 2, 2, 3, 3]
    assert offsets_from_sizes(np.bincount(ids, minlength=6)).tolist() == [0, 0, 2, 2, 2, 3, 3]
    assert offsets_from_sizes(np.zeros(0, np.int64)).tolist() == [0]


def test_marked_ids_are_counted_across_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(segments, "_COUNTED", 7)
    ids, marked = np.arange(40) % 6, np.arange(40) % 5 > 0
    assert count_marked(ids, marked, 8).tolist() == np.bincount(ids[marked], minlength=8).tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_segments_are_searched_across_pieces(monkeypatch: pytest.MonkeyPatch, side):
    monkeypatch.setattr(segments, "_AT_ONCE", 3)
    values = np.array([1.0, 2, 2, 3, 0, 5, 5])
    begin, end = np.array([0, 0, 4, 4, 7, 2, 3, 3]), np.array([4, 4, 7, 7, 7, 2, 4, 4])
    queries = np.array([2.0, 9, 5, -1, 3, 2, 3, 4])
    expected = [b + np.searchsorted(values[b:e], q, side) for b, e, q in zip(begin, end, queries, strict=True)]
    assert search_segments(values, begin, end, queries, side).tolist() == expected


def test_a_timeline_knows_what_has_nothing_before_it():
    """User 1 has two events at the first moment, user 2 none, user 3 one, user 4 only events at one moment."""
    user, time = np.array([3, 1, 1, 1, 4, 4], np.int32), np.array([0.0, 1, 1, 2, 5, 5])
    line = Timeline.of(user, np.arange(6, dtype=np.int32), time, 6)
    assert line.item.tolist() == [1, 2, 3, 0, 4, 5] and line.user.tolist() == [1, 1, 1, 3, 4, 4]
    assert line.offsets.tolist() == [0, 0, 3, 3, 4, 6, 6]
    assert line.first_end().tolist() == [0, 2, 3, 4, 6, 6]
    assert line.before_events(np.array([2, 4, 5])).tolist() == [2, 4, 4]
    assert line.before_events(np.array([2, 5])).tolist() == line.before(np.array([1, 4]), np.array([2.0, 5])).tolist()


def test_what_ended_before_each_event_is_what_a_search_from_the_event_finds():
    rng = np.random.default_rng(0)
    n_users = 9
    user, time = rng.integers(0, n_users, 80).astype(np.int32), np.sort(rng.integers(0, 30, 80)).astype(np.float64)
    line = Timeline.of(user, np.zeros(80, np.int32), time, n_users)
    for entries in (0, 1, 60):
        users, ends = rng.integers(0, n_users, entries), rng.integers(0, 32, entries).astype(np.float64)
        order = np.lexsort((ends, users))
        users, ends = users[order], ends[order]
        offsets = offsets_of(users, n_users)
        expected = search_segments(ends, offsets[line.user], offsets[line.user + 1], line.time)
        assert np.array_equal(line.ended_before(users, ends), expected)
