"""Splits: by time with boundaries that mean what they say, and per user exactly as RecBole 1.2.1 divides."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest
from factories import DAY, START, make_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split, parse_split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError


def _tables(times: list[float], comment_time: float = START) -> Tables:
    inter = [(f"u{k % 2}", f"v{k}", t) for k, t in enumerate(times)]
    return Tables.from_arrays(inter=inter, cinter=[("u0", "c", comment_time)], comments={"c": {"item_id": "v0"}})


def _bounds(split: dict, tables: Tables) -> tuple[float, float]:
    found = parse_split(split, tables)
    return found.valid_start, found.test_start


def test_fractions_become_a_time_so_that_equal_times_stay_together():
    times = [START + t for t in (0, 1, 2, 3, 3, 3, 4, 5, 6, 7)]
    split = parse_split({"time": [0.5, 0.8]}, _tables(times))
    assert (split.valid_start, split.test_start) == (START + 3, START + 6)
    assert split.phases(np.ones(10, int), np.array(times)).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]


@given(n=st.integers(3, 400), fraction=st.integers(1, 99))
@settings(max_examples=50, deadline=None)
def test_a_fraction_of_distinct_times_is_exactly_that_many_interactions(n: int, fraction: int):
    """0.29 of 100 is 29, although 0.29 * 100 is a little less in floating point."""
    tables = _tables([START + k for k in range(n)])
    before = n * fraction // 100
    if 0 < before < n - 1:
        split = parse_split({"time": [fraction / 100, START + n - 1]}, tables)
        assert int((tables.inter_time < split.valid_start).sum()) == before


def test_days_count_back_from_the_last_event_of_both_files():
    tables = _tables([START + k * DAY for k in range(6)], comment_time=START + 7 * DAY)
    assert _bounds({"time": ["-4d", "-2.5d"]}, tables) == (START + 3 * DAY, START + 4.5 * DAY)


def test_calendar_days_are_days_on_the_clock_of_the_zone():
    """The last event is at 12:26 UTC, 20:26 in Shanghai, on 18 September: that day is the test day."""
    tables = _tables([START + k * DAY for k in range(6)])
    test = datetime(2020, 9, 18, tzinfo=UTC).timestamp()
    assert _bounds({"time": ["-2d", "-1d"], "calendar_zone": "UTC"}, tables) == (test - DAY, test)
    shifted = _bounds({"time": ["-2d", "-1d"], "calendar_zone": "Asia/Shanghai"}, tables)
    assert shifted == (test - DAY - 8 * 3600, test - 8 * 3600)


def test_a_calendar_day_may_have_23_hours():
    spring = datetime(2021, 3, 28, 12, tzinfo=UTC).timestamp()  # clocks in Berlin went forward that night
    tables = _tables([spring - k * DAY for k in range(4)])
    valid, test = _bounds({"time": ["-2d", "-1d"], "calendar_zone": "Europe/Berlin"}, tables)
    assert test == datetime(2021, 3, 27, 23, tzinfo=UTC).timestamp() and test - valid == DAY
    tables = _tables([spring + DAY - k * DAY for k in range(4)])
    valid, test = _bounds({"time": ["-2d", "-1d"], "calendar_zone": "Europe/Berlin"}, tables)
    assert test - valid == 23 * 3600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (START + 1.5, START + 1.5),
        (str(START + 1.5), START + 1.5),
        ("2020-09-14", 1_600_041_600.0),
        (date(2020, 9, 14), 1_600_041_600.0),
        ("2020-09-14T02:00:00+02:00", 1_600_041_600.0),
    ],
)
def test_absolute_times(value: object, seconds: float):
    tables = _tables([START + k * DAY for k in range(6)])
    assert _bounds({"time": [value, "-1d"]}, tables) == (seconds, START + 4 * DAY)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"time": [0.9, 0.8]}, "validation would start .* after test"),
        ({"time": ["-9d", "-1d"]}, "no video interaction is left for train"),
        ({"time": [0.8, 0.8]}, "no video interaction is left for valid"),
        ({"time": [0.5, START + 99 * DAY]}, "no video interaction is left for test"),
        ({"time": [0.8]}, "expected two boundaries"),
        ({"time": "0.8"}, "expected two boundaries"),
        ({"time": ["yesterday", 0.9]}, "'yesterday' is not a time"),
        ({"time": [True, 0.9]}, "True is not a time"),
        ({"time": [-3, 0.9]}, "-3 is not a time"),
        ({"time": ["-1.5d", "-1d"], "calendar_zone": "UTC"}, "whole days"),
        ({"time": ["-2d", "-1d"], "calendar_zone": "Mars/Olympus"}, "'Mars/Olympus' is not a known time zone"),
        ({"LS": "valid_and_test", "calendar_zone": "UTC"}, "calendar_zone belongs to a split by time"),
        ({"LS": "last"}, "LS = 'last' is not known; accepted are valid_and_test"),
        ({"LS": ["valid_and_test"]}, "is not known; accepted"),
        ({"RS": [0.8, 0.2]}, "expected three ratios"),
        ({"RS": [0, 0.5, 0.5]}, "the first > 0"),
        ({"RS": [0.8, "x", 0.1]}, "expected three ratios"),
        ({"TS": [0.8, 0.1, 0.1]}, "does not name one way"),
        ({"LS": "valid_only", "RS": [8, 1, 1]}, "does not name one way"),
        ("time", "is not a mapping"),
    ],
)
def test_a_split_that_cannot_be_used_is_named(split: object, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_split(split, _tables([START + k * DAY for k in range(6)]))  # type: ignore[arg-type]


def test_a_phase_of_interactions_without_any_history_is_an_error_of_the_data_set():
    tables = Tables.from_arrays(
        inter=[("a", "v", START), ("a", "w", START + 1), ("b", "v", START + 2), ("c", "v", START + 3)]
    )
    with pytest.raises(ConfigError, match="earlier one of its user is left for valid and test"):
        JointData(tables, split={"time": [0.5, 0.75]})


# As RecBole divides ------------------------------------------------------------------------------------------------


def _groups(users: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(users == user).tolist() for user in np.unique(users)]


@pytest.mark.parametrize("mode", ["valid_and_test", "valid_only", "test_only"])
def test_leave_one_out_equals_recbole(mode: str):
    dataset = pytest.importorskip("recbole.data.dataset").Dataset
    users = np.repeat(np.arange(1, 7), [1, 2, 3, 4, 9, 1])
    number = 2 if mode == "valid_and_test" else 1
    parts = dataset._split_index_by_leave_one_out(None, _groups(users), number)
    parts = {"valid_and_test": parts, "valid_only": [*parts, []], "test_only": [parts[0], [], parts[-1]]}[mode]
    split = parse_split({"LS": mode}, make_tables(0))
    phases = split.phases(users, np.arange(len(users)))
    assert [np.flatnonzero(phases == phase).tolist() for phase in range(3)] == parts


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    ratios=st.sampled_from([[0.8, 0.1, 0.1], [8, 1, 1], [0.7, 0.2, 0.1], [0.5, 0, 0.5], [1, 1, 1], [0.9, 0.1, 0]]),
)
@settings(max_examples=60, deadline=None)
def test_ratios_equal_recbole(sizes: list[int], ratios: list[float]):
    dataset = pytest.importorskip("recbole.data.dataset").Dataset
    users = np.repeat(np.arange(len(sizes)), sizes)
    expected = np.zeros(len(users), int)
    for group in _groups(users):
        first, second = dataset._calcu_split_ids(None, len(group), [r / sum(ratios) for r in ratios])
        expected[group[first:second]], expected[group[second:]] = 1, 2
    split = parse_split({"RS": ratios}, make_tables(0))
    assert split.phases(users, np.arange(len(users))).tolist() == expected.tolist()


def test_the_last_record_to_start_is_the_test_record():
    """A record that starts first and ends last is neither."""
    comments = {f"c{k}": {"item_id": f"v{k}"} for k in range(3)}
    hours = [("c0", 0), ("c1", 1), ("c2", 2), ("c0", 3)]
    cinter = [("u", c, START + 3600 * h) for c, h in hours]
    tables = Tables.from_arrays(inter=[("u", f"v{k}", START + k) for k in range(3)], cinter=cinter, comments=comments)
    data = JointData(tables, split=Split("LS", left_out=(1, 1)))
    assert dict(zip(data.comments.item.tolist(), data.comments.phase.tolist(), strict=True)) == {1: 0, 2: 1, 3: 2}


def test_a_split_by_time_divides_records_by_their_start_and_videos_by_their_time():
    tables = make_tables(4)
    split = Split("time", valid_start=START + 5 * DAY, test_start=START + 8 * DAY)
    data = JointData(tables, split=split)
    for found, times in ((data.videos, data.videos.time), (data.comments, data.records.start)):
        for phase, (low, high) in enumerate(
            [(-np.inf, START + 5 * DAY), (START + 5 * DAY, START + 8 * DAY), (START + 8 * DAY, np.inf)]
        ):
            np.testing.assert_array_equal(found.phase == phase, (low <= times) & (times < high))
    crossing = (data.records.start < split.valid_start) & (data.records.end >= split.valid_start)
    assert not crossing.any()
