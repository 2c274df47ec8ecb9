"""Ranks, metrics, the evaluation of a phase, and its agreement with RecBole's own evaluator."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from factories import make_tables
from recbole.config import Config
from recbole.evaluator import Collector, Evaluator

from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.errors import ConfigError, EvaluationError
from recbole_lsvcr.evaluation import EvaluationResult, evaluate
from recbole_lsvcr.evaluation.collector import InstanceCollector
from recbole_lsvcr.evaluation.metrics import chance_metrics, instance_metrics
from recbole_lsvcr.evaluation.ranking import check_finite, positive_columns, positive_ranks, top_candidates
from recbole_lsvcr.plugin import hidden_argv

VIDEO = ["all+uniform20", "all+full", "available+period10", "available+full", "all+popular7", "available+uniform"]
COMMENT = ["available+uniform6", "available+full"]


@pytest.fixture(scope="module")
def data() -> JointData:
    tables = make_tables(3, users=40, videos=70, comments=200, interactions=1000, comment_interactions=300, days=40)
    return JointData(tables, split={"time": [0.5, 0.75]}, max_videos=6, max_records=4)


class Scores:
    """A scorer with a fixed score per (user, candidate), rounded so that many are equal; both interfaces."""

    def __init__(self, data: JointData, levels: float = 6, seed: int = 0) -> None:
        size = max(data.n_items, data.n_comments)
        table = torch.rand(data.n_users, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.table = (table * levels).floor() if levels else torch.zeros_like(table)
        self.n_items, self.name, self.asked = data.n_items, "Scores", 0

    def score_full(self, batch: InstanceBatch) -> torch.Tensor:
        self.asked += len(batch)
        scores = self.table[torch.from_numpy(batch.user).long(), : self.n_items].clone()
        scores[:, 0] = math.nan  # the padding column must not matter
        return scores

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        self.asked += len(batch)
        scores = self.table[torch.from_numpy(batch.user).long()[:, None], items]
        return torch.where(items > 0, scores, math.inf)


class OnlyFull:
    def __init__(self, inner: Scores) -> None:
        self.score_full, self.name = inner.score_full, inner.name


class OnlyCandidates:
    def __init__(self, inner: Scores) -> None:
        self.score_candidates, self.name = inner.score_candidates, inner.name


# ---- ranks ----


def test_ranks_are_places_in_the_sorted_list_where_no_score_is_repeated() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = np.stack([rng.permutation(12) for _ in range(8)]).astype(float)
        valid = rng.random((8, 12)) < 0.7
        positive = valid & (rng.random((8, 12)) < 0.3)
        positive[:, 0] = valid[:, 0] = True
        found = positive_ranks(torch.tensor(scores), torch.tensor(positive), rng, valid=torch.tensor(valid))
        for row in range(8):
            order = [column for column in np.argsort(-scores[row]) if valid[row, column]]
            places = [place for place, column in enumerate(order, 1) if positive[row, column]]
            assert found.ranks[row][found.ranks[row] > 0].tolist() == places
            assert found.positives[row] == len(places) and found.lengths[row] == len(order)
            assert found.average[row] == sum(places) and found.first[row] == places[0]


def test_tied_candidates_are_in_every_order_equally_often() -> None:
    """Two of three positives are among five tied candidates: every pair of places is as likely as by shuffling."""
    scores = torch.tensor([5.0, 3.0, 3.0, 3.0, 3.0, 3.0, 1.0])
    positive = [1, 2, 6]
    n = 30_000
    found = positive_ranks(scores.expand(n, -1), torch.tensor([positive]).expand(n, -1), np.random.default_rng(1))
    assert (found.ranks[:, 2] == 7).all()
    pairs, counts = np.unique(found.ranks[:, :2], axis=0, return_counts=True)
    assert pairs.tolist() == [list(pair) for pair in itertools.combinations(range(2, 7), 2)]
    assert np.abs(counts - n / 10).max() < 5 * (n * 0.09) ** 0.5
    assert found.average[0] == 4 + 4 + 7


def test_columns_of_a_mask_and_the_best_candidates() -> None:
    mask = torch.tensor([[False, True, True], [True, False, False]])
    assert positive_columns(mask).tolist() == [[1, 2], [0, -1]]
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    assert top_candidates(scores, 2, items=torch.tensor([7, 8, 9])).tolist() == [[8, 9], [7, 8]]
    assert top_candidates(scores, 4, valid=mask).tolist() == [[1, 2, 0, 0], [0, 0, 0, 0]]


def test_scores_whose_sum_overflows_are_finite_all_the_same() -> None:
    check_finite(torch.full((2, 3), 3e38), "m", lambda row, column: "?")
    check_finite(torch.full((2, 3), 6e4, dtype=torch.float16), "m", lambda row, column: "?")


# ---- metrics ----


def slow_metrics(ranks: list[int], k: int) -> dict[str, float]:
    hits = [rank for rank in ranks if rank <= k]
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(len(ranks), k) + 1))
    return {
        f"recall@{k}": len(hits) / len(ranks),
        f"ndcg@{k}": sum(1 / math.log2(rank + 1) for rank in hits) / ideal,
        f"mrr@{k}": 1 / min(hits) if hits else 0.0,
        "mrr": 1 / min(ranks),
    }


def test_metrics_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    lists = [sorted(rng.choice(np.arange(1, 40), size=int(rng.integers(1, 15)), replace=False)) for _ in range(200)]
    counts = np.array([len(ranks) for ranks in lists])
    table = np.zeros((200, counts.max()), np.int64)
    for row, ranks in enumerate(lists):
        table[row, : len(ranks)] = ranks
    found = instance_metrics(table, counts, (1, 5, 10))
    for k in (1, 5, 10):
        for name in slow_metrics([1], k):
            expected = [slow_metrics(ranks, k)[name] for ranks in lists]
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-9)
    assert list(instance_metrics(table, counts, (5,))) == ["recall@5", "ndcg@5", "mrr@5", "mrr@10", "mrr"]


@pytest.mark.parametrize(("length", "positives"), [(1, 1), (3, 1), (7, 1), (7, 3), (6, 5)])
def test_the_chance_level_is_the_mean_over_all_orders(length: int, positives: int) -> None:
    every = [sorted(ranks) for ranks in itertools.combinations(range(1, length + 1), positives)]
    found = chance_metrics(np.array([length]), np.array([positives]), (2, 5))
    for k in (2, 5):
        for name in slow_metrics([1], k):
            assert found[name] == pytest.approx(np.mean([slow_metrics(ranks, k)[name] for ranks in every]), abs=1e-12)


# ---- evaluation of a phase ----


def slow_ranks(data: JointData, scorer: Scores, row: int, candidates: list[int]) -> tuple[int, int]:
    """Smallest and largest rank that the target may get."""
    scores = scorer.table[int(data.videos.user[row])]
    own = scores[int(data.videos.item[row])]
    higher = sum(bool(scores[item] > own) for item in candidates)
    return 1 + higher, 1 + higher + sum(bool(scores[item] == own) for item in candidates) - 1


def test_full_rankings_equal_the_slow_ones_and_respect_what_exists(data: JointData) -> None:
    scorer = Scores(data)
    result = evaluate(scorer, data, "video", 2, ["all+full", "available+full"], progress=False)
    left_out = 0
    for protocol, only_available in (("all+full", False), ("available+full", True)):
        lists = result.instances.filter(pl.col("protocol") == protocol)
        for row, rank, length in lists.select("row", "rank", "length").iter_rows():
            time, target = data.videos.time[row], int(data.videos.item[row])
            items = [
                item
                for item in range(1, data.n_items)
                if not only_available or item == target or data.tables.item_time[item] <= time
            ]
            low, high = slow_ranks(data, scorer, row, items)
            assert low <= rank <= high and length == len(items)
        left_out += result.summary()["protocols"][protocol]["left_out"]
    assert left_out == 0 and len(lists) == len(data.rows("video", 2))


@pytest.mark.parametrize("kind", ["video", "comment"])
def test_a_constant_scorer_gets_what_a_random_order_would(data: JointData, talk: JointData, kind: str) -> None:
    joint, protocols = (data, VIDEO) if kind == "video" else (talk, COMMENT)
    runs = [
        evaluate(Scores(joint, levels=0), joint, kind, 2, protocols, seed=seed, progress=False)  # type: ignore[arg-type]
        for seed in range(8)
    ]
    for protocol in protocols:
        values = runs[0].instance_metrics[protocol]
        chance = {
            name: np.mean([run.summary()["protocols"][protocol]["chance"][name] for run in runs]) for name in values
        }
        for name, expected in chance.items():
            every = np.concatenate([run.instance_metrics[protocol][name] for run in runs])
            assert every.mean() == pytest.approx(expected, abs=5 * every.std() / len(every) ** 0.5 + 1e-12), name
        assert 0 < chance["ndcg@10"] < 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["video", "comment"])
def test_a_score_that_cannot_be_ranked_names_the_model_the_user_and_the_target(
    data: JointData, talk: JointData, bad: float, kind: str
) -> None:
    joint, protocols = (data, ["all+uniform20"]) if kind == "video" else (talk, COMMENT)
    scorer = Scores(joint)
    row = joint.rows(kind, 2)[4]  # type: ignore[arg-type]
    instances = joint.videos if kind == "video" else joint.comments
    user = int(instances.user[row])
    scorer.table[user] = bad
    for one in (scorer, OnlyFull(scorer) if kind == "video" else scorer):
        with pytest.raises(EvaluationError) as error:
            evaluate(one, joint, kind, 2, protocols, progress=False)  # type: ignore[arg-type]
        message = str(error.value)
        assert "'Scores'" in message and repr(joint.tables.users[user]) in message and str(bad) in message
        assert "video 'v" in message and "\n" not in message


def test_one_pass_serves_all_protocols_and_its_batches_change_nothing(data: JointData) -> None:
    scorer = Scores(data)
    whole = evaluate(scorer, data, "video", 2, VIDEO, batch_size=10_000, progress=False)
    assert scorer.asked == len(data.rows("video", 2))
    parts = evaluate(Scores(data), data, "video", 2, VIDEO, batch_size=7, progress=False)
    assert whole.instances.equals(parts.instances) and whole.table.equals(parts.table)
    assert whole.instances.height > 5 * len(data.rows("video", 2))


def test_comment_lists_are_ranked_alike_whatever_the_batches(talk: JointData) -> None:
    whole = evaluate(Scores(talk), talk, "comment", 2, COMMENT, batch_size=1000, progress=False)
    parts = evaluate(Scores(talk), talk, "comment", 2, COMMENT, batch_size=3, progress=False)
    assert whole.instances.equals(parts.instances)


def test_scoring_candidates_only_gives_what_scoring_everything_gives(data: JointData, talk: JointData) -> None:
    protocols = ["all+uniform20", "available+period10"]
    full = evaluate(OnlyFull(Scores(data)), data, "video", 2, protocols, batch_size=50, progress=False)
    some = evaluate(OnlyCandidates(Scores(data)), data, "video", 2, protocols, batch_size=50, progress=False)
    assert full.instances.equals(some.instances)
    # Sampled comments: alone, and picked out of the scores of the whole lists.
    alone = evaluate(Scores(talk), talk, "comment", 2, COMMENT[:1], progress=False)
    within = evaluate(Scores(talk), talk, "comment", 2, COMMENT, progress=False)
    assert alone.instances.equals(within.instances.filter(pl.col("protocol") == COMMENT[0]))


def test_several_positives_are_ranked_by_the_slow_definition(talk: JointData) -> None:
    scorer = Scores(talk, 1e9)
    result = evaluate(scorer, talk, "comment", 2, ["available+full"], progress=False)
    assert (result.instances["positives"] > 1).sum() > 5
    index = {row: number for number, row in enumerate(result.instances["row"])}
    from recbole_lsvcr.data.comment_candidates import CommentIndex

    rows = np.array(list(index))
    at, comment, positive = CommentIndex(talk).lists(rows)
    for number, row in enumerate(rows):
        mine = at == number
        scores = scorer.table[int(talk.comments.user[row]), comment[mine]]
        order = torch.argsort(-scores).tolist()
        places = [place for place, column in enumerate(order, 1) if positive[mine][column]]
        for name, value in (slow_metrics(places, 5) | slow_metrics(places, 10)).items():
            assert result.instances[name][number] == pytest.approx(value, abs=1e-9)


def test_instances_without_a_negative_are_counted_and_left_out() -> None:
    tables = make_tables(4, users=20, videos=30, comments=40, interactions=300, comment_interactions=200, days=40)
    sparse = JointData(tables, split={"time": [0.5, 0.75]})
    result = evaluate(Scores(sparse), sparse, "comment", 2, COMMENT, progress=False)
    total = len(sparse.rows("comment", 2))
    for protocol in COMMENT:
        found = result.summary()["protocols"][protocol]
        assert found["instances"] + found["left_out"] == total and found["instances"] > 0 and found["left_out"] > 0
    assert (result.instances["length"] > result.instances["positives"]).all()


# ---- slices and results ----


def test_slices_hold_what_their_names_say(data: JointData) -> None:
    result = evaluate(Scores(data), data, "video", 2, ["all+uniform20"], batch_size=64, progress=False)
    frame, tables = result.instances, data.tables
    training = tables.inter_time < data.split.valid_start
    for row in frame.iter_rows(named=True):
        user, item, time = (getattr(data.videos, name)[row["row"]] for name in ("user", "item", "time"))
        popularity = int((tables.inter_item[training] == item).sum())
        assert row["unseen_items"] == (popularity == 0) and row["seen_items"] == (popularity > 0)
        assert row["unseen_users"] == (not (tables.inter_user[training] == user).any())
        history = int(((tables.inter_user == user) & (tables.inter_time < time)).sum())
        assert row["history_1-4"] == (1 <= history <= 4) and row["history_20-49"] == (20 <= history <= 49)
        assert row["popularity_1-9"] == (1 <= popularity <= 9) and row["popularity_10-99"] == (10 <= popularity <= 99)
        batch = data.gather("video", np.array([row["row"]]), training=False)
        assert row["no_records"] == (batch.record_len[0] == 0)
    assert frame["no_records"].any() and not frame["no_records"].all()
    for slice_ in ("no_records", "popularity_1-9"):
        inside = frame.filter(pl.col(slice_))
        found = result.table.row(by_predicate=(pl.col("slice") == slice_), named=True)
        assert found["instances"] == inside.height and found["users"] == inside["user"].n_unique()
        assert found["ndcg@10"] == pytest.approx(inside["ndcg@10"].mean(), abs=1e-12)
        assert result.metrics("all+uniform20", slice_)["ndcg@10"] == found["ndcg@10"]


def test_a_result_is_plain_data_and_its_instances_survive_parquet(data: JointData, tmp_path: Path) -> None:
    result = evaluate(Scores(data), data, "video", 2, VIDEO, candidates_dir=tmp_path / "sets", progress=False)
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert list(summary["protocols"]) == VIDEO and summary["model"] == "Scores"
    sampled = summary["protocols"]["available+period10"]
    assert len(sampled["candidates_hash"]) == 64 and sampled["enough"] <= sampled["instances"]
    assert summary["protocols"]["all+full"]["candidates_hash"] is None
    assert len(list((tmp_path / "sets").iterdir())) == 4
    result.write_instances(tmp_path / "instances.parquet", seed=3)
    written = pl.read_parquet(tmp_path / "instances.parquet")
    assert set(written["seed"]) == {3} and written.drop("seed").equals(result.instances)
    with pytest.raises(EvaluationError, match="all\\+uniform20"):
        result.metrics("all+uniform50")
    without = evaluate(Scores(data), data, "video", 2, ["all+full"], slices=False, progress=False)
    assert without.table["slice"].to_list() == ["all"]
    assert math.isnan(result.metrics("all+full", "unseen_users")["mrr"])


def test_what_cannot_be_ranked_is_refused_before_any_work(data: JointData) -> None:
    with pytest.raises(ConfigError, match="score_full"):
        evaluate(OnlyCandidates(Scores(data)), data, "video", 2, ["all+uniform", "all+full"], progress=False)
    with pytest.raises(ConfigError, match="score_candidates"):
        evaluate(OnlyFull(Scores(data)), data, "comment", 2, COMMENT, progress=False)
    with pytest.raises(ConfigError, match=r"available\+uniform"):
        evaluate(Scores(data), data, "comment", 2, ["all+uniform"], progress=False)
    short = Scores(data)
    short.n_items -= 1
    with pytest.raises(EvaluationError, match="shape"):
        evaluate(OnlyFull(short), data, "video", 2, ["all+full"], progress=False)
    empty = JointData(data.tables, split={"LS": "test_only"})
    with pytest.raises(EvaluationError, match="valid phase"):
        evaluate(Scores(empty), empty, "video", 1, ["all+full"], progress=False)


# ---- agreement with RecBole ----

METRICS = ["Recall", "NDCG", "MRR", "Hit", "Precision", "MAP", "GAUC"]


@pytest.fixture(scope="module")
def config() -> Config:
    return recbole_config([*METRICS, "ShannonEntropy"])


def recbole_config(metrics: list[str]) -> Config:
    settings = {"metrics": metrics, "topk": [5, 10], "train_neg_sample_args": None, "metric_decimal_place": 12}
    settings |= {
        "eval_args": {"split": {"LS": "valid_and_test"}, "mode": "full"},
        "use_gpu": False,
        "show_progress": False,
    }
    with hidden_argv():
        return Config(model="SASRec", dataset="ml-100k", config_dict=settings)


def stock(config: Config, data: JointData, scorer: Any) -> dict[str, float]:
    """RecBole's own collector and evaluator on the same scores, as its trainer feeds them."""
    collector, rows = Collector(config), data.rows("video", 2)
    for part in np.array_split(rows, 3):
        scores = scorer.score_full(data.gather("video", part, training=False))
        scores[:, 0] = -np.inf
        target = torch.from_numpy(data.videos.item[part]).long()
        collector.eval_batch_collect(scores, None, torch.arange(len(part)), target)
    return Evaluator(config).evaluate(collector.get_data_struct())


