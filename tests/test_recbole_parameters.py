"""RecBole's own parameters: every wrong value is told at once, none is ignored, RecBole's own defaults are accepted."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import Make

from recbole_lsvcr import pipeline
from recbole_lsvcr.config import load_config
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.recbole_parameters import ACCEPTED, FIXED, check_recbole_value
from recbole_lsvcr.report import table
from recbole_lsvcr.yaml_files import read_yaml

SAMPLE = {"dataset": "lsvcr-sample", "output": "out"}
WRONG: dict[str, list[Any]] = {
    "data_path": [3, None],
    "dataset": [3, None],
    "gpu_id": ["x", -2, 1.0],
    "use_gpu": ["x", None],
    "seed": [-1, 2**32, "x", None, 1.5, True],
    "reproducibility": ["x"],
    "state": ["loud", 3],
    "show_progress": ["x"],
    "shuffle": ["x"],
    "worker": ["x", -1],
    "epochs": ["many", -1, 1.5, None],
    "train_batch_size": ["x", 0, 1.5, None],
    "eval_batch_size": ["x", 0, None],
    "learner": ["foo", 3, None],
    "learning_rate": ["x", -1, 0, None, float("nan"), float("inf")],
    "weight_decay": ["x", -1],
    "eval_step": ["x", None],
    "stopping_step": ["x", -1, None],
    "clip_grad_norm": ["x", 5, {}, {"foo": 1}, {"max_norm": "a"}, {"max_norm": 0}],
    "enable_amp": ["x"],
    "enable_scaler": ["x"],
    "train_neg_sample_args": [
        "uniform",
        {"by": "x"},
        {"distribution": "foo"},
        {"sample_num": 0},
        {"alpha": 0},
        {"dynamic": 1},
        {"candidate_num": -1},
    ],
    "transform": ["foo", 3],
    "repeatable": ["x"],
    "metrics": ["Foo", ["Foo"], ["NDCG", "AUC"], [], None, 3],
    "topk": ["ten", 0, [0], ["a"], [], None],
    "valid_metric": [3, None],
    "valid_metric_bigger": ["x"],
    "metric_decimal_place": ["x", -1],
    "loss_decimal_place": ["x", -1],
    "MAX_ITEM_LIST_LENGTH": ["x", 0, -1, None],
    "load_col": ["x", {"item": "tags"}, {"item": [3]}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_wrong_value_is_told_with_what_is_accepted(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {**SAMPLE, "model": "SASRec", key: value})
    assert str(caught.value) == f"{key} = {value!r} is not accepted; accepted: {ACCEPTED[key].accepted}"


def test_every_check_has_wrong_values_above() -> None:
    assert WRONG.keys() == ACCEPTED.keys()


@pytest.mark.parametrize("key", FIXED)
def test_what_changes_nothing_here_is_refused_with_what_does(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} = 'x' is not accepted: it must be .*; {FIXED[key][1][:10]}"):
        load_config(None, {**SAMPLE, key: "x"})


def test_the_defaults_of_recbole_are_accepted() -> None:
    properties = Path(str(find_spec("recbole").submodule_search_locations[0])) / "properties"  # type: ignore[union-attr, index]
    for file in (properties / "overall.yaml", properties / "dataset" / "sample.yaml", *properties.glob("model/*.yaml")):
        for key, value in read_yaml(file).items():
            check_recbole_value(file.stem, key, value, value)


def test_what_a_user_may_choose_is_accepted() -> None:
    for key, *values in (
        ("gpu_id", "0,1", 2, "", None, -1),
        ("eval_step", 0, -1),
        ("clip_grad_norm", None, {"max_norm": 5, "norm_type": 1.5}),
        ("metrics", "NDCG", ["ndcg", "Hit", "ItemCoverage"]),
        ("topk", 10, [5, 10, 50]),
        ("learner", "AdamW"),
        ("state", "WARNING"),
        ("load_col", {"inter": None, "item": "*", "user": []}, {"item": ["tags"]}),
        ("save_dataset", None, False),
        ("numerical_features", []),
    ):
        for value in values:
            check_recbole_value("SASRec", key, value, None)


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        (
            "SASRec",
            {"hidden_dropout_prob": "x"},
            "hidden_dropout_prob = 'x' is not accepted; accepted: a number from 0 to 1",
        ),
        ("SASRec", {"hidden_size": 0}, "hidden_size = 0 is not accepted; accepted: an integer >= 1"),
        ("GRU4Rec", {"num_layers": 1.5}, "num_layers = 1.5 is not accepted; accepted: an integer >= 1"),
        ("HRM", {"pooling_type_layer_1": 3}, "accepted: a text, such as 'max'"),
        ("SASRec", {"loss_type": "XX"}, "loss_type = 'XX' is not accepted; accepted: CE, BPR"),
        ("HGN", {"reg_weight": 1}, "reg_weight = 1 is not accepted; accepted: a list of 2 numbers >= 0"),
        ("HGN", {"reg_weight": [0.1]}, "accepted: a list of 2 numbers >= 0"),
        ("HGN", {"reg_weight": [0.1, -1]}, "accepted: a list of 2 numbers >= 0"),
        ("NextItNet", {"dilations": ["x"]}, "accepted: a list of integers >= 1, such as [1, 4]"),
        ("NextItNet", {"dilations": [1, 0]}, "accepted: a list of integers >= 1, such as [1, 4]"),
        ("DeepFM", {"mlp_hidden_size": [64, 1.5]}, "accepted: a list of integers >= 1, such as"),
        ("FDSA", {"selected_features": [3]}, "accepted: a list, such as ['class']"),
        ("RepeatNet", {"joint_train": 1}, "accepted: True or False, such as False"),
        ("SASRec", {"repeatable": False}, "repeatable = False is not accepted: sequential models"),
        ("SASRec", {"hidden_dropout_prob": 7}, "hidden_dropout_prob = 7 is not accepted; accepted: a number from 0 to"),
        ("NARM", {"dropout_probs": [0.1]}, "accepted: a list of 2 numbers from 0 to 1"),
        ("NARM", {"dropout_probs": [0.1, 2]}, "accepted: a list of 2 numbers from 0 to 1"),
        ("SASRec", {"initializer_range": -1}, "accepted: a number >= 0, such as 0.02"),
        ("Caser", {"nv": 0}, "nv = 0 is not accepted; accepted: an integer >= 1"),
        ("SASRec", {"hidden_act": "gulp"}, "accepted: gelu, relu, swish, tanh, sigmoid"),
        ("FDSA", {"pooling_mode": None}, "pooling_mode = None is not accepted; accepted: mean, max, sum"),
        ("HGN", {"pooling_type": "mean"}, "pooling_type = 'mean' is not accepted; accepted: average, max"),
        ("CORE", {"loss_type": "BPR"}, "loss_type = 'BPR' is not accepted; accepted: CE"),
        ("SASRec", {"train_neg_sample_args": {"sample_num": 1}}, "SASRec with loss_type = CE learns against every"),
        ("FPMC", {"train_neg_sample_args": None}, "FPMC learns from pairs of a positive and a negative; leave it out"),
        ("FM", {"train_neg_sample_args": {"sample_num": 1}}, "comments have negatives of their own: see train_neg"),
        ("SASRec", {"transform": "mask_itemseq"}, "transform = 'mask_itemseq' needs mask_ratio"),
        ("AutoInt", {"num_heads": 3}, "attention_size = 16 must be a multiple of num_heads = 3"),
        ("SHAN", {"short_item_length": 99}, "short_item_length = 99 must be at most MAX_ITEM_LIST_LENGTH = 50"),
        ("HRM", {"high_order": 99}, "high_order = 99 must be at most MAX_ITEM_LIST_LENGTH = 50"),
        ("FOSSIL", {"order_len": 3, "MAX_ITEM_LIST_LENGTH": 2}, "order_len = 3 must be at most MAX_ITEM_LIST_LENGTH"),
        ("GCSAN", {"weight": 1.5}, "weight = 1.5 is not accepted; accepted: a number from 0 to 1"),
        ("DCNV2", {"structure": "both"}, "structure = 'both' is not accepted; accepted: stacked, parallel"),
        ("KD_DAGFM", {"teacher": "exit"}, "teacher = 'exit' is not accepted; accepted: CrossNet, CIN"),
        ("KD_DAGFM", {"phase": "distillation"}, "phase = 'distillation' needs warm_up: the checkpoint of the phase"),
        ("LSVCRComment", {"metrics": ["NDCG", "GiniIndex"]}, "metrics: GiniIndex is of ranked videos"),
    ],
)
def test_other_values_are_of_the_kind_of_the_default(model: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {**SAMPLE, "model": model, **given})
    assert told in str(caught.value)


def test_a_loss_of_pairs_brings_its_negatives(tiny_config: Make) -> None:
    config = tiny_config(model="SASRec", loss_type="BPR", epochs=1)
    assert config["train_neg_sample_args"]["sample_num"] == 1
    assert pipeline.run(config)["phases"]["test"]["protocols"]["all+full"]["metrics"]["mrr"] > 0
    of_points = tiny_config(model="RepeatNet", loss_type="BPR")  # its input_type counts, as in RecBole
    assert of_points["train_neg_sample_args"]["distribution"] == "none"


def test_metrics_of_recbole_are_reported_and_everything_is_in_the_output_folder(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    wanted = ["Hit", "Precision", "NDCG", "ItemCoverage"]
    config = tiny_config(metrics=wanted, valid_metric="Hit@10", epochs=1, save_instances=False)
    report = pipeline.run(config)
    assert not list(Path().iterdir())  # RecBole's saved/ and log_tensorboard/
    assert list((tmp_path / "run" / "LSVCR" / "tensorboard").glob("events*"))
    protocols = json.loads((tmp_path / "run" / "LSVCR" / "metrics.json").read_text())["phases"]["test"]["protocols"]
    for name, found in protocols.items():
        more = found["recbole_metrics"]
        assert more["hit@10"] == pytest.approx(found["metrics"]["recall@10"])  # one positive in each list
        assert more["precision@5"] == pytest.approx(found["metrics"]["recall@5"] / 5)
        assert ("itemcoverage@10" in more) == name.endswith("full") and "ndcg@10" not in more
    assert 0 < protocols["all+full"]["recbole_metrics"]["itemcoverage@10"] <= 1
    shown = [line for line in table(report).splitlines() if line.startswith("ranking")]
    assert len(shown) == 4 and shown[1].split()[-2:] == ["ItemCoverage@5", "ItemCoverage@10"]
