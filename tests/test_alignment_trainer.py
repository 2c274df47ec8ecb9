"""Training of the aligned pair: it learns, continues exactly, and refuses what does not belong."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from alignment_tiny import (
    HEALTH,
    LOSSES,
    AtStep,
    Killed,
    kill,
    make_collator,
    make_pair,
    make_trainer,
    on_two_processes,
    rows_of,
)
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from recbole_lsvcr.alignment.collate import AlignmentBatch, AlignmentCollator
from recbole_lsvcr.alignment.losses import AlignmentObjective
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.alignment.trainer import WHOLE, AlignmentTrainer, Draws, StepCollator, checkpoints
from recbole_lsvcr.errors import CheckpointError, ConfigError

DROPOUT: dict[str, Any] = {"lora_dropout": 0.2, "sr": {"hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2}}


class Recorded:
    """A collator that remembers what it was asked for."""

    def __init__(self, collate: AlignmentCollator) -> None:
        self.collate, self.calls = collate, list[tuple[list[int], int]]()

    def __call__(self, rows: np.ndarray, seed: int) -> AlignmentBatch:
        self.calls.append((rows.tolist(), seed))
        return self.collate(rows, seed)


# Order of the instances -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "a_step", "steps"), [(23, 4, 17), (24, 8, 9), (7, 7, 3)])
def test_every_epoch_is_a_new_permutation_and_no_step_mixes_epochs(rows, a_step, steps):
    draws = Draws(lambda epoch: np.random.default_rng([1, epoch]).permutation(rows), rows, steps, a_step)
    items = [draws[k] for k in range(len(draws))]
    assert [k for k, _, _ in items] == list(range(steps * a_step))
    by_epoch: dict[int, list[int]] = {}
    for start in range(0, len(items), a_step):
        assert len({epoch for _, epoch, _ in items[start : start + a_step]}) == 1
    for _, epoch, row in items:
        by_epoch.setdefault(epoch, []).append(row)
    for seen in by_epoch.values():
        assert len(set(seen)) == len(seen) and set(seen) <= set(range(rows))
    assert all(len(by_epoch[epoch]) == rows - rows % a_step for epoch in range(len(by_epoch) - 1))
    assert len({tuple(seen[:a_step]) for seen in by_epoch.values()}) == len(by_epoch), "shuffled anew"
    assert [draws[k] for k in reversed(range(len(draws)))] == items[::-1], "an item does not depend on those before it"


def test_fewer_instances_than_a_step_are_repeated():
    draws = Draws(lambda epoch: np.arange(3), 3, 2, 4)
    assert [row for _, _, row in (draws[k] for k in range(len(draws)))] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_the_processes_share_of_a_batch_has_one_number(collator):
    step = StepCollator(collator, a_batch=4)
    first, second = [(8, 1, 3), (9, 1, 5)], [(10, 1, 0), (11, 1, 2)]
    assert step(first).draw == step(second).draw == 2
    assert step(second).rows.tolist() == [0, 2]


def test_accumulation_sees_the_instances_of_a_larger_batch(tiny_lm, collator, tmp_path):
    rows = rows_of(collator, 10)
    seen = {}
    for accumulation in (1, 2):
        recorded = Recorded(collator)
        sizes = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
        arguments = {"max_steps": 4, "save_steps": 100, **sizes}
        trainer = make_trainer(make_pair(tiny_lm), recorded, tmp_path / "out", rows=rows, arguments=arguments)
        trainer.continue_training()
        shutil.rmtree(tmp_path / "out")
        assert trainer.state.global_step == 4 and {len(call[0]) for call in recorded.calls} == {4 // accumulation}
        seen[accumulation] = [(row, epoch) for call, epoch in recorded.calls for row in call]
    assert seen[1] == seen[2] and [epoch for _, epoch in seen[1]] == [0] * 8 + [1] * 8


@pytest.mark.parametrize("cached_rows", [0, 1])
def test_accumulated_gradients_are_means(tiny_lm, collator, tmp_path, cached_rows):
    rows, norms = rows_of(collator, 2), []
    for accumulation in (1, 3):
        arguments = {"max_steps": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation}
        pair = make_pair(tiny_lm, random_positions=False)
        trainer = make_trainer(
            pair,
            lambda rows, seed: collator(np.sort(rows), 0),  # the same batch each time
            tmp_path / str(accumulation),
            rows=rows,
            arguments=arguments,
            cached_rows=cached_rows,
        )
        trainer.continue_training()
        norms.append([trainer.state.log_history[0][name] for name in ("grad_norm", "loss", "sr")])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


# Learning and logging -------------------------------------------------------------------------------------------------


def test_a_tiny_data_set_is_learned_by_heart(tiny_lm, collator, tmp_path):
    rows = rows_of(collator, 6)
    pair = make_pair(tiny_lm, AlignmentObjective(lm=0.1), untrained=True, random_positions=False)
    arguments = {"max_steps": 75, "per_device_train_batch_size": 6, "save_steps": 1000}
    fixed = collator(np.sort(rows), 0)
    trainer = make_trainer(
        pair,
        lambda rows, seed: collator(rows, 0),
        tmp_path,
        rows=rows,
        arguments=arguments,
        cached_rows=3,  # whose gradients are the plain step's
        held_out=[fixed],
    )
    before = trainer.health()
    trainer.continue_training()
    after = trainer.health()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 75 and log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert after["sr"] < 0.5 * before["sr"] and after["ssc"] < 0.5 * before["ssc"] and after["lm"] < before["lm"]
    assert after["retrieval"] == 1.0
    assert pair.training, "looking at held-out instances leaves the mode as it was"


def test_every_loss_and_health_figure_is_logged_apart(tiny_lm, collator, tmp_path):
    arguments = {"max_steps": 4, "logging_steps": 2}
    rows = rows_of(collator, 8)
    trainer = make_trainer(make_pair(tiny_lm), collator, tmp_path, rows=rows, arguments=arguments)
    trainer.continue_training()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 2 and all(set(entry) >= LOSSES | HEALTH | {"loss", "grad_norm"} for entry in log)
    for entry in log:  # Eq. 16
        total = entry["lm"] + entry["sr"] + 0.5 * (entry["ssc"] + entry["vcc"])
        assert entry["loss"] == pytest.approx(total, rel=1e-3)
    trainer.held_out = [collator(rows[:4], 0), collator(rows[4:], 0)]
    health = trainer.health()
    assert set(health) == LOSSES | HEALTH | {"perplexity"}
    assert health["perplexity"] == pytest.approx(np.exp(health["lm"]), rel=1e-3)


# Interruption ---------------------------------------------------------------------------------------------------------


def weights_of(pair: AlignedPair) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in pair.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("cached_rows", "accumulation", "grad"), [(0, 1, "full"), (3, 2, "full"), (0, 2, "none")], ids=str
)
def test_a_killed_run_continues_to_the_weights_of_an_undisturbed_one(
    tiny_lm, collator, tmp_path, cached_rows, accumulation, grad
):
    def run(where: Path, noise: int, *callbacks: TrainerCallback) -> AlignmentTrainer:
        pair = make_pair(tiny_lm, short_text_grad=grad, **DROPOUT)
        torch.manual_seed(noise)
        arguments = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 4 // accumulation}
        return make_trainer(
            pair,
            collator,
            where,
            rows=rows_of(collator, 10),
            arguments={"max_steps": 5, "save_steps": 2, "warmup_steps": 1, **arguments},
            cached_rows=cached_rows,
            callbacks=list(callbacks),
        )

    undisturbed = run(tmp_path / "whole", 1)
    undisturbed.continue_training()
    killed = run(tmp_path / "killed", 2, AtStep(3, kill))
    with pytest.raises(Killed):
        killed.continue_training()
    (left,) = checkpoints(tmp_path / "killed")
    assert left.name == "checkpoint-2"
    cut_short = shutil.copytree(left, left.with_name("checkpoint-3"))  # killed while it wrote the next one
    (cut_short / WHOLE).unlink()
    (cut_short / "trainer_state.json").write_text("{")
    continued = run(tmp_path / "killed", 3)
    continued.continue_training()
    assert not cut_short.exists() and continued.state.global_step == 5
    expected = weights_of(undisturbed.unwrapped)
    for name, found in weights_of(continued.unwrapped).items():
        assert torch.equal(found, expected[name]), name
    whole, again = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in (undisturbed, continued))
    assert whole == again
    kept = [path.name for path in checkpoints(tmp_path / "killed")]
    assert kept == ["checkpoint-4", "checkpoint-5"], "one is kept until the loss after the next is known"


def test_dropout_is_on_in_the_test_above(tiny_lm, collator, tmp_path):
    batch = collator(rows_of(collator, 4), 0)
    pair = make_pair(tiny_lm, **DROPOUT)
    assert not torch.equal(pair(batch).total, pair(batch).total)


@pytest.mark.parametrize("other", [{"base_fingerprint": "0" * 64}, {"seed": 12}, {"settings": {"steps": 9}}])
def test_a_checkpoint_of_another_run_is_refused(tiny_lm, collator, tmp_path, other):
    rows, arguments = rows_of(collator, 4), {"max_steps": 1, "save_steps": 1}
    first = make_trainer(make_pair(tiny_lm), collator, tmp_path, rows=rows, arguments=arguments)
    first.continue_training()
    changed = {**first.identity, **other}
    second = make_trainer(make_pair(tiny_lm), collator, tmp_path, rows=rows, arguments=arguments, identity=changed)
    with pytest.raises(CheckpointError, match="checkpoint-1/alignment"):
        second.continue_training()


# Two processes --------------------------------------------------------------------------------------------------------


def train_both_ways(folder: Path, where: Path, batch: int, **more: Any) -> list[list[dict[str, float]]]:
    """What is logged by the plain and by the cached step; `batch` instances a process."""
    collate = make_collator(folder)
    logs = []
    for cached_rows in (0, 3):
        arguments = {"max_steps": 3, "per_device_train_batch_size": batch, "save_steps": 2, **more}
        trainer = make_trainer(
            make_pair(folder),
            collate,
            where / f"{cached_rows}",
            rows=np.arange(20),
            arguments={**arguments, "gradient_accumulation_steps": 2},
            cached_rows=cached_rows,
            held_out=[collate(np.arange(6), 0)],
        )
        trainer.continue_training()
        keys = LOSSES | HEALTH | {"loss", "grad_norm"}
        logs.append([{key: entry[key] for key in keys} for entry in trainer.state.log_history if "loss" in entry])
        logs.append([trainer.health()])
    return logs


def _on_a_rank(rank: int, folder: Path, where: Path) -> None:
    logs = train_both_ways(folder, where, 2, ddp_backend="gloo")
    (where / f"{rank}.json").write_text(json.dumps(logs))


def test_two_processes_train_as_one_with_the_same_global_batch(tiny_lm, tmp_path):
    on_two_processes(_on_a_rank, tiny_lm, tmp_path)
    expected = train_both_ways(tiny_lm, tmp_path / "one", 4)
    for rank in range(2):
        logs = json.loads((tmp_path / f"{rank}.json").read_text())
        for found_log, log in zip(logs, expected, strict=True):
            if rank == 0 or "perplexity" in log[0]:  # the main process logs
                for entry, wanted in zip(found_log, log, strict=True):
                    assert entry == pytest.approx(wanted, rel=2e-3, abs=2e-3)
    assert [path.name for path in checkpoints(tmp_path / "0")] == ["checkpoint-2", "checkpoint-3"]


def test_sharded_training_is_passed_through_and_the_cached_step_refused(tiny_lm, tmp_path, monkeypatch, caplog):
    """As far as that can be seen without GPUs: accelerate shards nowhere else."""
    caplog.set_level(logging.WARNING)
    kind = property(lambda self: DistributedType.FSDP)
    monkeypatch.setattr(Accelerator, "distributed_type", kind)
    pair = make_pair(tiny_lm)
    collate = make_collator(tiny_lm)
    with pytest.raises(ConfigError, match="not under FSDP: set cached_rows: 0"):
        make_trainer(pair, collate, tmp_path, rows=range(8), cached_rows=2)
    trainer = make_trainer(pair, collate, tmp_path, rows=range(8))
    assert "FSDP is passed through, untested" in caplog.text
    assert pair.equal_passes and trainer.args.save_strategy == SaveStrategy.NO


@pytest.mark.parametrize(
    ("kind", "expected"), [(DistributedType.DEEPSPEED, {"scale_wrt_gas": False}), (DistributedType.NO, {})]
)
def test_accumulation_divides_once_under_deepspeed_too(tiny_lm, collator, tmp_path, monkeypatch, kind, expected):
    """DeepSpeed's engine divides by its accumulation steps, unless told that this has been done."""
    trainer = make_trainer(make_pair(tiny_lm), collator, tmp_path, rows=range(8))
    given = []
    monkeypatch.setattr(Accelerator, "distributed_type", property(lambda self: kind))
    monkeypatch.setattr(Accelerator, "backward", lambda self, loss, **options: given.append((loss.item(), options)))
    trainer.current_gradient_accumulation_steps = 4
    item = trainer.data_collator([trainer.train_dataset[k] for k in range(4)])
    share = trainer.training_step(trainer.model, item)
    assert given == [(pytest.approx(share.item()), expected)]