def test_leave_one_out_full_rankings_equal_stock_recbole(data: JointData, config: Config) -> None:
    loo = JointData(data.tables, split={"LS": "valid_and_test"})
    scorer = Scores(loo, 1e9)
    result = evaluate(scorer, loo, "video", 2, ["all+full"], top_items=10, batch_size=64, progress=False)
    expected = stock(config, loo, scorer)
    assert len(expected) == 15
    found = result.recbole_metrics(config)
    assert found == pytest.approx(dict(expected), abs=1e-6)
    rounded = {**config.final_config_dict, "metric_decimal_place": 2}
    assert result.recbole_metrics(rounded) == found
    own = result.metrics("all+full")
    assert {name: own[name] for name in own if name in expected} == pytest.approx(
        {name: expected[name] for name in own if name in expected}, abs=1e-6
    )
    collector = InstanceCollector(config)
    for part in np.array_split(loo.rows("video", 2), 2):
        scores = scorer.score_full(loo.gather("video", part, training=False))
        scores[:, 0] = -np.inf
        target = torch.from_numpy(loo.videos.item[part]).long()
        collector.eval_batch_collect(scores, None, torch.arange(len(part)), target)
    assert Evaluator(config).evaluate(collector.get_data_struct()) == pytest.approx(dict(expected), abs=1e-6)
    assert "rec.topk" not in collector.data_struct


