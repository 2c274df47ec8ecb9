"""What a user can get wrong in a configuration ends in one message that helps."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from recbole_lsvcr.config import known_keys, load_config, parse_overrides, read_yaml
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.eval_args import selection_mode
from recbole_lsvcr.parameters import BY_NAME, MODEL_PARAMETERS, PARAMETERS, markdown_table
from recbole_lsvcr.registry import properties_dir
from recbole_lsvcr.trainer import selection_protocol

SAMPLE = {"dataset": "lsvcr-sample", "output": "out"}


def test_a_typo_names_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match=r"'learning_rte' \(did you mean 'learning_rate'\?\)"):
        load_config(None, {**SAMPLE, "learning_rte": 0.1})


def test_a_key_of_another_model_is_unknown() -> None:
    assert "dropout_ratio" not in known_keys(["LSVCR"])
    with pytest.raises(ConfigError, match="dropout_ratio"):
        load_config(None, {**SAMPLE, "dropout_ratio": 0.1})
    load_config(None, {**SAMPLE, "model": "Caser", "dropout_prob": 0.1})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("protocols", ["all+random"], "uniform"),
        ("temperature", 0, "> 0"),
        ("use_id", "yes", "True, False"),
        ("text_transform", "upper", "mask_digits"),
        ("popular_top", 0, ">= 1"),
        ("hidden_dropout_prob", 1.5, "0 to 1"),
        ("train_candidates", "none", "all, seen"),
    ],
)
def test_a_value_that_is_not_accepted_is_named_with_what_is(key: str, value: object, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {**SAMPLE, key: value})
    assert key in str(caught.value) and repr(value) in str(caught.value) and told in str(caught.value)


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; convert raw logs"):
        load_config(None, {"dataset": "absent", "data_path": str(tmp_path), "output": "out"})
    with pytest.raises(ConfigError, match="model 'SASREC' is not known"):
        load_config(None, {**SAMPLE, "model": "SASREC"})
    with pytest.raises(ConfigError, match=r"model 'Foo' is not known.*one of yours as my_module:MyModel"):
        load_config(None, {**SAMPLE, "model": "Foo"})
    with pytest.raises(ConfigError, match="sequential"):
        load_config(None, {**SAMPLE, "model": "BPR"})
    with pytest.raises(ConfigError, match=r"valid_metric = 'NDCG@7'"):
        load_config(None, {**SAMPLE, "valid_metric": "NDCG@7"})
    with pytest.raises(ConfigError, match="multiple of n_heads"):
        load_config(None, {**SAMPLE, "hidden_size": 10, "n_heads": 3})
    with pytest.raises(ConfigError, match=r"eval_args has unknown keys \['splt'\]"):
        load_config(None, {**SAMPLE, "eval_args": {"splt": {}}})
    with pytest.raises(ConfigError, match="no data set"):
        load_config(None, {"output": "out"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        *(
            ({"mode": mode}, "eval_args.mode = .* accepted: full, uniN, popN")
            for mode in ("uniform", "uni", "uni0", "labeled", 99, None, {}, {"valid": "uni99", "test": "pop"}, ["full"])
        ),
        ({"order": "RO"}, "eval_args.order = 'RO' is not accepted; accepted: TO"),
        ({"group_by": None, "split": {"RS": [8, 1, 1]}}, "eval_args.group_by = None is not accepted; accepted: user"),
        ({"group_by": "item"}, "eval_args.group_by = 'item'"),
    ],
)
def test_what_an_evaluation_cannot_be_is_told_before_any_work(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(None, {**SAMPLE, "eval_args": given})


def test_the_mode_of_an_evaluation_names_a_ranking() -> None:
    for mode, told in (
        ("full", "all+full"),
        ("uni99", "all+uniform"),
        ("pop50", "all+popular50"),
        ({"valid": "uni20", "test": "full"}, "all+uniform20"),
        ({"test": "full"}, "all+full"),
    ):
        config = load_config(None, {**SAMPLE, "eval_args": {"mode": mode, "group_by": None}, "valid_protocol": None})
        assert str(selection_mode({"mode": mode})) == told == str(selection_protocol(config, comments=False))
    assert str(selection_protocol(config, comments=True)) == "available+full"


def test_a_file_that_cannot_be_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "absent.yaml")
    for text, told in (("a: [", "not valid YAML"), ("- 1\n", "a mapping")):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError, match=told):
            load_config(file)


def test_overrides_have_recboles_syntax() -> None:
    parsed = parse_overrides(
        ["--learning_rate=3e-3", "--topk=[5,10]", "--train_neg_sample_args=None", "--model=SASRec", "--use_id=False"]
    )
    assert parsed == {
        "learning_rate": 0.003,
        "topk": [5, 10],
        "train_neg_sample_args": None,
        "model": "SASRec",
        "use_id": False,
    }
    with pytest.raises(ConfigError, match="given twice"):
        parse_overrides(["--seed=1", "--seed=2"])
    with pytest.raises(ConfigError, match="not understood"):
        parse_overrides(["seed", "1"])


def test_a_value_may_stand_after_its_name() -> None:
    parsed = parse_overrides(["--model", "SASRec", "--seed=3", "--benchmark_scale", "-1", "--use_id", "False"])
    assert parsed == {"model": "SASRec", "seed": 3, "benchmark_scale": -1, "use_id": False}
    for arguments in (["--use_id"], ["--use_id", "--seed=3"], ["--seed=3", "4"]):
        with pytest.raises(ConfigError, match="not understood; parameters are given as --name=value or --name value"):
            parse_overrides(arguments)
    for arguments in (["--eval_args={split:{time:[1,2]}}"], ["--eval_args", "{split:{time:[1,2]}}"]):
        with pytest.raises(ConfigError, match=r"argument --eval_args: '\{split:.* write a space after each colon"):
            parse_overrides(arguments)


def test_an_override_is_above_the_file_and_argv_takes_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**SAMPLE, "seed": 1, "epochs": 3}))
    monkeypatch.setattr(sys, "argv", ["prog", "--epochs=99"])
    config = load_config(file, {"seed": 2})
    assert (config["seed"], config["epochs"]) == (2, 3)


@pytest.mark.parametrize("visible", [None, "2,3"])
def test_under_torchrun_every_gpu_stays_visible(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    asked: list[str | None] = []

    def available() -> bool:  # what the driver reads when it is asked first counts for the whole process
        asked.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return True

    monkeypatch.setattr(torch.cuda, "is_available", available)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert load_config(None, SAMPLE)["device"] == torch.device("cuda")
    assert load_config(None, {**SAMPLE, "gpu_id": ""})["device"] == torch.device("cpu")
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible and set(asked) == {visible}
    monkeypatch.delenv("WORLD_SIZE")
    load_config(None, {**SAMPLE, "gpu_id": "1"})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1", "one process: as RecBole does it"


def test_a_string_is_never_evaluated() -> None:
    config = load_config(None, {**SAMPLE, "text_encoder": "1+1"})
    assert config["text_encoder"] == "1+1"


def test_baselines_share_the_settings_of_the_comparison() -> None:
    ours, theirs = load_config(None, SAMPLE), load_config(None, {**SAMPLE, "model": "SASRec"})
    for key in (
        "train_batch_size",
        "learning_rate",
        "epochs",
        "stopping_step",
        "MAX_ITEM_LIST_LENGTH",
        "metrics",
        "topk",
        "valid_metric",
    ):
        assert ours[key] == theirs[key]
    assert theirs["train_neg_sample_args"]["distribution"] == "none"


def test_every_parameter_is_documented_and_has_a_default() -> None:
    overall = read_yaml(properties_dir() / "overall.yaml")
    video, comment = (read_yaml(properties_dir() / "model" / f"{name}.yaml") for name in ("LSVCR", "LSVCRComment"))
    from_command_line = {"task", "stage", "output", "custom_model"}
    assert {parameter.name for parameter in PARAMETERS} - from_command_line == set(overall) | {"reads_comments"}
    others = [read_yaml(properties_dir() / "model" / f"{name}.yaml") for name in ("DMT", "MBHT", "UniSRec")]
    assert {parameter.name for parameter in MODEL_PARAMETERS} <= {*video, *comment}.union(*others)
    shared = set(video) & set(comment) - {"load_col"}
    assert {key: video[key] for key in shared} == {key: comment[key] for key in shared}
    for defaults in (overall, comment, video, *others):
        for name, value in defaults.items():
            assert name not in BY_NAME or BY_NAME[name].accepts(value), name
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert markdown_table() in readme, "run: python -m recbole_lsvcr.parameters README.md"
