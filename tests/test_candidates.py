"""Candidate sets: what may be in a list, that lists repeat exactly, and that drawing is fair."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from factories import make_tables
from joint_reference import comment_pool

from recbole_lsvcr.data import comment_candidates, negatives
from recbole_lsvcr.data.candidates import CandidateSet, candidate_set
from recbole_lsvcr.data.comment_candidates import CommentIndex
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol, parse_protocols
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError

WEEK = 7 * 86_400.0
SPLIT = {"time": [0.5, 0.75]}


def joint(seed: int = 0, **options: object) -> JointData:
    tables = make_tables(seed, users=40, videos=60, comments=200, interactions=900, comment_interactions=300, days=40)
    return JointData(tables, split=SPLIT, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> JointData:
    return joint()


# ---- protocols ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all+uniform", Protocol("all", "uniform", 99)),
        ("available+period", Protocol("available", "period", 99)),
        ("ALL+Popular7", Protocol("all", "popular", 7)),
        ("available+full", Protocol("available", "full", 0)),
    ],
)
def test_a_protocol_is_read_from_its_string_and_written_back(text: str, expected: Protocol) -> None:
    assert Protocol.parse(text) == expected
    assert Protocol.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "all", "all+none", "some+full", "all+full50", "all+uniform0", "all+uniform-3", 5])
def test_an_unknown_protocol_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        Protocol.parse(text)
    assert "uniform" in str(error.value)
    assert str(text) in str(error.value) or "at least 1" in str(error.value)


def test_the_default_number_of_negatives_fills_in_where_none_is_written_and_duplicates_collapse() -> None:
    assert parse_protocols(["all+uniform", "all+uniform20", "all+period5"], 20) == [
        Protocol("all", "uniform", 20),
        Protocol("all", "period", 5),
    ]
    with pytest.raises(ConfigError):
        parse_protocols([])


# ---- drawing ----


def test_distinct_positions_are_distinct_in_range_and_every_subset_is_equally_likely() -> None:
    rng = np.random.default_rng(0)
    sizes = np.full(30_000, 5)
    drawn = np.sort(negatives.distinct_positions(sizes, 2, rng), axis=1)
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 10 and all(a < b for a, b in counts)
    # 3,000 expected of each pair, standard deviation 52
    assert max(abs(number - 3000) for number in counts.values()) < 5 * 52


def test_distinct_positions_of_a_small_range_are_all_of_it() -> None:
    drawn = negatives.distinct_positions(np.array([0, 1, 3, 4]), 3, np.random.default_rng(0))
    assert drawn[:3].tolist() == [[-1, -1, -1], [0, -1, -1], [0, 1, 2]]
    assert len(set(drawn[3].tolist())) == 3 and drawn[3].min() >= 0 and drawn[3].max() < 4


def test_popular_negatives_follow_successive_draws_by_weight() -> None:
    weights = np.array([0, 8, 4, 2, 1, 0, 1])  # item 5 has no training interaction
    n = 40_000
    targets = negatives.Targets(np.full(n, 3, np.int32), np.zeros(n))
    catalogue = negatives.Catalogue(np.full(7, -np.inf), only_available=False)
    drawn = negatives.popular(targets, 2, catalogue, weights, np.random.default_rng(1))
    assert not np.isin(drawn, [0, 3, 5]).any()
    # Slow definition: the first by weight, the second by weight among the others.
    chance: dict[frozenset[int], float] = {}
    for first, a in ((1, 8), (2, 4), (4, 1), (6, 1)):
        for second, b in ((1, 8), (2, 4), (4, 1), (6, 1)):
            if first != second:
                pair = frozenset((first, second))
                chance[pair] = chance.get(pair, 0.0) + a / 14 * b / (14 - a)
    counts = Counter(frozenset(row) for row in drawn.tolist())
    for pair, expected in chance.items():
        assert counts[pair] / n == pytest.approx(expected, abs=5 * (expected / n) ** 0.5)


def pool_of(data: JointData, protocol: Protocol, row: int) -> set[int]:
    """The slow definition of what a target's negatives are drawn from."""
    target, time = int(data.videos.item[row]), data.videos.time[row]
    pool = set(range(1, data.n_items))
    if protocol.negatives == "popular":
        pool = set(np.flatnonzero(data.train_item_count).tolist())
    if protocol.negatives == "period":
        times = data.tables.inter_time
        pool = set(data.tables.inter_item[(times >= time - WEEK) & (times < time)].tolist())
    if protocol.only_available:
        pool = {item for item in pool if data.tables.item_time[item] <= time}
    return pool - {target}


