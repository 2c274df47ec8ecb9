"""Comments ranked end to end: metrics of several positives, ties, long lists, slices and videos of every size."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
import torch
from factories import DAY, START, make_talk
from joint_reference import comment_pool, records_of, videos_of

from recbole_lsvcr.data.candidates import candidate_set
from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.data.splits import Split
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.evaluation import EvaluationResult, evaluate

UNIFORM, FEW, FULL = "available+uniform", "available+uniform6", "available+full"
TOPK = (1, 2, 5, 10)
SIZES = (1, 2, 9, 10, 49, 50, 99, 100, 101, 999, 1000, 5000)  # comments of a video
BOUNDARIES = Split("time", valid_start=START + 10 * DAY, test_start=START + 20 * DAY)


class Random:
    """A fixed score per comment and video watched; `levels` of them, so that few levels mean many ties."""

    name = "Random"

    def __init__(self, data: JointData, levels: int = 1 << 20) -> None:
        drawn = torch.rand(data.n_comments, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.scores = (drawn * levels).floor()
        self.empty_histories = 0

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        assert items.dtype == torch.int64 and items.shape[0] == len(batch)
        self.empty_histories += int(((batch.video_len == 0) & (batch.record_len == 0)).sum())
        return self.scores[items].masked_fill(items == 0, math.nan)  # padding must not matter


@pytest.fixture(scope="module")
def ladder() -> JointData:
    """A video of every size, each watched in the test period by a user who likes three of its comments (fewer if there
    are no more); every other user has liked a comment before.
    """
    items = {f"v{size}": {} for size in SIZES}
    comments = {f"{size}-{k}": {"item_id": f"v{size}", "timestamp": START} for size in SIZES for k in range(size)}
    comments["99-0"]["content"] = ""  # a positive that says nothing (any more)
    inter = [("crowd", item, START + k) for k, item in enumerate(items)]
    cinter, now = [], START + 25 * DAY
    for number, size in enumerate(SIZES):
        user = f"u{size}"
        if number % 2:
            inter.append((user, "v50", START + DAY))
            cinter.append((user, "50-1", START + 2 * DAY))
        cinter += [(user, f"{size}-{k}", now + k) for k in range(min(3, max(size - 1, 1)))]
    tables = Tables.from_arrays(inter=inter, cinter=cinter, items=items, comments=comments)
    return JointData(tables, split=BOUNDARIES)


def rank(data: JointData, protocols: list[str], scorer: Random | None = None, **options: object) -> EvaluationResult:
    chosen = Random(data) if scorer is None else scorer
    return evaluate(chosen, data, "comment", 2, protocols, topk=TOPK, progress=False, **options)  # type: ignore[arg-type]


def slow_metrics(order: list[int], positives: set[int], cuts: tuple[int, ...] = TOPK) -> dict[str, float]:
    """The definitions (method: section 9) on one list of comments, best first."""
    places = [place for place, comment in enumerate(order, 1) if comment in positives]
    found = {"mrr": 1 / places[0]}
    for k in cuts:
        hits = [place for place in places if place <= k]
        best = [1 / math.log2(place + 1) for place in range(1, min(len(positives), k) + 1)]
        found[f"recall@{k}"] = len(hits) / len(positives)
        found[f"ndcg@{k}"] = sum(1 / math.log2(place + 1) for place in hits) / sum(best)
        found[f"mrr@{k}"] = 1 / hits[0] if hits else 0.0
    return found


def lists_of(data: JointData, protocol: str, seed: int = 0) -> Iterator[tuple[int, list[int], set[int]]]:
    """Row, candidates and positives of every instance of the test phase that has a negative."""
    if protocol != FULL:
        chosen = candidate_set(data, "comment", 2, Protocol.parse(protocol), seed=seed)
        for row, items, positive in zip(chosen.rows.tolist(), chosen.items, chosen.positive, strict=True):
            yield row, items[items > 0].tolist(), set(items[positive].tolist())
        return
    for row in data.rows("comment", 2).tolist():
        positives, pool = comment_pool(data, row)
        if pool:
            yield row, sorted(positives | pool), positives


# ---- metrics ----


@pytest.mark.parametrize("seed", [2, 5, 6])
def test_the_reported_means_equal_the_definitions(seed: int) -> None:
    data = make_talk(seed)
    scorer = Random(data)
    assert len(scorer.scores.unique()) == len(scorer.scores), "no ties in this test"
    result = rank(data, [UNIFORM, FEW, FULL], scorer)
    for protocol in (UNIFORM, FEW, FULL):
        rows, values = [], []
        for row, candidates, positives in lists_of(data, protocol):
            order = sorted(candidates, key=lambda comment: -float(scorer.scores[comment]))
            rows.append(row)
            values.append(slow_metrics(order, positives))
        frame = result.instances.filter(pl.col("protocol") == protocol)
        assert frame["row"].to_list() == rows and frame["positives"].max() > 5 > 2 > frame["positives"].min()
        found = result.metrics(protocol)
        for name in values[0]:
            assert found[name] == pytest.approx(np.mean([value[name] for value in values]), abs=1e-6), (protocol, name)
        # Of a slice: the mean over its instances, not over its users.
        inside = frame["candidates_10-49"].to_numpy()
        found = result.metrics(protocol, "candidates_10-49")
        assert 0 < inside.sum() < len(inside)
        for name in values[0]:
            expected = np.mean([value[name] for value, kept in zip(values, inside, strict=True) if kept])
            assert found[name] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("protocol", [FEW, FULL])
def test_ties_are_broken_as_by_shuffling(protocol: str, levels: int) -> None:
    """Over 60 seeds the means differ from those of shuffled lists by no more than chance explains (5 sigma)."""
    data, rng = make_talk(), np.random.default_rng(0)
    scorer, whole = Random(data, levels), list(lists_of(data, FULL))
    differences: dict[str, list[float]] = {}
    for seed in range(60):
        found, values = rank(data, [protocol], scorer, seed=seed).metrics(protocol), []
        for _, candidates, positives in whole if protocol == FULL else lists_of(data, protocol, seed):
            order = sorted(rng.permutation(candidates).tolist(), key=lambda comment: -float(scorer.scores[comment]))
            values.append(slow_metrics(order, positives))
        for name in values[0]:
            differences.setdefault(name, []).append(found[name] - float(np.mean([value[name] for value in values])))
    for name, difference in differences.items():
        assert abs(np.mean(difference)) < 5 * np.std(difference) / len(difference) ** 0.5 + 1e-12, name
    assert max(np.std(difference) for difference in differences.values()) > 0


# ---- sizes of videos, long lists ----


def test_videos_of_every_size_are_ranked_whole_and_sampled(ladder: JointData) -> None:
    scorer = Random(ladder)
    result = rank(ladder, [UNIFORM, FULL], scorer, batch_size=5)
    video = ladder.tables.items.to_list()
    for protocol, most in ((UNIFORM, 100), (FULL, 5000)):
        frame = result.instances.filter(pl.col("protocol") == protocol)
        lengths = {video[ladder.comments.item[row]]: n for row, n in frame.select("row", "length").iter_rows()}
        assert lengths == {f"v{size}": min(size, most) for size in SIZES if size > 1}
        found = result.summary()["protocols"][protocol]
        assert (found["instances"], found["left_out"], found["too_long"]) == (len(SIZES) - 1, 1, 0)
        for row, candidates, positives in lists_of(ladder, protocol):
            order = sorted(candidates, key=lambda comment: -float(scorer.scores[comment]))
            own = frame.row(by_predicate=pl.col("row") == row, named=True)
            for name, value in slow_metrics(order, positives).items():
                assert own[name] == pytest.approx(value, abs=1e-9)
    assert result.summary()["protocols"][UNIFORM]["enough"] == sum(size >= 100 for size in SIZES)


@pytest.mark.parametrize("longest", [2, 99, 100, 999, 5000])
@pytest.mark.parametrize("protocols", [[FULL], [UNIFORM, FULL]])
def test_lists_longer_than_the_limit_are_left_out_of_the_full_ranking_only(
    ladder: JointData, longest: int, protocols: list[str]
) -> None:
    everything, some = (rank(ladder, protocols, longest=limit).instances for limit in (0, longest))
    result = rank(ladder, protocols, longest=longest)
    kept = (pl.col("protocol") != FULL) | (pl.col("length") <= longest)
    assert some.equals(everything.filter(kept))
    long = sum(size > longest for size in SIZES)
    for protocol, found in result.summary()["protocols"].items():
        assert found["too_long"] == (long if protocol == FULL else 0)
        assert found["instances"] + found["left_out"] + found["too_long"] == len(SIZES)
        assert found["left_out"] == 1


@pytest.mark.parametrize("longest", [0, 100])
def test_batches_change_nothing(ladder: JointData, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    protocols = [UNIFORM, FEW, FULL]
    whole = rank(ladder, protocols, longest=longest, batch_size=1000, top_items=7)
    monkeypatch.setattr(sys.modules[evaluate.__module__], "_LIST_CELLS", 600)
    for batch_size in (1, 5):
        parts = rank(ladder, protocols, longest=longest, batch_size=batch_size, top_items=7)
        assert parts.instances.equals(whole.instances) and parts.table.equals(whole.table)
        for protocol in protocols:
            assert np.array_equal(parts.lists[protocol].top_items, whole.lists[protocol].top_items)


# ---- slices ----


@pytest.mark.parametrize("source", ["ladder", "talk"])
def test_slices_hold_what_their_names_say(source: str, ladder: JointData, talk: JointData) -> None:
    data = ladder if source == "ladder" else talk
    frame, tables, gap = rank(data, [UNIFORM, FULL]).instances, data.tables, data.record_gap
    edges = {"2-9": (2, 9), "10-49": (10, 49), "50-99": (50, 99), "100-999": (100, 999), "1000+": (1000, 10**9)}
    for row in frame.iter_rows(named=True):
        user, time = int(data.comments.user[row["row"]]), float(data.comments.time[row["row"]])
        length = len(set().union(*comment_pool(data, row["row"])))  # of the whole list, also where it is sampled
        assert {name for name in edges if row[f"candidates_{name}"]} == {
            name for name, (low, high) in edges.items() if low <= length <= high
        }
        before = records_of(tables, user, gap, data.split.boundaries, before=time)
        assert row["no_records"] == (not before)
        assert row["history_1-4"] == (1 <= len(videos_of(tables, user, time)) <= 4)
    if source == "ladder":
        assert frame["no_records"].any() and not frame["no_records"].all()
        counts = frame.filter(pl.col("protocol") == FULL).select(pl.col(f"candidates_{name}").sum() for name in edges)
        assert counts.row(0) == (2, 2, 2, 3, 2)


def test_a_record_in_training_makes_its_video_and_user_seen() -> None:
    """Who is seen only in records, under a video nobody interacted with otherwise, is not unseen there."""
    rows = {f"{item}{k}": {"item_id": item, "timestamp": START} for item in "vw" for k in range(4)}
    records = [("known", "v0", START + DAY), ("known", "v1", START + 25 * DAY), ("new", "w2", START + 25 * DAY)]
    tables = Tables.from_arrays(inter=[("crowd", "x", START)], cinter=records, comments=rows)
    data = JointData(tables, split=BOUNDARIES)
    instances = rank(data, [FULL]).instances
    users = [tables.users[int(data.comments.user[row])] for row in instances["row"]]
    for name, expected in (("seen_items", "known"), ("unseen_items", "new"), ("unseen_users", "new")):
        assert [user for user, inside in zip(users, instances[name], strict=True) if inside] == [expected], name


# ---- what is missing ----


def test_users_without_histories_and_comments_without_text_are_ranked(ladder: JointData) -> None:
    scorer = Random(ladder)
    result = rank(ladder, [UNIFORM, FULL], scorer)
    assert scorer.empty_histories == sum(number % 2 == 0 for number in range(len(SIZES)))
    found = result.metrics(FULL, "no_records")
    assert all(0 <= value <= 1 for value in found.values())
    empty = ladder.tables.contents.to_list()[1:].index("") + 1
    (row,) = np.flatnonzero(ladder.comments.item == ladder.tables.comment_item[empty])
    own = result.instances.filter((pl.col("row") == row) & (pl.col("protocol") == FULL))
    assert own["length"].to_list() == [99] and own["positives"].to_list() == [3]


def test_positives_that_are_no_candidates_of_others_are_ranked_all_the_same() -> None:
    """A positive that is a reply, one posted after the record began, and one of a video with nothing else."""
    rows = {
        "a": {"item_id": "v", "timestamp": START},
        "late": {"item_id": "v", "timestamp": START + 30 * DAY},
        "reply": {"item_id": "v", "parent_id": "a", "timestamp": START},
        "alone": {"item_id": "w", "parent_id": "gone"},
    }
    cinter = [(f"u-{liked}", liked, START + 25 * DAY) for liked in ("late", "reply", "alone", "a")]
    tables = Tables.from_arrays(inter=[("crowd", "v", START), ("crowd", "w", START)], cinter=cinter, comments=rows)
    data = JointData(tables, split=BOUNDARIES)
    result = rank(data, [UNIFORM, FULL])
    liked = {tables.users[int(data.comments.user[row])]: row for row in range(len(data.comments))}
    for protocol in (UNIFORM, FULL):
        frame = result.instances.filter(pl.col("protocol") == protocol)
        lengths = {row: n for row, n in frame.select("row", "length").iter_rows()}
        # "a" may rank neither the reply nor what is posted later: it has no negative, like "alone".
        assert lengths == {liked["u-late"]: 2, liked["u-reply"]: 2}
        assert result.summary()["protocols"][protocol]["left_out"] == 2
