"""The stage: it aligns once, continues after a kill, hands over an encoder and refuses what does not belong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alignment_tiny import HEALTH, LOSSES, Killed, save_tiny_lm, small_data, tiny_sr_config

from recbole_lsvcr.alignment import stage
from recbole_lsvcr.alignment.checkpoint import load_sr_weights, read_description
from recbole_lsvcr.alignment.config import AlignmentConfig
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.alignment.stage import AlignmentJob, align, aligned_encoder, aligned_pair
from recbole_lsvcr.alignment.trainer import AlignmentTrainer, checkpoints
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.errors import CheckpointError, ConfigError


def job_of(folder: Path, where: Path, data: JointData | None = None, **changes: Any) -> AlignmentJob:
    settings: dict[str, Any] = {
        "llm": str(folder),
        "max_history": 3,
        "instruction_history": 2,
        "target_tokens": 16,
        "short_text_tokens": 24,
        "lora_r": 2,
        "steps": 3,
        "batch_size": 3,
        "accumulation": 2,
        "learning_rate": 1e-2,
        "log_steps": 1,
        "save_steps": 2,
        "eval_instances": 8,
    }
    config = AlignmentConfig(**{**settings, **changes})
    return AlignmentJob(data or small_data(), config, tiny_sr_config(), where, 5, "cpu")


original = AlignmentTrainer.training_step


def dying(self: AlignmentTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
    if self.state.global_step == 2:
        raise Killed
    return original(self, *arguments, **options)


def no_training(*arguments: Any, **options: Any) -> None:
    raise AssertionError("nothing is left to train")


def test_the_stage_aligns_once_and_hands_over_an_encoder(tiny_lm, tmp_path, monkeypatch):
    made: list[AlignedPair] = []

    class Seen(AlignmentTrainer):
        def __init__(self, pair: AlignedPair, *arguments: Any, **options: Any) -> None:
            made.append(pair)
            super().__init__(pair, *arguments, **options)

    job = job_of(tiny_lm, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(stage, "AlignmentTrainer", Seen)
        health = align(job)
    (pair,) = made
    assert set(health) == LOSSES | HEALTH | {"perplexity"} and all(np.isfinite(list(health.values())))
    assert read_description(job.result)["health"] == health
    log = json.loads((job.folder / "health.json").read_text())
    assert log["health"] == health and [entry["step"] for entry in log["log"] if "loss" in entry] == [1, 2, 3]
    saved = load_sr_weights(job.result)
    assert saved.keys() == pair.sr.state_dict().keys()
    assert all(torch.equal(saved[name], value) for name, value in pair.sr.state_dict().items())
    files = [path for path in job.folder.rglob("*") if path.is_file()]
    left = [path.name for path in files if "training" in path.parts]
    assert left and all(name.startswith("events.out.tfevents") for name in left), "checkpoints are gone, events are not"
    assert all(path.stat().st_size < 16 * 2**20 for path in files)

    encoder = aligned_encoder(job)
    texts = ["title of v3", "text of c12", "another text, somewhat longer", ""]
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, job.sr.text_size) and encoder.dim == job.sr.text_size
    pair.eval()
    with torch.no_grad():
        expected = pair.sr.text_mlp(pair.read_texts(texts)).numpy()
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    assert not vectors[3].any() and encoder.describe()["aligned"]
    again, lm = aligned_pair(job)
    collate = stage.collator(job, lm, phase=1)
    batch = collate(np.arange(min(4, len(collate.instances))), 0)
    assert not again.training
    with torch.no_grad():
        assert again(batch).total.item() == pytest.approx(pair(batch).total.item(), rel=1e-5)

    monkeypatch.setattr(stage, "AlignmentTrainer", no_training)
    assert align(job) == health
    assert align(job_of(tiny_lm, tmp_path / "out", log_steps=2)) == health, "how often to log decides nothing"
    for other in ({"steps": 4}, {"ssc": False}, {"lora_r": 1}):
        changed = job_of(tiny_lm, tmp_path / "out", **other)
        (name,) = other
        with pytest.raises(CheckpointError, match=f"made otherwise \\({name} "):
            align(changed)
        with pytest.raises(CheckpointError, match=f"made otherwise \\({name} "):
            aligned_encoder(changed)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_held_out_batches_are_as_large_whatever_the_training_batch(tiny_lm, tmp_path, batch_size):
    few, more = small_data(), small_data(valid_day=2)
    for data, wanted, sizes in ((few, 30, [30]), (more, 64, [64]), (more, 130, [64, 64])):
        job = job_of(tiny_lm, tmp_path, data, batch_size=batch_size, eval_instances=wanted)
        assert [len(batch) for batch in stage._held_out(job, job.language_model())] == sizes


def test_the_stage_with_the_same_seed_gives_the_same_weights_after_a_kill(tiny_lm, tmp_path, monkeypatch):
    quick = {"eval_instances": 0, "cached_rows": 2}
    whole, killed = (job_of(tiny_lm, tmp_path / name, **quick) for name in ("whole", "killed"))
    align(whole)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(AlignmentTrainer, "training_step", dying)
        align(killed)
    assert [path.name for path in checkpoints(killed.folder / "training")] == ["checkpoint-2"]
    with pytest.raises(CheckpointError, match="no finished alignment"):
        aligned_encoder(killed)
    align(killed)
    expected = load_sr_weights(whole.result)
    assert all(torch.equal(value, expected[name]) for name, value in load_sr_weights(killed.result).items())
    adapters = [(job.result / "adapter_model.safetensors").read_bytes() for job in (whole, killed)]
    assert adapters[0] == adapters[1]


@pytest.mark.parametrize("cached_rows", [0, 2])
def test_gradient_checkpointing_changes_nothing(tiny_lm, tmp_path, cached_rows):
    jobs = [
        job_of(tiny_lm, tmp_path / str(on), gradient_checkpointing=on, cached_rows=cached_rows, lora_dropout=0.1)
        for on in (False, True)
    ]
    health = [align(job) for job in jobs]
    assert health[1] == pytest.approx(health[0], rel=1e-4, abs=1e-4)
    weights = [load_sr_weights(job.result) for job in jobs]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


def test_bfloat16_trains_float32_weights_and_stays_near(tiny_lm, tmp_path):
    exact = align(job_of(tiny_lm, tmp_path / "exact", precision="float32"))
    job = job_of(tiny_lm, tmp_path / "half", precision="bfloat16")
    half = align(job)
    assert half != exact
    for name in LOSSES:
        assert half[name] == pytest.approx(exact[name], rel=0.1, abs=0.1), name
    assert all(value.dtype == torch.float32 for value in load_sr_weights(job.result).values())


def test_bfloat16_without_a_gpu_that_has_it_is_one_message(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_has_bfloat16", lambda device: False)
    job = dataclasses.replace(job_of(tiny_lm, tmp_path / "out", precision="bfloat16"), device="auto")
    with pytest.raises(ConfigError, match="precision = 'bfloat16' needs a GPU that has it"):
        align(job)


def test_several_gpus_in_one_process_are_not_data_parallel(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.TrainingArguments, "_n_gpu", 8, raising=False)
    assert stage._arguments(job_of(tiny_lm, tmp_path / "out")).n_gpu <= 1


def test_another_number_of_processes_does_not_continue(tiny_lm, tmp_path, monkeypatch):
    class Two(AlignmentTrainer):
        def __init__(self, *arguments: Any, identity: dict[str, Any], **options: Any) -> None:
            assert identity["processes"] == 1
            super().__init__(*arguments, identity={**identity, "processes": 2}, **options)

    job = job_of(tiny_lm, tmp_path / "out")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(AlignmentTrainer, "training_step", dying)
        align(job)
    with monkeypatch.context() as patched, pytest.raises(CheckpointError, match="processes is 1 there, 2 here"):
        patched.setattr(stage, "AlignmentTrainer", Two)
        align(job)
    align(job)


def test_another_tiny_model_cannot_use_the_alignment(tiny_lm, tmp_path):
    job = job_of(tiny_lm, tmp_path / "out", steps=1, save_steps=1, eval_instances=0)
    align(job)
    other = job_of(save_tiny_lm(tmp_path / "other", seed=6), tmp_path / "out", steps=1, save_steps=1)
    with pytest.raises(CheckpointError, match="base_"):
        align(other)
