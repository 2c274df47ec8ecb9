"""A run from text to ranking: its stages, its resumption, and what it says when something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from by_heart import quality_on_training
from conftest import TINY, Make
from killed_runs import kill_when, run_whole, stopped_at_every_checkpoint
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model

from dataset_tools.sample import generate
from recbole_lsvcr import pipeline
from recbole_lsvcr.errors import CheckpointError, ConfigError, EvaluationError, StoreError
from recbole_lsvcr.evaluation import Protocol
from recbole_lsvcr.report import table
from recbole_lsvcr.trainer import LSVCRTrainer

ROOT = Path(__file__).parent.parent


def metrics(folder: Path, model: str = "LSVCR") -> Any:
    return json.loads((folder / model / "metrics.json").read_text())["phases"]


def test_all_stages_leave_a_report_and_repeat_exactly(tiny_config: Make, tmp_path: Path) -> None:
    report = pipeline.run(tiny_config())
    assert report is not None
    shown = table(report)
    for words in (
        "LSVCR on tiny (synthetic data), test",
        "all+full",
        "available+period",
        "unseen videos",
        "chance",
        "Recall@10",
        "MRR@10",
    ):
        assert words in shown
    folder = tmp_path / "run"
    for name in (
        "best.pth",
        "last.pth",
        "history.json",
        "metrics.json",
        "config.yaml",
        "environment.json",
        "instances-test.parquet",
    ):
        assert (folder / "LSVCR" / name).is_file(), name
    instances = pl.read_parquet(folder / "LSVCR" / "instances-test.parquet")
    found = report["phases"]["test"]["protocols"]["all+full"]
    own = instances.filter(pl.col("protocol") == "all+full")
    assert own.height == found["instances"] and own["ndcg@10"].mean() == pytest.approx(
        found["metrics"]["ndcg@10"], abs=1e-12
    )
    again = pipeline.run(tiny_config(output=str(tmp_path / "again")))
    assert again is not None and again["phases"] == report["phases"]


def test_a_run_stopped_at_any_checkpoint_ends_as_an_undisturbed_one(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run(tiny_config(output=str(tmp_path / "whole"), epochs=2))
    again = stopped_at_every_checkpoint(
        lambda folder: pipeline.run(tiny_config(output=str(folder), epochs=2)), tmp_path, monkeypatch
    )
    found = [metrics(output) for output in again]
    assert all(one == metrics(tmp_path / "whole") for one in found)
    assert len(found) == 2 * 2 + 1  # the best and the last state of each epoch, and the mark of being finished


def test_a_killed_process_continues(tiny_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**TINY, "data_path": str(tiny_data), "epochs": 3}))
    last = tmp_path / "killed" / "LSVCR" / "last.pth"
    kill_when(last.exists, "--config", str(file), "--output", str(tmp_path / "killed"))
    for output in ("killed", "whole"):
        run_whole("--config", str(file), "--output", str(tmp_path / output))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_another_configuration_does_not_continue_the_run(tiny_config: Make) -> None:
    pipeline.run(tiny_config())
    with pytest.raises(CheckpointError, match=r"learning_rate: 0.01 there, 0.02 here"):
        pipeline.run(tiny_config(learning_rate=0.02))
    pipeline.run(tiny_config(epochs=4))  # more of the same is a continuation


def test_a_missing_stage_is_named(tiny_config: Make) -> None:
    with pytest.raises(StoreError, match="encode"):
        pipeline.finetune(tiny_config())
    pipeline.encode(tiny_config())
    with pytest.raises(CheckpointError, match="--stage finetune"):
        pipeline.evaluate(tiny_config())
    with pytest.raises(ConfigError, match="stage 'tune'"):
        pipeline.run(tiny_config(), "tune")


def test_a_checkpoint_or_store_of_something_else_is_refused(tiny_config: Make, tmp_path: Path) -> None:
    pipeline.run(tiny_config())
    generate(tmp_path / "other" / "tiny", seed=5, users=60, videos=50, comments=300)
    other = {"data_path": str(tmp_path / "other")}
    with pytest.raises(StoreError, match="dataset_fingerprint"):
        pipeline.encode(tiny_config(**other))
    own_store = {"text_store": str(tmp_path / "store")}
    pipeline.encode(tiny_config(**other, **own_store))
    with pytest.raises(CheckpointError, match="another version of data set 'tiny'"):
        pipeline.evaluate(tiny_config(**other, **own_store))
    with pytest.raises(StoreError, match="transform"):
        pipeline.finetune(tiny_config(text_transform="mask_digits"))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        pipeline.evaluate(tiny_config(hidden_size=16))


def test_weights_meet_no_text_vectors_but_those_they_were_trained_on(tiny_config: Make, tmp_path: Path) -> None:
    pipeline.run(tiny_config(epochs=1))
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "run" / "text_store", moved)
    pipeline.evaluate(tiny_config(epochs=1, text_store=str(moved)))
    manifest = json.loads((moved / "manifest.json").read_text())
    (moved / "manifest.json").write_text(json.dumps({**manifest, "encoder_fingerprint": "another one"}))
    for stage in (pipeline.finetune, pipeline.evaluate):
        with pytest.raises(CheckpointError, match="trained on other text vectors"):
            stage(tiny_config(epochs=1, text_store=str(moved)))


def test_a_store_that_grew_is_the_same_one(tiny_config: Make, tmp_path: Path) -> None:
    pipeline.run(tiny_config(epochs=1))
    manifest = tmp_path / "run" / "text_store" / "manifest.json"
    pipeline.encode(tiny_config(model="LSVCRComment"))
    assert len(json.loads(manifest.read_text())["parts"]) == 2
    pipeline.evaluate(tiny_config(epochs=1))


def test_what_reads_texts_in_training_alone_is_ranked_without(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(model="FM", train_negatives="hard", epochs=1)
    pipeline.encode(config)
    pipeline.finetune(config)
    shutil.rmtree(tmp_path / "run" / "text_store")
    assert pipeline.evaluate(config)["phases"]


def test_weights_of_a_recbole_program_know_their_text_vectors(tiny_config: Make, tmp_path: Path) -> None:
    def trained(epochs: int, transform: str = "none") -> tuple[LSVCRTrainer, Any]:
        config = tiny_config(epochs=epochs, text_transform=transform, text_store=str(tmp_path / transform))
        config["output"], config["checkpoint_dir"] = None, str(tmp_path / "saved")
        train, valid, test = data_preparation(config, create_dataset(config))
        trainer = LSVCRTrainer(config, get_model("LSVCR")(config, train.dataset))
        if epochs:
            trainer.fit(train, valid)
        return trainer, test

    trainer, test = trained(1)
    found = trainer.evaluate(test)
    assert trained(0)[0].evaluate(test, model_file=trainer.saved_model_file) == found
    other, test = trained(0, "mask_digits")
    with pytest.raises(CheckpointError, match="other text vectors"):
        other.evaluate(test, model_file=trainer.saved_model_file)


@pytest.mark.parametrize(
    "model",
    [
        "SASRec",
        "GRU4Rec",
        "BERT4Rec",
        "NARM",
        "Caser",
        "FDSA",
        "SASRecText",
        "UniSRec",
        "DMT",
        "MBHT",
        "Popularity",
        "Newest",
        "TextSim",
    ],
)
def test_other_models_run_on_the_same_data(tiny_config: Make, tmp_path: Path, model: str) -> None:
    report = pipeline.run(tiny_config(model=model, epochs=1, report_phases=["test"]))
    assert report is not None
    found = report["phases"]["test"]["protocols"]["all+full"]
    assert found["instances"] > 0 and 0 <= found["metrics"]["ndcg@10"] <= 1


def test_a_model_of_pairs_trains_with_one_negative(tiny_config: Make) -> None:
    report = pipeline.run(tiny_config(model="FPMC", epochs=1, report_phases=["test"]))
    assert report is not None and report["phases"]["test"]["protocols"]["all+full"]["instances"] > 0


def test_metrics_equal_stock_recboles_under_leave_one_out(tiny_config: Make) -> None:
    config = tiny_config(
        eval_args={"split": {"LS": "valid_and_test"}, "mode": "full"},
        valid_protocol=None,
        metric_decimal_place=10,
        epochs=1,
    )
    run = pipeline.Run(config)
    run.encode()
    run.finetune()
    own = run.trainer()
    own.load_best(own.saved_model_file)
    test = run.loaders[2]
    ours = own.evaluate(test, load_best_model=False)
    # RecBole masks column 0 in place, so both see the scores of the same model.
    stock = Trainer.evaluate(own, test, load_best_model=False)
    assert set(ours) == set(stock) and len(ours) == 6
    for name, value in stock.items():
        assert ours[name] == pytest.approx(value, abs=1e-6), name


def test_a_score_that_is_not_a_number_is_an_error(tiny_config: Make) -> None:
    run = pipeline.Run(tiny_config(model="SASRec", epochs=0))
    own = run.trainer()
    with torch.no_grad():
        own.model.item_embedding.weight[3] = float("nan")
    own.model.eval()
    with pytest.raises(EvaluationError, match="SASRec"):
        own.rank(run.loaders[2], run_protocols(run))
    with pytest.raises(EvaluationError, match=r"loss of SASRec became nan; lower learning_rate"):
        own._check_nan(torch.tensor(float("nan")))


def run_protocols(run: pipeline.Run) -> list[Any]:
    return [Protocol.parse(text) for text in run.config["protocols"]]


def test_fifty_users_can_be_learned_by_heart(tiny_config: Make) -> None:
    changes = {
        "hidden_size": 32,
        "inner_size": 64,
        "text_size": 64,
        "hidden_dropout_prob": 0.0,
        "attn_dropout_prob": 0.0,
        "weight_decay": 0.0,
        "learning_rate": 0.003,
        "train_batch_size": 64,
        "epochs": 30,
        "eval_step": 30,
    }
    assert quality_on_training(pipeline.Run(tiny_config(**changes))) > 0.8


def test_a_checkpoint_ranks_without_transformers_and_peft(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config()
    pipeline.run(config)
    before = metrics(tmp_path / "run")
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('transformers', 'peft', 'sentence_transformers'): raise "
        "ImportError('blocked ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import run_lsvcr\n"
        "sys.exit(run_lsvcr.main(sys.argv[1:]))\n"
    )
    file = tmp_path / "c.yaml"
    file.write_text(
        yaml.safe_dump(
            {**TINY, "data_path": config["data_path"].removesuffix("/tiny"), "output": str(tmp_path / "run")}
        )
    )
    command = [sys.executable, "-c", code, "--config", str(file), "--stage", "evaluate"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--learning_rte=1"], "did you mean 'learning_rate'"),
        (["--config", "absent.yaml"], "cannot read the configuration file absent.yaml"),
        (["--dataset=absent", "--output", "out"], "does not exist; convert raw logs"),
        (["--dataset=lsvcr-sample"], "no output folder"),
        (["--dataset=lsvcr-sample", "--output=/dev/null/run"], "output folder /dev/null/run cannot be made"),
    ],
)
def test_the_command_line_ends_in_one_line(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import run_lsvcr

    monkeypatch.chdir(tmp_path)
    assert run_lsvcr.main(arguments) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1 and said.startswith("run_lsvcr.py: error: ")
    assert not any(tmp_path.iterdir())
