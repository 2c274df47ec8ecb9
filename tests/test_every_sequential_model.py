"""Every sequential model of RecBole, and the paper's other baselines of videos: an epoch on the joint data set, then
rankings; and one size for the videos' vectors of all."""

from __future__ import annotations

import math
from typing import Any

import pytest
import recbole.model.sequential_recommender as family
import torch
from conftest import Make
from recbole.model.abstract_recommender import SequentialRecommender
from recbole_models import names

from recbole_lsvcr import pipeline
from recbole_lsvcr.benchmark.sizes import size_parameters
from recbole_lsvcr.config import KNOWLEDGE
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import MODELS
from recbole_lsvcr.scorer import RecBoleScorer

SIZE = 12


RECBOLE = names(family, SequentialRecommender)
OURS = ["DMT", "LSVCR", "MBHT", "SASRecText", "UniSRec"]
PAPER = {"Caser", "GRU4Rec", "SASRec", "BERT4Rec", "NARM", "FDSA", "S3Rec", "UniSRec", "DMT", "MBHT"}
NEEDS: dict[str, dict[str, Any]] = {
    "DMT": {"attribute_size": 4},
    "GRU4RecCPR": {"reranker_CAN_NUM": 20},  # 100 of 50 videos otherwise
    "SASRecCPR": {"reranker_CAN_NUM": 20},
    "S3Rec": {"pretrain_epochs": 1},
    "UniSRec": {"transductive": True},  # so that it has vectors of ids
}
# Where a model has its videos' vectors; in `item_embedding` all others.
TABLES = {
    "DIN": "embedding_layer.token_embedding_table.item.embedding",
    "DIEN": "embedding_layer.token_embedding_table.item.embedding",
    "FPMC": "IU_emb",
    "LSVCR": "sr.id_embedding",
    "RepeatNet": "item_matrix",
    "UniSRec": "id_embedding",
}


def test_all_models_are_known() -> None:
    assert len(RECBOLE) == 31 and set(RECBOLE) | set(OURS) > PAPER | set(KNOWLEDGE)


@pytest.mark.parametrize("name", [name for name in [*RECBOLE, *OURS] if name not in KNOWLEDGE])
def test_an_epoch_and_a_ranking(tiny_config: Make, capsys: pytest.CaptureFixture[str], name: str) -> None:
    sizes = size_parameters(name, SIZE)
    assert len(sizes) == 1
    run = pipeline.Run(tiny_config(model=name, epochs=1, report_phases=["test"], **sizes, **NEEDS.get(name, {})))
    run.encode()
    result = run.finetune()
    assert len(result.history) == 1 and all(map(math.isfinite, result.history[0]["losses"]))
    assert math.isfinite(result.best_valid_score)
    report = run.evaluate()
    for protocol in ("all+uniform", "all+full", "available+period"):
        found = report["phases"]["test"]["protocols"][protocol]
        assert found["instances"] > 0 and all(math.isfinite(value) for value in found["metrics"].values())
        assert 0 <= found["metrics"]["ndcg@10"] <= 1

    model = run.trainer().model
    if name == "DMT":
        assert model.items(torch.tensor([1])).shape == (1, SIZE)
    elif name != "SASRecText":  # which has texts alone
        n_items, size = model.get_submodule(TABLES.get(name, "item_embedding")).weight.shape
        assert size == SIZE and n_items >= run.dataset.item_num
    assert_scores_are_stock_ones(run, model)


def assert_scores_are_stock_ones(run: pipeline.Run, model: Any) -> None:
    """The scores our evaluation sees are those of the batches that RecBole's own loader makes (with its transforms)."""
    model.eval()
    data = run.loaders[2]
    interaction = next(iter(data))[0]
    batch = data.dataset.joint.gather("video", data.dataset.rows[: len(interaction)], training=False, rng=None)
    with torch.no_grad():
        ours = RecBoleScorer(model, data.dataset, torch.device("cpu")).score_full(batch)
        try:
            stock = model.full_sort_predict(interaction)
        except NotImplementedError:
            stock = ours.clone()
            interaction = interaction[:3]
            for item in range(1, run.dataset.item_num):
                interaction["item_id"][:] = item
                stock[:3, item] = model.predict(interaction)
    stock = stock.view(len(ours), -1)[:, : ours.shape[1]]
    assert ours.shape == (len(batch.user), run.dataset.item_num)
    assert torch.allclose(ours[:, 1:], stock[:, 1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_models_of_knowledge_graphs_are_refused(tiny_config: Make, name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' reads the vectors of a knowledge graph"):
        tiny_config(model=name)


def test_the_random_histories_are_other_videos(tiny_config: Make) -> None:
    run = pipeline.Run(tiny_config(model="DIEN"))
    train = run.loaders[0]
    train.set_epoch(0)
    first = next(iter(train))
    history, others = first["item_id_list"], first["neg_item_id_list"]
    assert ((others > 0) == (history > 0)).all() and not (others[history > 0] == history[history > 0]).any()
    drawn = others[history > 0].unique()
    assert drawn.min() >= 1 and drawn.max() < run.dataset.item_num and len(drawn) > 20
    train.set_epoch(0)
    assert torch.equal(next(iter(train))["neg_item_id_list"], others)
    train.set_epoch(1)
    assert next(iter(train))["neg_item_id_list"].shape[1] == history.shape[1]
    assert set(first["label"].tolist()) == {0.0, 1.0}


def test_what_has_no_vectors_has_no_size() -> None:
    for name in MODELS:
        rule = name.removeprefix("Comment") in ("Popularity", "Pop", "Newest", "TextSim")
        assert size_parameters(name, 8) == ({} if rule else {"hidden_size": 8}), name
    assert size_parameters("FM", 8) == {"embedding_size": 8}