def test_tied_scores_have_stock_recboles_gauc(data: JointData, config: Config) -> None:
    loo = JointData(data.tables, split={"LS": "valid_and_test"})
    scorer = Scores(loo, 4)
    result = evaluate(scorer, loo, "video", 2, ["all+full"], top_items=10, progress=False)
    assert result.recbole_metrics(config)["gauc"] == pytest.approx(stock(config, loo, scorer)["gauc"], abs=1e-6)


def test_several_positives_per_list_equal_stock_recbole(config: Config) -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.permuted(np.tile(np.arange(40.0), (30, 1)), axis=1))
    scores[:, 0] = -np.inf
    rows = np.repeat(np.arange(30), 1 + np.arange(30) % 12)
    items = np.concatenate([rng.choice(np.arange(1, 40), 1 + row % 12, replace=False) for row in range(30)])
    results = []
    for collector in (Collector(config), InstanceCollector(config)):
        collector.eval_batch_collect(scores.clone(), None, torch.from_numpy(rows), torch.from_numpy(items))
        results.append(dict(Evaluator(config).evaluate(collector.get_data_struct())))
    assert results[0] == pytest.approx(results[1], abs=1e-6)


def test_recboles_catalogue_and_score_metrics_work_on_lists(data: JointData) -> None:
    coverage = recbole_config(["ItemCoverage", "AveragePopularity", "NDCG"])
    scorer = Scores(data, 1e9)
    result: EvaluationResult = evaluate(scorer, data, "video", 2, ["all+full"], top_items=10, progress=False)
    found = result.recbole_metrics(coverage)
    best = result.lists["all+full"].top_items
    assert best is not None
    assert found["itemcoverage@10"] == pytest.approx(len(np.unique(best)) / data.n_items)
    assert found["averagepopularity@5"] == pytest.approx(data.train_item_count[best[:, :5]].mean())
    bare = evaluate(scorer, data, "video", 2, ["all+full"], progress=False)
    with pytest.raises(EvaluationError, match="top_items=10"):
        bare.recbole_metrics(coverage)

    settings = {
        "metrics": ["AUC"],
        "eval_args": {"mode": "labeled"},
        "valid_metric": "AUC",
        "train_neg_sample_args": None,
    }
    with hidden_argv():
        auc = Config(model="SASRec", dataset="ml-100k", config_dict={**settings, "metric_decimal_place": 12})
    with pytest.raises(EvaluationError, match="need scores"):
        bare.recbole_metrics(auc)
    collector = InstanceCollector(auc)
    scores = torch.tensor([[9.0, 1.0, 2.0], [3.0, 0.0, 4.0]])
    valid = torch.tensor([[False, True, True], [True, True, True]])
    collector.collect_lists(scores, torch.tensor([[2], [0]]), valid=valid)
    # Pairs (positive, negative) among the scores 2*, 1, 3*, 0, 4 in the right order: 2 > 1, 0; 3 > 1, 0.
    assert Evaluator(auc).evaluate(collector.get_data_struct())["auc"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_collector_refuses_what_cannot_be_ranked(config: Config, bad: float) -> None:
    scores = torch.tensor([[-math.inf, 1.0, 2.0, bad]])
    with pytest.raises(EvaluationError, match="SASRec"):
        InstanceCollector(config).eval_batch_collect(scores, None, torch.tensor([0]), torch.tensor([3]))
