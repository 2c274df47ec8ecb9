"""The joint data set: instances and inputs equal their definitions, and nothing at or after a target's time shows."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from factories import DAY, START, make_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_reference import popular_of, record_history, records_of, videos_of

from recbole_lsvcr.data.instances import KINDS, InstanceBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError

BOUNDARIES = Split("time", valid_start=START + 6 * DAY, test_start=START + 9 * DAY)
SPLITS = [BOUNDARIES, Split("LS", left_out=(1, 1)), Split("RS", ratios=(0.6, 0.2, 0.2))]
SIZES = {"max_videos": 6, "max_records": 4}


def _counted(data: JointData) -> np.ndarray:
    """The training rows of `.cinter`, from the definition."""
    tables = data.tables
    if data.split.kind == "time":
        return tables.cinter_time < data.split.valid_start
    counted = np.zeros(len(tables.cinter_time), bool)
    for r in data.rows("comment", 0):
        records = data.records
        same = (tables.cinter_user == records.user[r]) & (tables.cinter_item == records.item[r])
        counted |= same & (tables.cinter_time >= records.start[r]) & (tables.cinter_time <= records.end[r])
    return counted


def _triples(*columns: np.ndarray) -> list[tuple]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _record_lists(batch: InstanceBatch, row: int) -> list[tuple[int, list[int]]]:
    length = batch.record_len[row]
    return [
        (item, [c for c in comments if c])
        for item, comments in zip(
            batch.record_items[row, :length].tolist(), batch.record_comments[row, :length].tolist(), strict=True
        )
    ]


def _assert_same(a: InstanceBatch, b: InstanceBatch, fields: tuple[str, ...] | None = None) -> None:
    """Equal inputs; the widths of record and target comments depend on the batch."""
    for field in fields or tuple(f.name for f in dataclasses.fields(InstanceBatch)):
        x, y = getattr(a, field), getattr(b, field)
        if field in ("record_comments", "target_comments"):
            width = max(x.shape[-1], y.shape[-1])
            x, y = (np.pad(z, [(0, 0)] * (z.ndim - 1) + [(0, width - z.shape[-1])]) for z in (x, y))
        np.testing.assert_array_equal(x, y, err_msg=field)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), split=st.sampled_from(SPLITS), gap=st.sampled_from([0.0, 7_200.0, DAY]))
def test_inputs_equal_the_definitions(seed: int, split: Split, gap: float):
    tables = make_tables(seed)
    data = JointData(tables, split=split, record_gap=gap, **SIZES)
    counted = _counted(data)
    for kind in KINDS:
        instances = data.videos if kind == "video" else data.comments
        batch = data.gather(kind, np.arange(len(instances)), training=False)
        for row in range(0, len(instances), 3):
            user, item, time = int(instances.user[row]), int(instances.item[row]), float(instances.time[row])
            videos = videos_of(tables, user, time)[-6:]
            assert batch.video_items[row].tolist() == videos + [0] * (6 - len(videos))
            assert batch.video_len[row] == len(videos)
            positives = batch.target_comments[row].tolist()
            for step, video in enumerate(videos):
                best = popular_of(tables, counted, user, video, time, positives)
                assert batch.video_comments[row, step] == (best[0] if best else 0)
            assert not batch.video_comments[row, len(videos) :].any()
            history = record_history(tables, kind, user, item, time, gap=gap, boundaries=split.boundaries, last=4)
            assert _record_lists(batch, row) == history
            assert not batch.record_items[row, len(history) :].any()
            assert not batch.record_comments[row, len(history) :].any()


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: s.kind)
def test_instances_are_all_records_and_all_videos_with_an_earlier_one(split: Split):
    tables = make_tables(7)
    data = JointData(tables, split=split)
    events = _triples(tables.inter_user, tables.inter_item, tables.inter_time)
    expected = [(u, v, t) for u, v, t in events if videos_of(tables, u, t)]
    videos, comments = data.videos, data.comments
    assert sorted(_triples(videos.user, videos.item, videos.time)) == sorted(expected)
    records = [(u, r) for u in range(1, tables.n_users) for r in records_of(tables, u, DAY, split.boundaries)]
    assert [(u, r.item, r.start) for u, r in records] == _triples(comments.user, comments.item, comments.time)
    positives = data.gather("comment", np.arange(len(records)), training=False).target_comments
    assert [[c for c in row if c] for row in positives.tolist()] == [r.comments for _, r in records]
    phases = np.concatenate([data.rows(kind, phase) for kind in KINDS for phase in range(3)])
    assert len(phases) == len(videos) + len(records)


def _tables(cinter: list[tuple[str, str, float]], inter: list[tuple[str, str, float]] | None = None) -> Tables:
    comments = {c: {"item_id": "vw"[c > "c5"]} for c in ("c1", "c2", "c3", "c6", "c7")}
    return Tables.from_arrays(inter=inter or [("u", "v", START)], cinter=cinter, comments=comments)


def _history(tables: Tables, time: float, kind: str = "video", item: int = 0, **options) -> list[tuple[int, list[int]]]:
    data = JointData(tables, split=options.pop("split", Split("time")), **options)
    return _record_lists(data.gather_at(kind, np.array([1]), np.array([item]), np.array([time])), 0)


def test_a_record_ends_with_a_long_gap_or_a_split_boundary():
    events = [("u", c, START + t) for c, t in (("c1", 0), ("c2", DAY), ("c1", DAY), ("c3", 2 * DAY + 1))]
    later = START + 9 * DAY
    assert _history(_tables(events), later) == [(1, [1, 2]), (1, [3])]
    assert _history(_tables(events), later, record_gap=DAY + 1) == [(1, [1, 2, 3])]
    at = Split("time", valid_start=START + DAY, test_start=later)
    assert _history(_tables(events), later, split=at, record_gap=DAY + 1) == [(1, [1]), (1, [2, 1, 3])]


def test_a_growing_record_shows_what_has_happened_and_no_more():
    """Whether the user will go on under the video is the future: what came before must show the same either way."""
    events = [("u", "c1", START), ("u", "c6", START + 5), ("u", "c2", START + 10), ("u", "c3", START + 20)]
    tables = _tables(events)
    assert _history(tables, START) == []
    assert _history(tables, START + 1) == [(1, [1])]
    assert _history(tables, START + 10) == [(1, [1]), (2, [4])]
    assert _history(tables, START + 11) == [(2, [4]), (1, [1, 2])]
    assert _history(tables, START + 21) == [(2, [4]), (1, [1, 2, 3])]


def test_a_target_video_hides_its_own_recent_records_but_not_old_or_other_ones():
    events = [("u", "c1", START), ("u", "c2", START + 2 * DAY), ("u", "c6", START + 2 * DAY)]
    tables = _tables(events)
    now = START + 2 * DAY + 10
    assert _history(tables, now, item=1) == [(1, [1]), (2, [4])]
    assert _history(tables, now, item=2) == [(1, [1]), (1, [2])]
    assert _history(tables, now, kind="comment", item=1) == [(1, [1]), (1, [2]), (2, [4])]
    assert _history(tables, START + 3 * DAY, item=1) == [(1, [1]), (1, [2]), (2, [4])]  # as old as record_gap: shown
    assert _history(tables, now, item=1, max_records=1) == [(2, [4])]
    assert _history(tables, now, item=2, max_records=2) == [(1, [1]), (1, [2])]  # the last two of what is left


def test_events_at_the_same_time_are_not_in_each_others_history():
    tables = _tables([("u", "c6", START + 1)], inter=[("u", "v", START), ("u", "v", START + 1), ("u", "w", START + 1)])
    data = JointData(tables, split=Split("time"))
    batch = data.gather("video", np.arange(2), training=False)
    assert batch.video_len.tolist() == [1, 1] and batch.record_len.tolist() == [0, 0]
    assert data.gather("comment", np.arange(1), training=False).video_len.tolist() == [1]


# Leakage -----------------------------------------------------------------------------------------------------------


def _delete_from(tables: Tables, time: float, rng: np.random.Generator) -> Tables:
    keep, ckeep = tables.inter_time < time, tables.cinter_time < time
    return dataclasses.replace(
        tables,
        **{f"inter_{f}": getattr(tables, f"inter_{f}")[keep] for f in ("user", "item", "time")},
        **{f"cinter_{f}": getattr(tables, f"cinter_{f}")[ckeep] for f in ("user", "item", "comment", "time")},
    )


def _change_from(tables: Tables, time: float, rng: np.random.Generator) -> Tables:
    """Every event at or after `time` becomes another one, of any user, at any time from `time` on."""

    def later(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        delay = rng.integers(0, 5 * DAY, len(times)) * (rng.random(len(times)) < 0.7)
        return times >= time, np.where(times >= time, time + delay, times)

    def mix(values: np.ndarray, future: np.ndarray, high: int) -> np.ndarray:
        return np.where(future, rng.integers(1, high, len(values)), values).astype(values.dtype)

    future, times = later(tables.inter_time)
    cfuture, ctimes = later(tables.cinter_time)
    comment = mix(tables.cinter_comment, cfuture, tables.n_comments)
    order, corder = np.argsort(times, kind="stable"), np.argsort(ctimes, kind="stable")
    return dataclasses.replace(
        tables,
        inter_user=mix(tables.inter_user, future, tables.n_users)[order],
        inter_item=mix(tables.inter_item, future, tables.n_items)[order],
        inter_time=times[order],
        cinter_user=mix(tables.cinter_user, cfuture, tables.n_users)[corder],
        cinter_item=tables.comment_item[comment][corder],
        cinter_comment=comment[corder],
        cinter_time=ctimes[corder],
    )


def _other_comments_from(tables: Tables, time: float, rng: np.random.Generator) -> Tables:
    """Every comment interaction at or after `time` is with another comment of its video."""
    comment = tables.cinter_comment.copy()
    for i in np.flatnonzero(tables.cinter_time >= time):
        comment[i] = rng.choice(np.flatnonzero(tables.comment_item == tables.cinter_item[i]))
    return dataclasses.replace(tables, cinter_comment=comment)


def _leaks(split: Split, tamper, fields: tuple[str, ...] | None, seed: int) -> None:
    tables = make_tables(seed, comment_interactions=200)
    data = JointData(tables, split=split, **SIZES)
    rng = np.random.default_rng(seed)
    inputs = tuple(f.name for f in dataclasses.fields(InstanceBatch) if f.name != "target_comments")
    for kind in KINDS:
        instances = data.videos if kind == "video" else data.comments
        for row in rng.choice(len(instances), 12, replace=False):
            before = data.gather(kind, [row], training=False)
            after_data = JointData(tamper(tables, float(before.time[0]), rng), split=split, **SIZES)
            query = {"positives": before.target_comments}  # the one thing of a target its inputs may know
            for training in (False, True):
                draws = [np.random.default_rng(seed) if training else None for _ in range(2)]
                before = data.gather(kind, [row], training=training, rng=draws[0])
                after = after_data.gather_at(
                    kind, before.user, before.item, before.time, training=training, rng=draws[1], **query
                )
                _assert_same(before, after, fields or inputs)
            for n in (3, 10):  # what training draws from
                args = before.video_items[0], np.repeat(before.time, 6), np.repeat(before.user, 6)
                if fields is None:
                    np.testing.assert_array_equal(data.popular(*args, top=n), after_data.popular(*args, top=n))


@pytest.mark.parametrize("tamper", [_delete_from, _change_from])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_event_at_or_after_the_target_changes_an_input(tamper, seed: int):
    _leaks(BOUNDARIES, tamper, None, seed)


@pytest.mark.parametrize("split", SPLITS[1:], ids=lambda s: s.kind)
def test_without_a_split_by_time_the_future_decides_only_what_counts_as_training(split: Split):
    """Leave-one-out takes a user's LAST events out of training, so deleting later ones changes which counts popularity
    has; nothing else may change. With the same events taken out, nothing at all may."""
    histories = ("video_items", "video_len", "record_items", "record_comments", "record_len")
    for tamper in (_delete_from, _change_from):
        _leaks(split, tamper, histories, 3)
    _leaks(split, _other_comments_from, None, 4)


# Batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_instance_is_the_same_in_any_batch_and_asked_for_by_time(kind):
    data = JointData(make_tables(5), split=BOUNDARIES, **SIZES)
    rows = np.arange(len(data.videos if kind == "video" else data.comments))
    whole = data.gather(kind, rows, training=False)
    order = np.random.default_rng(0).permutation(rows)
    part = data.gather(kind, order[:17], training=False)
    taken = InstanceBatch(**{f.name: getattr(whole, f.name)[order[:17]] for f in dataclasses.fields(whole)})
    _assert_same(part, taken)
    again = data.gather_at(kind, whole.user, whole.item, whole.time, positives=whole.target_comments)
    _assert_same(whole, again)


@pytest.mark.parametrize("kind", KINDS)
def test_training_draws_every_top_comment_alike_anew_each_time_and_by_seed(kind):
    data = JointData(make_tables(5), split=BOUNDARIES, **SIZES)
    rows = data.rows(kind, 0)
    rng = np.random.default_rng(0)
    draws = np.stack([data.gather(kind, rows, training=True, rng=rng).video_comments for _ in range(400)])
    batch = data.gather(kind, rows, training=False)
    for b in range(0, len(rows), 5):
        for step in range(batch.video_len[b]):
            positives = batch.target_comments[b].tolist()
            args = int(batch.user[b]), int(batch.video_items[b, step]), float(batch.time[b]), positives
            top = popular_of(data.tables, _counted(data), *args)[:3] or [0]
            seen, times = np.unique(draws[:, b, step], return_counts=True)
            assert seen.tolist() == sorted(top)
            assert (np.abs(times / 400 - 1 / len(top)) < 0.13).all()
    first, second = (data.gather(kind, rows, training=True, rng=np.random.default_rng(9)) for _ in range(2))
    _assert_same(first, second)
    with pytest.raises(ValueError, match="pass rng"):
        data.gather(kind, rows, training=True)


def test_memory_does_not_depend_on_the_history_length():
    tables = make_tables(1)
    short, long = (JointData(tables, split=BOUNDARIES, max_videos=n, max_records=n).memory() for n in (1, 50))
    assert short == long and sum(short.values()) > 0


@pytest.mark.parametrize("kinds", [("video",), ("comment",), ("video", "comment")])
def test_reachable_is_exactly_what_batches_show(kinds):
    tables = make_tables(3, comments=150, days=20.0)
    data = JointData(tables, split=BOUNDARIES, **SIZES)
    shown: set[int] = set()
    rng = np.random.default_rng(0)
    for kind in kinds:
        for phase in range(3):
            for _ in range(200 if phase == 0 else 1):
                batch = data.gather(kind, data.rows(kind, phase), training=phase == 0, rng=rng)
                shown |= {*batch.video_comments.ravel().tolist(), *batch.record_comments.ravel().tolist()}
                shown |= set(batch.target_comments.ravel().tolist())
    if "comment" in kinds:
        under = np.isin(tables.comment_item, data.comments.item) & ~tables.comment_is_reply
        shown |= set(np.flatnonzero(under).tolist())
    items, comments = data.reachable(kinds)
    assert comments.tolist() == sorted(shown - {0})
    assert items.tolist() == list(range(1, tables.n_items))
    assert kinds != ("video",) or len(comments) < tables.n_comments - 1


def test_training_counts_are_of_training_interactions_only():
    tables = make_tables(2)
    data = JointData(tables, split=BOUNDARIES)
    training = tables.inter_time < BOUNDARIES.valid_start
    items, users = tables.inter_item[training], tables.inter_user[training]
    np.testing.assert_array_equal(data.train_item_count, np.bincount(items, minlength=tables.n_items))
    np.testing.assert_array_equal(data.train_user_count, np.bincount(users, minlength=tables.n_users))
    left_out = JointData(tables, split=SPLITS[1])
    held = np.concatenate([left_out.rows("video", phase) for phase in (1, 2)])
    expected = np.bincount(tables.inter_item, minlength=tables.n_items)
    expected -= np.bincount(left_out.videos.item[held], minlength=tables.n_items)
    np.testing.assert_array_equal(left_out.train_item_count, expected)


def test_a_data_set_without_comments_has_video_instances_only():
    tables = Tables.from_arrays(inter=[("a", f"v{k}", START + k) for k in range(5)])
    data = JointData(tables, split={"LS": "valid_and_test"})
    assert [len(data.rows("video", phase)) for phase in range(3)] == [2, 1, 1]
    assert [len(data.rows("comment", phase)) for phase in range(3)] == [0, 0, 0]
    batch = data.gather("video", data.rows("video", 2), training=False)
    assert not batch.video_comments.any() and not batch.record_len.any() and batch.record_comments.shape == (1, 50, 1)
    assert len(data.gather("comment", [], training=False)) == 0
    assert data.reachable(("video", "comment"))[1].tolist() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_videos": 0}, "max_videos = 0"),
        ({"max_records": 2.5}, "max_records = 2.5"),
        ({"popular_top": True}, "popular_top = True"),
        ({"record_gap": -1}, "record_gap = -1"),
        ({"record_gap": float("nan")}, "record_gap = nan"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        JointData(make_tables(0), split=BOUNDARIES, **options)


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match="'videos' are not known"):
        JointData(make_tables(0), split=BOUNDARIES).rows("videos", 0)


def test_the_data_substrate_imports_without_recbole_and_torch():
    code = "import sys; sys.modules.update(recbole=None, torch=None); import recbole_lsvcr.data.joint"
    subprocess.run([sys.executable, "-c", code], check=True)