@pytest.mark.parametrize("candidates", ["all", "available"])
@pytest.mark.parametrize(
    "kind", ["uniform4", "uniform59", "uniform500", "popular5", "popular80", "period6", "period55"]
)
def test_every_list_holds_its_target_once_and_different_negatives_of_its_pool(
    data: JointData, candidates: str, kind: str
) -> None:
    protocol = Protocol.parse(f"{candidates}+{kind}")
    found = candidate_set(data, "video", 2, protocol, seed=3)
    rows = data.rows("video", 2)
    assert found.left_out == len(rows) - len(found.rows)
    short = 0
    for row, items, positive, enough in zip(found.rows, found.items, found.positive, found.enough, strict=True):
        listed = items[items > 0].tolist()
        assert items[: len(listed)].tolist() == listed, "padding is on the right"
        assert items[positive].tolist() == [data.videos.item[row]]
        drawn = set(listed) - {int(data.videos.item[row])}
        assert len(drawn) == len(listed) - 1, "a candidate occurs twice"
        pool = pool_of(data, protocol, row)
        assert drawn <= pool
        assert len(drawn) == min(len(pool), protocol.sample_num)
        assert enough == (len(pool) >= protocol.sample_num)
        short += not enough
    assert all(not pool_of(data, protocol, row) for row in np.setdiff1d(rows, found.rows))
    if protocol.sample_num in (55, 80, 500):
        assert short > 0, "the case of too small a pool is not in the data"


@pytest.mark.parametrize("block", [7, 512, 9000])
def test_period_negatives_are_uniform_whatever_windows_share_a_block(data: JointData, block: int) -> None:
    rows, repeats = data.rows("video", 2)[::40][:3], 3000
    items, times = (np.repeat(values[rows], repeats) for values in (data.videos.item, data.videos.time))
    catalogue = negatives.Catalogue(data.tables.item_time, only_available=False)
    events = (data.tables.inter_item, data.tables.inter_time)
    rng = np.random.default_rng(5)
    drawn = negatives.period(negatives.Targets(items, times), 4, catalogue, events, rng, block=block)
    for number, row in enumerate(rows):
        pool = pool_of(data, Protocol.parse("all+period"), int(row))
        counts = Counter(drawn[number * repeats : (number + 1) * repeats].ravel().tolist())
        share = 4 / len(pool)
        assert set(counts) <= pool
        for item in pool:
            assert counts[item] / repeats == pytest.approx(share, abs=5 * (share / repeats) ** 0.5)


def test_an_event_at_the_very_time_of_the_target_is_not_in_its_period_and_one_exactly_a_week_before_is() -> None:
    now = 1_600_000_000.0
    tables = Tables.from_arrays(
        inter=[
            ("a", "early", now - 8 * 86_400.0),
            ("b", "week", now - WEEK),
            ("b", "recent", now - 1.0),
            ("b", "same", now),
            ("a", "target", now),
        ]
    )
    ids = {token: number for number, token in enumerate(tables.items.to_list())}
    targets = negatives.Targets(np.array([ids["target"]], np.int32), np.array([now]))
    catalogue = negatives.Catalogue(tables.item_time, only_available=False)
    events = (tables.inter_item, tables.inter_time)
    drawn = negatives.period(targets, 5, catalogue, events, np.random.default_rng(0))
    assert sorted(drawn[0][drawn[0] > 0].tolist()) == sorted([ids["week"], ids["recent"]])


def test_the_target_is_at_every_place_of_its_list_equally_often(data: JointData) -> None:
    rows = data.rows("video", 2)
    columns = [candidate_set(data, "video", 2, Protocol.parse("all+uniform3"), seed=s).target_column for s in range(40)]
    counts = np.bincount(np.concatenate(columns), minlength=4)
    total = 40 * len(rows)
    assert np.abs(counts - total / 4).max() < 5 * (total * 3 / 16) ** 0.5


