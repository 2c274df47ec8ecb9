"""What training ranks a record's positive against: the lists equal the definitions, and the draws are fair."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from factories import DAY, START, make_tables
from joint_reference import comment_pool

from recbole_lsvcr.data import comment_negatives
from recbole_lsvcr.data.comment_counts import CommentCounts
from recbole_lsvcr.data.comment_negatives import CHOICES, POOL, TrainingLists
from recbole_lsvcr.data.comment_timeline import CommentTimeline
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError

BOUNDARIES = Split("time", valid_start=START + 20 * DAY, test_start=START + 30 * DAY)
SHAPES: list[dict[str, int]] = [
    {"users": 12, "videos": 8, "comments": 120},
    {"users": 6, "videos": 4, "comments": 60, "comment_interactions": 300},  # users know most comments of a video
    {"users": 20, "videos": 30, "comments": 45, "comment_interactions": 200},  # most videos have a comment or two
]


def joint(number: int, **options: object) -> JointData:
    """One of the random data sets; records have several positives."""
    tables = make_tables(number, days=40.0, **{**SHAPES[number % len(SHAPES)], **options})  # type: ignore[arg-type]
    return JointData(tables, split=BOUNDARIES, record_gap=3 * DAY)


@pytest.fixture(scope="module", params=range(6))
def data(request: pytest.FixtureRequest) -> JointData:
    return joint(request.param)


def vectors_of(data: JointData, size: int = 6) -> comment_negatives.Vectors:
    """Random text vectors by comment id."""
    table = np.random.default_rng(1).normal(size=(data.n_comments, size)).astype(np.float16)
    return lambda ids: table[ids]


def lists_of(data: JointData, choice: str, count: int) -> TrainingLists:
    return TrainingLists(data, choice=choice, count=count, vectors=vectors_of(data) if choice == "hard" else None)


def positives_of(data: JointData, row: int) -> list[int]:
    record, offsets = data.comments.record[row], data.records.offsets
    return data.records.comments[offsets[record] : offsets[record + 1]].tolist()


def elsewhere(data: JointData, row: int) -> set[int]:
    """The slow definition of what a record under a video without any negative is ranked against."""
    tables, instances = data.tables, data.comments
    touched = set(tables.cinter_comment[tables.cinter_user == instances.user[row]].tolist())
    return {
        comment
        for comment in range(1, data.n_comments)
        if tables.comment_item[comment] != instances.item[row]
        and tables.comment_item[comment] in instances.item
        and not tables.comment_is_reply[comment]
        and tables.comment_time[comment] <= instances.time[row]
    } - touched


def ids(tables: Tables) -> dict[str, int]:
    return {token: number for number, token in enumerate(tables.comments)}


def under_one_video(
    comments: int, *, texts: list[str] | None = None, cinter: list[tuple[str, str, float]] | None = None
) -> JointData:
    """User `me` liked `c0` under video `v` at START + 100; `v` has so many comments posted before, and two videos that
    others commented on have three.
    """
    rows: dict[str, dict[str, object]] = {
        f"c{k}": {"item_id": "v", "timestamp": START + k % 50} for k in range(comments)
    }
    rows |= {f"d{k}": {"item_id": "wx"[k % 2], "timestamp": START} for k in range(3)}
    rows |= {"late": {"item_id": "w", "timestamp": START + 101}, "unwatched": {"item_id": "y"}}
    rows["reply"] = {"item_id": "v", "parent_id": "gone", "timestamp": START}
    for key, text in zip(rows, texts or [], strict=False):
        rows[key]["content"] = text
    liked = "c0" if comments else "reply"
    events = [("me", liked, START + 100), ("other", "d0", START + 10), ("other", "d1", START + 10), *(cinter or [])]
    tables = Tables.from_arrays(inter=[("me", "v", START), ("me", "w", START + 1)], cinter=events, comments=rows)
    return JointData(tables, split=Split("time", START + 1000, START + 2000))


def row_of_me(data: JointData) -> np.ndarray:
    me = data.tables.users.to_list().index("me")
    return np.flatnonzero((data.comments.user == me) & (data.comments.item == data.tables.items.to_list().index("v")))


# ---- which comments ----


def test_how_many_negatives_there_are_equals_the_definition(data: JointData) -> None:
    rows = np.random.default_rng(0).permutation(len(data.comments))
    timeline = CommentTimeline(data)
    expected = [comment_pool(data, row) for row in rows]
    assert timeline.negatives(rows).tolist() == [len(pool) for _, pool in expected]
    assert timeline.lengths(rows).tolist() == [len(positives | pool) for positives, pool in expected]
    one = [int(timeline.negatives(rows[k : k + 1])[0]) for k in range(20)]
    assert one == [len(pool) for _, pool in expected[:20]], "the other rows of a batch must not matter"


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("count", [1, 4, 19])
def test_a_list_is_a_positive_and_different_comments_of_the_definition(
    data: JointData, choice: str, count: int
) -> None:
    rows = np.arange(len(data.comments))
    lists = lists_of(data, choice, count).draw(rows, np.random.default_rng(count))
    assert lists.shape == (len(rows), 1 + count) and lists.dtype == np.int32
    cut = alone = 0
    for row, found in zip(rows, lists.tolist(), strict=True):
        positives, pool = comment_pool(data, row)
        assert found[0] in positives
        drawn = [comment for comment in found[1:] if comment]
        assert found[1 : 1 + len(drawn)] == drawn, "padding is on the right"
        assert len(set(drawn)) == len(drawn)
        if pool:
            assert set(drawn) <= pool
            assert len(drawn) == min(len(pool), count)
            cut += len(pool) > count
        else:
            usable = elsewhere(data, row)
            assert set(drawn) <= usable
            assert len(drawn) == min(len(usable), count)
            alone += bool(drawn)
    assert cut or count == 19
    assert alone or data.n_items < 31  # where most videos have a comment or two, some instances have no negative


@pytest.mark.parametrize("comments", [0, 1, 2, 99, 100, 101, 5000])
@pytest.mark.parametrize("choice", CHOICES)
def test_videos_with_none_to_thousands_of_comments(comments: int, choice: str) -> None:
    data = under_one_video(comments)
    number, row = ids(data.tables), row_of_me(data)
    others = max(comments - 1, 0)
    timeline = CommentTimeline(data)
    assert timeline.negatives(row).tolist() == [others] and timeline.lengths(row).tolist() == [others + 1]
    found = lists_of(data, choice, 99).draw(row, np.random.default_rng(0))[0]
    drawn = set(found[found > 0].tolist()[1:])
    assert found[0] == number["c0" if comments else "reply"]
    assert len(drawn) == (found[1:] > 0).sum()
    if others:
        assert len(drawn) == min(others, 99)
        assert drawn <= {number[f"c{k}"] for k in range(1, comments)}
    else:  # random ones of other videos: neither of those posted later nor of those nobody commented on
        assert drawn == {number[f"d{k}"] for k in range(3)}


@pytest.mark.parametrize("choice", CHOICES)
def test_where_every_video_has_nothing_but_replies_a_list_is_its_positive(choice: str) -> None:
    tables = Tables.from_arrays(
        inter=[("u", "v", START), ("u", "w", START + 1)],
        cinter=[("u", "r", START + 5)],
        comments={"c": {"item_id": "w"}, "r": {"item_id": "v", "parent_id": "gone"}},
    )
    data = JointData(tables, split=Split("time"))
    assert lists_of(data, choice, 3).draw(np.arange(1), np.random.default_rng(0)).tolist() == [[2, 0, 0, 0]]
    assert lists_of(data, choice, 3).draw(np.arange(0), np.random.default_rng(0)).shape == (0, 4)


@pytest.mark.parametrize("choice", CHOICES)
def test_equal_generators_give_equal_lists_and_others_do_not(choice: str) -> None:
    data = joint(0)
    rows, lists = data.rows("comment", 0), lists_of(data, choice, 3)
    first, again, other = (lists.draw(rows, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, lists_of(data, choice, 3).draw(rows, np.random.default_rng(4)))
    assert (first != other).any()


# ---- how often ----


def test_every_positive_of_a_record_is_drawn_equally_often() -> None:
    data, n = joint(1), 4000
    several = np.flatnonzero(np.diff(data.records.offsets)[data.comments.record] > 2)[:6]
    assert len(several) > 2
    lists = lists_of(data, "uniform", 1).draw(np.repeat(several, n), np.random.default_rng(0)).reshape(-1, n, 2)
    for row, drawn in zip(several, lists[:, :, 0], strict=True):
        positives, counts = positives_of(data, row), Counter(drawn.tolist())
        share = 1 / len(positives)
        assert set(counts) == set(positives)
        for positive in positives:
            assert counts[positive] / n == pytest.approx(share, abs=5 * (share * (1 - share) / n) ** 0.5)


def test_uniform_negatives_are_uniform() -> None:
    data, n, count = joint(0), 6000, 3
    rows = [row for row in range(len(data.comments)) if 4 <= len(comment_pool(data, row)[1]) <= 12][:6]
    lists = lists_of(data, "uniform", count).draw(np.repeat(rows, n), np.random.default_rng(0))
    for row, drawn in zip(rows, lists[:, 1:].reshape(len(rows), -1), strict=True):
        pool = comment_pool(data, row)[1]
        values, counts = np.unique(drawn, return_counts=True)
        assert set(values.tolist()) == pool
        expected = n * count / len(pool)
        # Draws without replacement vary less than this; a chi-square of 11 degrees of freedom stays below 40.
        assert ((counts - expected) ** 2 / expected).sum() < 40


def test_popular_negatives_are_drawn_by_training_interactions() -> None:
    """Weights are 1 + interactions in training, those of later days and of the list's own user notwithstanding."""
    before = {"c1": 0, "c2": 1, "c3": 3, "c4": 9}
    crowd = [(f"u{k}", comment, START + 200) for comment, times in before.items() for k in range(times)]
    later = [(f"u{k}", "c1", START + (1500 if k % 2 else 2500)) for k in range(30)]
    data, n = under_one_video(5, cinter=crowd + later), 40_000
    number, row = ids(data.tables), row_of_me(data)
    lists = lists_of(data, "popular", 1).draw(np.repeat(row, n), np.random.default_rng(0))
    counts = Counter(lists[:, 1].tolist())
    assert set(counts) == {number[comment] for comment in before}
    weights = {comment: 1 + times for comment, times in before.items()}
    total = sum(weights.values())
    missed = (2 / (total + 2)) ** 3  # three draws in a row are the positive, of weight 2: then one is drawn uniformly
    for comment, weight in weights.items():
        share = (1 - missed) * weight / total + missed / len(weights)
        assert counts[number[comment]] / n == pytest.approx(share, abs=5 * (share / n) ** 0.5)


