"""S3Rec, RecBole's model as it is: pre-trained, fine-tuned from that, ranked; stopped anywhere it ends the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, Make
from killed_runs import kill_when, run_whole, stopped_at_every_checkpoint

from dataset_tools.sample import generate
from recbole_lsvcr import pipeline, trainer
from recbole_lsvcr.checkpoint import load_checkpoint
from recbole_lsvcr.config import LSVCRConfig
from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.pretraining import pretrain

SMALL = {"model": "S3Rec", "hidden_size": 8, "n_layers": 1, "inner_size": 16, "pretrain_epochs": 2, "epochs": 2}
Small = Callable[..., LSVCRConfig]


@pytest.fixture
def s3rec(tiny_config: Make) -> Small:
    return lambda **changes: tiny_config(**{**SMALL, **changes})


def phases(folder: Path) -> Any:
    return json.loads((folder / "S3Rec" / "metrics.json").read_text())["phases"]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file)["state_dict"]


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert torch.equal(values, theirs[name]), name


def test_it_is_pretrained_fine_tuned_and_ranked(s3rec: Small, tmp_path: Path) -> None:
    report = pipeline.run(s3rec())
    assert report is not None
    found = report["phases"]["test"]["protocols"]["all+full"]
    assert found["instances"] > 0 and 0 <= found["metrics"]["ndcg@10"] <= 1
    folder = tmp_path / "run" / "S3Rec"
    written = json.loads((folder / "history.json").read_text())
    record = written["pretraining"]
    assert record["epochs"] == 2 and [entry["epoch"] for entry in record["history"]] == [0, 1]
    assert record["seconds"] == pytest.approx(sum(entry["train_seconds"] for entry in record["history"]))
    assert record["history"][1]["losses"][0] < record["history"][0]["losses"][0]
    assert all("valid_score" in entry for entry in written["epochs"])
    assert json.loads((folder / "pretraining" / "history.json").read_text()) == record
    again = pipeline.run(s3rec(output=str(tmp_path / "again")))
    assert again is not None and again["phases"] == report["phases"]


def test_fine_tuning_starts_from_the_pretrained_weights(s3rec: Small, tmp_path: Path) -> None:
    run = pipeline.Run(s3rec())
    start = {name: values.clone() for name, values in run.trainer().model.state_dict().items()}
    first = pretrain(run)
    assert first is not None and first.checkpoint == tmp_path / "run" / "S3Rec" / "pretraining" / "last.pth"
    kept = weights(first.checkpoint)
    assert not torch.equal(start["item_embedding.weight"], kept["item_embedding.weight"])
    tuned = run.trainer(pretrained=first.checkpoint)
    assert tuned.model.train_stage == "finetune"
    assert_equal(kept, tuned.model.state_dict())
    result = run.finetune()
    assert result.pretraining == first.record and len(result.history) == 2
    assert not torch.equal(kept["item_embedding.weight"], weights(result.checkpoint)["item_embedding.weight"])
    assert_equal(kept, weights(first.checkpoint))


def test_gradients_reach_every_parameter_of_each_stage(s3rec: Small) -> None:
    run = pipeline.Run(s3rec())
    first = pretrain(run)
    assert first is not None
    only_first = ("aap_norm", "mip_norm", "map_norm", "sp_norm", "feature_embedding")
    for pretrained, without in ((None, ()), (first.checkpoint, only_first)):
        own = run.trainer(pretrained=pretrained)
        own._seed(0)
        own.model.train()
        own.model.calculate_loss(next(iter(run.loaders[0]))).backward()
        reached = {
            name: values.grad is not None and bool(values.grad.any()) for name, values in own.model.named_parameters()
        }
        assert {name for name, has in reached.items() if not has} == {
            name for name in reached if name.startswith(without)
        }


def test_the_attributes_of_a_batch_are_those_of_its_videos(s3rec: Small) -> None:
    run = pipeline.Run(s3rec())
    model = run.trainer().model
    batch = next(iter(run.loaders[0]))
    history, length = batch["item_id_list"], batch["item_length"]
    assert ((history > 0).sum(dim=1) == length).all() and (history[:, 0] > 0).all()  # padded on the right
    features, masked, positive, *_ = model.reconstruct_pretrain_data(history, length)
    names = run.dataset.field2id_token["tags"]
    assert names[0] == "[PAD]" and model.n_features == len(names) - 1 == features.shape[2]
    assert ((masked > 0) == (positive > 0)).all()
    table = run.dataset.item_feat["tags"]
    for row in range(5):
        shown = history[row][: length[row]]
        assert positive[row].tolist() == [0] * (8 - len(shown)) + shown.tolist()  # there, on the left
        for place, item in zip(range(8 - len(shown), 8), shown, strict=True):
            assert set(names[1:][features[row, place].bool().numpy()]) == {names[tag] for tag in table[item] if tag}
        assert not features[row, : 8 - len(shown)].any()


def test_stopped_at_any_checkpoint_it_ends_as_an_undisturbed_run(
    s3rec: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    pipeline.run(s3rec(output=str(whole)))
    stops = 0
    for output in stopped_at_every_checkpoint(
        lambda folder: pipeline.run(s3rec(output=str(folder))), tmp_path, monkeypatch
    ):
        for name in ("pretraining/last.pth", "best.pth"):
            assert_equal(weights(whole / "S3Rec" / name), weights(output / "S3Rec" / name))
        assert phases(output) == phases(whole), output.name
        stops += 1
    # Two epochs of pre-training and the mark of its end; both states of two epochs of fine-tuning (the better one only
    # where there is one) and its mark.
    kept = json.loads((whole / "S3Rec" / "history.json").read_text())["epochs"]
    better = sum(
        entry["valid_score"] > max((e["valid_score"] for e in kept[:at]), default=-1) for at, entry in enumerate(kept)
    )
    assert stops == 3 + 2 + better + 1


def test_a_process_killed_in_either_training_continues(tiny_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**TINY, **SMALL, "data_path": str(tiny_data), "pretrain_epochs": 3, "epochs": 3}))
    for name in ("pretraining/last.pth", "last.pth"):
        last = tmp_path / "killed" / "S3Rec" / name
        kill_when(last.exists, "--config", str(file), "--output", str(tmp_path / "killed"))
    for output in ("killed", "whole"):
        run_whole("--config", str(file), "--output", str(tmp_path / output))
    assert phases(tmp_path / "killed") == phases(tmp_path / "whole")


def test_more_epochs_continue_a_pretraining_until_fine_tuning_has_begun(s3rec: Small, tmp_path: Path) -> None:
    pipeline.finetune(s3rec(train_stage="pretrain"))
    with pytest.raises(CheckpointError, match="holds 2 epochs of pre-training, but pretrain_epochs is 1; set it to 2"):
        pipeline.run(s3rec(pretrain_epochs=1))
    pipeline.run(s3rec(pretrain_epochs=3))
    pipeline.run(s3rec(pretrain_epochs=3, output=str(tmp_path / "whole")))
    assert phases(tmp_path / "run") == phases(tmp_path / "whole")
    before = weights(tmp_path / "run" / "S3Rec" / "pretraining" / "last.pth")
    for other in (2, 4):
        with pytest.raises(CheckpointError, match=f"from which fine-tuning has begun, but pretrain_epochs is {other}"):
            pipeline.run(s3rec(pretrain_epochs=other))
    assert_equal(before, weights(tmp_path / "run" / "S3Rec" / "pretraining" / "last.pth"))
    pipeline.run(s3rec(pretrain_epochs=3, epochs=3))
    with pytest.raises(
        CheckpointError, match=r"pretraining.last\.pth belongs to a run with other settings \(mask_ratio"
    ):
        pipeline.run(s3rec(pretrain_epochs=3, mask_ratio=0.4))


def test_no_epoch_of_pretraining_is_a_start_from_random_weights(s3rec: Small) -> None:
    run = pipeline.Run(s3rec(pretrain_epochs=0, epochs=1))
    start = {name: values.clone() for name, values in run.trainer().model.state_dict().items()}
    result = run.finetune()
    assert result.pretraining == {"epochs": 0, "seconds": 0, "history": []}
    assert_equal(start, weights(run.model_folder / "pretraining" / "last.pth"))


def test_the_stages_can_be_run_one_by_one(s3rec: Small, tmp_path: Path) -> None:
    pipeline.run(s3rec(output=str(tmp_path / "whole")))
    only = pipeline.finetune(s3rec(train_stage="pretrain"))
    assert only.checkpoint == tmp_path / "run" / "S3Rec" / "pretraining" / "last.pth"
    assert not only.history and only.pretraining is not None and only.pretraining["epochs"] == 2
    assert not (tmp_path / "run" / "S3Rec" / "last.pth").exists()
    given = {"pre_model_path": str(only.checkpoint), "output": str(tmp_path / "given")}
    for stage in ({}, {"train_stage": "finetune"}):
        pipeline.run(s3rec(**given, **stage))
        assert phases(tmp_path / "given") == phases(tmp_path / "whole")
    with pytest.raises(
        CheckpointError, match=r"fine-tuned from a pre-training that is not in .*; give the file as pre_"
    ):
        pipeline.run(s3rec(output=str(tmp_path / "given")))
    written = json.loads((tmp_path / "given" / "S3Rec" / "history.json").read_text())
    assert "pretraining" not in written and not (tmp_path / "given" / "S3Rec" / "pretraining").exists()
    pipeline.run(s3rec())  # without `train_stage` the folder of the pre-training goes on
    assert phases(tmp_path / "run") == phases(tmp_path / "whole")
    # A ranking reads the trained model alone.
    only.checkpoint.unlink()
    pipeline.run(s3rec(**given), "evaluate")


def test_a_checkpoint_to_start_from_is_of_this_model_and_data(s3rec: Small, tiny_config: Make, tmp_path: Path) -> None:
    other = pipeline.finetune(s3rec(train_stage="pretrain", output=str(tmp_path / "other"))).checkpoint
    pipeline.finetune(s3rec(pre_model_path=str(other)))
    again = pipeline.finetune(s3rec(train_stage="pretrain", seed=8, output=str(tmp_path / "again"))).checkpoint
    with pytest.raises(CheckpointError, match="other pre-trained weights"):
        pipeline.finetune(s3rec(pre_model_path=str(again)))
    own = {"output": str(tmp_path / "new")}
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*absent\.pth"):
        pipeline.finetune(s3rec(pre_model_path=str(tmp_path / "absent.pth"), **own))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        pipeline.finetune(s3rec(pre_model_path=str(other), hidden_size=16, **own))
    pipeline.finetune(tiny_config(model="SASRec", epochs=1))
    with pytest.raises(CheckpointError, match="holds model 'SASRec'"):
        pipeline.finetune(s3rec(pre_model_path=str(tmp_path / "run" / "SASRec" / "best.pth"), **own))
    generate(tmp_path / "data" / "tiny", seed=5, users=60, videos=50, comments=300)
    with pytest.raises(CheckpointError, match="another version of data set 'tiny'"):
        pipeline.finetune(s3rec(pre_model_path=str(other), data_path=str(tmp_path / "data"), **own))
    state = load_checkpoint(other)
    del state["data"]
    trainer.save_checkpoint(tmp_path / "unknown.pth", state)
    with pytest.raises(CheckpointError, match="does not say which data"):
        pipeline.finetune(s3rec(pre_model_path=str(tmp_path / "unknown.pth"), **own))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train_stage": "tune"}, "train_stage = 'tune' is not accepted; accepted: pretrain, finetune"),
        ({"train_stage": "finetune"}, "train_stage = finetune needs pre_model_path"),
        ({"train_stage": "pretrain", "pre_model_path": "x.pth"}, "leave out one of them"),
        ({"pretrain_epochs": -1}, "pretrain_epochs = -1 is not accepted; accepted: an integer >= 0"),
        ({"pretrain_epochs": True}, "pretrain_epochs = True"),
    ],
)
def test_settings_that_do_not_go_together(s3rec: Small, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        s3rec(**settings)


def test_what_is_only_pretrained_is_not_ranked(s3rec: Small, tmp_path: Path) -> None:
    for stage in ("all", "evaluate"):
        with pytest.raises(ConfigError, match="leaves no S3Rec that ranks; give --stage finetune"):
            pipeline.run(s3rec(train_stage="pretrain"), stage)
    assert not (tmp_path / "run").exists()