# ---- storing ----


def same(one: CandidateSet, other: CandidateSet) -> bool:
    return one.hash == other.hash and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("rows", "items", "positive", "enough")
    )


@pytest.mark.parametrize("kind", ["video", "comment"])
def test_a_stored_set_is_read_back_identical_and_equals_a_drawn_one(tmp_path: Path, kind: str) -> None:
    protocol = Protocol.parse("available+uniform9")
    first = candidate_set(joint(), kind, 2, protocol, seed=1, folder=tmp_path)  # type: ignore[arg-type]
    files = list(tmp_path.iterdir())
    assert len(files) == 1
    written = files[0].stat().st_mtime_ns
    # What a model with other history lengths asks for.
    again = candidate_set(joint(max_videos=3, max_records=2), kind, 2, protocol, seed=1, folder=tmp_path)  # type: ignore[arg-type]
    assert same(first, again) and list(tmp_path.iterdir()) == files and files[0].stat().st_mtime_ns == written
    assert same(first, candidate_set(joint(), kind, 2, protocol, seed=1))  # type: ignore[arg-type]
    assert first.left_out == again.left_out


def test_the_hash_changes_with_everything_the_lists_are_a_function_of(data: JointData) -> None:
    protocol = Protocol.parse("all+uniform9")
    sets = [
        candidate_set(data, "video", 2, protocol, seed=1),
        candidate_set(data, "video", 2, protocol, seed=2),
        candidate_set(data, "video", 1, protocol, seed=1),
        candidate_set(data, "video", 2, Protocol.parse("all+uniform8"), seed=1),
        candidate_set(data, "video", 2, Protocol.parse("available+uniform9"), seed=1),
        candidate_set(joint(1), "video", 2, protocol, seed=1),
        candidate_set(JointData(data.tables, split={"time": [0.6, 0.8]}), "video", 2, protocol, seed=1),
    ]
    assert len({found.hash for found in sets}) == len(sets)


@pytest.mark.parametrize("damage", ["cut", "text", "swapped"])
def test_a_damaged_candidate_file_is_drawn_again_to_the_same_lists(
    data: JointData, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    protocol = Protocol.parse("all+uniform9")
    first = candidate_set(data, "video", 2, protocol, seed=1, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:500])
    elif damage == "text":
        file.write_text("not a candidate set")
    else:
        candidate_set(data, "video", 2, protocol, seed=2, folder=tmp_path / "other")
        file.write_bytes(next((tmp_path / "other").iterdir()).read_bytes())
    with caplog.at_level("WARNING"):
        again = candidate_set(data, "video", 2, protocol, seed=1, folder=tmp_path)
    assert same(first, again) and file.name in caplog.text
    assert same(first, candidate_set(data, "video", 2, protocol, seed=1, folder=tmp_path))


# ---- comments ----


@pytest.mark.parametrize("count", [2, 6, 99])
def test_comment_lists_follow_the_slow_definition(talk: JointData, count: int) -> None:
    data = talk
    found = candidate_set(data, "comment", 2, Protocol("available", "uniform", count), seed=0)
    several = cut = 0
    for row, items, positive in zip(found.rows, found.items, found.positive, strict=True):
        positives, pool = comment_pool(data, row)
        listed = items[items > 0].tolist()
        assert len(set(listed)) == len(listed)
        assert set(items[positive].tolist()) == positives
        drawn = set(listed) - positives
        assert drawn <= pool
        assert len(drawn) == min(len(pool), max(count + 1 - len(positives), 0))
        several += len(positives) > 1
        cut += len(pool) > len(drawn)
    for row in np.setdiff1d(data.rows("comment", 2), found.rows):
        positives, pool = comment_pool(data, row)
        assert not pool or len(positives) > count
    assert several > 5 and (cut > 5) == (count < 99)
    assert found.left_out == len(data.rows("comment", 2)) - len(found.rows)