# ---- hard ----


@pytest.mark.parametrize("cells", [1, 1 << 20])
def test_hard_negatives_are_the_nearest_by_cosine(data: JointData, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comment_negatives, "_CELLS", cells)  # in steps of one row, or all at once
    rows, count = np.arange(len(data.comments)), 2
    lists = lists_of(data, "hard", count).draw(rows, np.random.default_rng(0))
    vector = vectors_of(data)(np.arange(data.n_comments)).astype(np.float64)
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    checked = 0
    for row, (positive, *drawn) in zip(rows, lists.tolist(), strict=True):
        _, pool = comment_pool(data, row)
        if not 0 < len(pool) <= POOL * count:
            continue
        checked += len(pool) > count
        nearest = sorted(pool, key=lambda comment: -float(vector[comment] @ vector[positive]))
        assert drawn == [*nearest, 0, 0][:count]
    assert checked > 3


def test_hard_negatives_of_a_large_video_are_nearer_than_chance() -> None:
    data, n = under_one_video(2000), 300
    row, vector = row_of_me(data), vectors_of(data)(np.arange(data.n_comments)).astype(np.float64)
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    near = {}
    for choice in ("uniform", "hard"):
        lists = lists_of(data, choice, 5).draw(np.repeat(row, n), np.random.default_rng(0))
        near[choice] = np.einsum("bh,bkh->bk", vector[lists[:, 0]], vector[lists[:, 1:]])
    assert (np.diff(near["hard"], axis=1) <= 1e-9).all(), "nearest first"
    threshold = np.quantile(vector[1:] @ vector[lists[0, 0]], 1 - 1 / POOL)  # 5 of 40: about the best eighth
    assert (near["hard"] > threshold).mean() > 0.8 and (near["uniform"] > threshold).mean() < 0.2


