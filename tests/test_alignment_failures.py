"""Alignment that cannot go on: what is said, what is kept, and how the same command continues."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alignment_tiny import (
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

from recbole_lsvcr.alignment import __main__ as command
from recbole_lsvcr.alignment import stage
from recbole_lsvcr.alignment.checkpoint import load_sr_weights
from recbole_lsvcr.alignment.pair import AlignedPair, AlignmentLosses
from recbole_lsvcr.alignment.trainer import AlignmentTrainer, checkpoints
from recbole_lsvcr.errors import AlignmentError, CheckpointError, ConfigError


def test_a_loss_that_is_not_finite_stops_with_the_users_and_keeps_the_last_checkpoint(tiny_lm, collator, tmp_path):
    pair = make_pair(tiny_lm)

    def break_it() -> None:
        with torch.no_grad():
            pair.contrast_adapter.weight.fill_(float("nan"))

    trainer = make_trainer(
        pair,
        collator,
        tmp_path,
        rows=rows_of(collator, 8),
        describe=lambda rows: stage._describe(collator.instances, rows),
        callbacks=[AtStep(4, break_it)],
    )
    told = r"loss is nan at step 4 .*ssc nan.*4 instances, first .*of user 'u\d"
    with pytest.raises(AlignmentError, match=told) as caught:
        trainer.continue_training()
    assert "last good checkpoint is kept" in str(caught.value) and "\n" not in str(caught.value)
    (kept,) = checkpoints(tmp_path)
    assert kept.name == "checkpoint-3"
    assert all(bool(torch.isfinite(value).all()) for value in load_sr_weights(kept / "alignment").values())


def test_a_spoilt_checkpoint_is_not_kept_and_a_lower_rate_goes_on(tiny_lm, collator, tmp_path):
    def spoil(pair: AlignedPair, value: float) -> None:
        with torch.no_grad():
            pair.contrast_adapter.weight.fill_(value)

    def trainer(rate: float, callbacks: list[TrainerCallback] | None = None) -> tuple[AlignedPair, AlignmentTrainer]:
        pair = make_pair(tiny_lm)
        identity = {"base_model": pair.texts.name, "base_fingerprint": pair.texts.fingerprint}
        return pair, make_trainer(
            pair,
            collator,
            tmp_path,
            rows=rows_of(collator, 8),
            arguments={"save_steps": 1, "learning_rate": rate},
            identity={**identity, "settings": {"learning_rate": rate, "steps": 6}},
            callbacks=callbacks,
        )

    pair, first = trainer(1e-2)
    first.add_callback(AtStep(3, lambda: spoil(pair, 3e38)))  # finite, and no loss comes of it
    with pytest.raises(AlignmentError, match="loss is nan at step 3"):
        first.continue_training()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]
    pair, second = trainer(1e-2)
    second.add_callback(AtStep(3, lambda: spoil(pair, float("inf"))))
    with pytest.raises(AlignmentError, match="after step 3 weights are not finite"):
        second.continue_training()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]
    _, third = trainer(6e-3)
    third.continue_training()
    rates = {entry["step"]: entry["learning_rate"] for entry in third.state.log_history if "learning_rate" in entry}
    assert rates[2] == pytest.approx(1e-2 * 5 / 6) and rates[3] == pytest.approx(6e-3 * 4 / 6)
    with pytest.raises(CheckpointError, match="steps is 6 there, 7 here"):
        make_trainer(
            make_pair(tiny_lm),
            collator,
            tmp_path,
            rows=rows_of(collator, 8),
            identity={**third.identity, "settings": {"learning_rate": 6e-3, "steps": 7}},
        ).continue_training()


def fail_at(pair: AlignedPair, number: int) -> AlignedPair:
    """The loss of batch `number` (from 0) is not finite, although its parts are."""
    calls, align = itertools.count(), pair.align

    def failing(*arguments: Any) -> AlignmentLosses:
        losses = align(*arguments)
        return replace(losses, total=losses.total * float("nan")) if next(calls) == number else losses

    pair.align = failing  # type: ignore[method-assign]
    return pair


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


@pytest.mark.parametrize("number", [0, 2])
def test_the_only_checkpoint_goes_when_its_first_step_fails_and_the_run_starts_afresh(
    tiny_lm, collator, tmp_path, number
):
    options = {"rows": rows_of(collator, 8), "arguments": {"save_steps": 2, "max_steps": 3}}
    first = make_trainer(fail_at(make_pair(tiny_lm), number), collator, tmp_path, **options)
    with pytest.raises(AlignmentError, match=f"at step {number} .*no checkpoint is left; .*same command starts afresh"):
        first.continue_training()
    assert not names(tmp_path)
    second = make_trainer(make_pair(tiny_lm), collator, tmp_path, **options)
    second.continue_training()
    assert [entry["step"] for entry in second.state.log_history if "loss" in entry] == [1, 2, 3]


def test_an_older_checkpoint_stays_until_every_batch_of_the_next_step_is_known(tiny_lm, collator, tmp_path):
    arguments = {"save_steps": 1, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    pair = fail_at(make_pair(tiny_lm), 5)  # the second batch after checkpoint-2
    trainer = make_trainer(pair, collator, tmp_path, rows=rows_of(collator, 8), arguments=arguments)
    with pytest.raises(AlignmentError, match=r"at step 2 .*kept \(step 1\)"):
        trainer.continue_training()
    assert names(tmp_path) == ["checkpoint-1"]


@pytest.mark.parametrize("number", [2, 1000], ids=["of a spoilt checkpoint", "of an older checkpoint"])
def test_a_kill_while_a_checkpoint_is_deleted_leaves_none_that_looks_whole(
    tiny_lm, collator, tmp_path, monkeypatch, number
):
    options = {"rows": rows_of(collator, 8), "arguments": {"save_steps": 1, "max_steps": 4}}
    delete = shutil.rmtree

    def dying(path: Any, *arguments: Any, **given: Any) -> None:
        kill() if Path(path).name.startswith("checkpoint-") else delete(path, *arguments, **given)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(shutil, "rmtree", dying)
        make_trainer(fail_at(make_pair(tiny_lm), number), collator, tmp_path, **options).continue_training()
    left = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert left == {"checkpoint-1", "checkpoint-2"} and len(names(tmp_path)) == 1
    make_trainer(make_pair(tiny_lm), collator, tmp_path, **options).continue_training()
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-4"]


# Several processes ----------------------------------------------------------------------------------------------------


def _on_a_rank(rank: int, folder: Path, where: Path) -> None:
    pair = make_pair(folder)
    trainer = make_trainer(
        fail_at(pair, 2) if rank == 1 else pair,
        make_collator(folder),
        where / "run",
        rows=range(20),
        arguments={"save_steps": 1, "per_device_train_batch_size": 2, "ddp_backend": "gloo"},
    )
    try:
        trainer.continue_training()
    except AlignmentError as error:
        (where / f"{rank}.txt").write_text(f"{names(where / 'run')} {error}")


def test_a_loss_that_is_not_finite_in_one_process_stops_all_and_leaves_no_spoilt_checkpoint(tiny_lm, tmp_path):
    on_two_processes(_on_a_rank, tiny_lm, tmp_path)
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert all(text.startswith("['checkpoint-1'] ") and "kept (step 1)" in text for text in told)
    assert "another process than rank 0" in told[0] and "at step 2 in rank 1 (lm" in told[1]


@pytest.mark.parametrize(("error", "printed"), [(AlignmentError("the loss, rank 1"), True), (ConfigError("x"), False)])
def test_what_only_one_process_knows_is_printed_by_it(monkeypatch, capsys, tmp_path, error, printed):
    def fails(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(command, "read_prepared", fails)
    assert command.main([str(tmp_path), "--output", str(tmp_path)]) == 2
    assert (str(error) in capsys.readouterr().err) is printed