def test_the_full_comment_lists_are_all_the_slow_definition_has(talk: JointData) -> None:
    data = talk
    rows = data.rows("comment", 2)
    row, comment, positive = CommentIndex(data).lists(rows)
    for number, instance in enumerate(rows):
        positives, pool = comment_pool(data, instance)
        assert set(comment[row == number].tolist()) == positives | pool
        assert set(comment[(row == number) & positive].tolist()) == positives
    assert len(row) == sum(len(set().union(*comment_pool(data, instance))) for instance in rows)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_sorting_the_smallest_keys_only_gives_what_sorting_all_of_them_gives(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = make_tables(2, users=12, videos=4, comments=900, interactions=100, comment_interactions=300, days=40)
    data = JointData(tables, split=SPLIT)
    index, rows = CommentIndex(data), np.arange(len(data.comments))
    few = index.sampled(rows, count, np.random.default_rng(0))
    monkeypatch.setattr(comment_candidates, "_smallest", lambda keys, row, among, wanted: among)
    for found, expected in zip(few, index.sampled(rows, count, np.random.default_rng(0)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_row_whose_keys_are_all_large_keeps_all_of_them() -> None:
    row, size = np.repeat([0, 1], 1000), 2000
    keys = np.where(row == 0, 0.9, np.arange(size) % 1000 / 1000)
    among = np.arange(size) % 10 > 0
    kept = comment_candidates._smallest(keys, row, among, np.array([5, 5]))
    assert kept[:1000].tolist() == among[:1000].tolist()
    assert 5 <= kept[1000:].sum() < 60 and not (kept & ~among).any()


@pytest.mark.parametrize(("comments", "listed"), [(1, 0), (2, 2), (99, 99), (100, 100), (101, 100), (250, 100)])
def test_a_video_with_so_many_comments_gives_a_list_of_at_most_100(comments: int, listed: int) -> None:
    start = 1_600_000_000.0
    videos: dict[str, dict[str, object]] = {f"v{k}": {} for k in range(4)}  # v3 has no comments at all
    rows = {f"c{k}": {"item_id": "v0", "timestamp": start} for k in range(comments)}
    rows |= {f"d{k}": {"item_id": "v1", "timestamp": start} for k in range(3)}
    inter = [(f"u{u}", f"v{v}", start + 100 * v + u) for u in range(3) for v in range(4)]
    cinter = [("u0", "d0", start + 10), ("u1", "d1", start + 20), ("u0", "c0", start + 10_000_000)]
    tables = Tables.from_arrays(inter=inter, cinter=cinter, items=videos, comments=rows)
    data = JointData(tables, split={"LS": "test_only"}, record_gap=86_400.0)
    index = CommentIndex(data)
    row = np.flatnonzero(data.comments.item == 1)  # u0 under v0
    assert len(row) == 1
    items, positive = index.sampled(row, 99, np.random.default_rng(0))
    assert items.shape == (1, 100) and positive.sum() == 1
    assert (items > 0).sum() == max(listed, 1)  # alone with its positive: counted and left out by candidate_set
    assert index.sizes(row).tolist() == [comments]


def test_an_instance_without_a_negative_comment_is_counted_and_left_out() -> None:
    start = 1_600_000_000.0
    comments = {"only": {"item_id": "v0"}, "x": {"item_id": "v1"}, "y": {"item_id": "v1"}}
    tables = Tables.from_arrays(
        inter=[("u", "v0", start), ("u", "v1", start + 1), ("u", "v2", start + 2)],
        cinter=[("u", "only", start + 3), ("u", "x", start + 4)],
        items={"v0": {}, "v1": {}, "v2": {}},
        comments=comments,
    )
    data = JointData(tables, split={"LS": "test_only"})
    sets = [candidate_set(data, "comment", phase, Protocol.parse("available+uniform"), seed=0) for phase in (0, 2)]
    assert [(len(found.rows), found.left_out) for found in sets] == [(0, 1), (1, 0)]


@pytest.mark.parametrize("text", ["all+uniform", "available+period", "available+popular", "all+full"])
def test_comments_are_ranked_by_their_own_protocols_only(data: JointData, text: str) -> None:
    with pytest.raises(ConfigError, match=r"available\+uniform"):
        candidate_set(data, "comment", 2, Protocol.parse(text), seed=0)


def test_a_full_ranking_has_no_candidate_set(data: JointData) -> None:
    with pytest.raises(ConfigError, match="no candidate set"):
        candidate_set(data, "video", 2, Protocol.parse("all+full"), seed=0)