def test_hard_negatives_never_say_what_the_positive_says() -> None:
    texts = ["first!", "first!", "second", "first!", "third"]
    data = under_one_video(5, texts=texts)
    number = ids(data.tables)
    found = lists_of(data, "hard", 4).draw(row_of_me(data), np.random.default_rng(0))[0]
    assert sorted(found.tolist()) == [0, 0, number["c0"], number["c2"], number["c4"]]
    # Where all comments of the video say it, those of other videos that do not are taken.
    data = under_one_video(2, texts=["first!", "first!", "first!", "second", "third"])
    number = ids(data.tables)
    found = lists_of(data, "hard", 4).draw(row_of_me(data), np.random.default_rng(0))[0]
    assert sorted(found.tolist()) == [0, 0, number["c0"], number["d1"], number["d2"]]


# ---- counts ----


def test_counts_equal_a_loop(data: JointData) -> None:
    tables, rng = data.tables, np.random.default_rng(0)
    users = rng.integers(1, data.n_users, 40).astype(np.int32)
    times = START + 3600.0 * rng.integers(0, 40 * 24, 40)  # many are the very time of an interaction
    comments = rng.integers(0, data.n_comments, (40, 15)).astype(np.int32)
    found = CommentCounts(tables).before(comments, users, times)
    events = list(
        zip(tables.cinter_user.tolist(), tables.cinter_comment.tolist(), tables.cinter_time.tolist(), strict=True)
    )
    for b in range(40):
        for c in range(15):
            expected = sum(
                user != users[b] and comment == comments[b, c] and time < times[b] for user, comment, time in events
            )
            assert found[b, c] == expected
    assert found.max() > 1 and not found[comments == 0].any()


# ---- bad settings ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": "nearest"}, "train_negatives = 'nearest' is not accepted; accepted: uniform, popular, hard"),
        ({"count": 0}, "train_negative_num = 0 is not accepted"),
        ({"choice": "hard"}, "hard needs text vectors"),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingLists(joint(0), **options)  # type: ignore[arg-type]
