"""Alignment that cannot go on: what is said, what is kept, and how the same command continues."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from alignment_tiny import AtStep, make_collator, make_pair, make_trainer, rows_of, save_tiny_lm, small_data
from transformers import TrainerCallback

from recbole_lsvcr.alignment import stage
from recbole_lsvcr.alignment.checkpoint import load_sr_weights
from recbole_lsvcr.alignment.collate import AlignmentCollator
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.alignment.trainer import AlignmentTrainer, checkpoints
from recbole_lsvcr.errors import AlignmentError, CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def collator(folder: Path) -> AlignmentCollator:
    return make_collator(stage.load_causal_lm(folder), small_data())


def test_a_loss_that_is_not_finite_stops_with_the_users_and_keeps_the_last_checkpoint(folder, collator, tmp_path):
    pair = make_pair(folder)

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


def test_a_spoilt_checkpoint_is_not_kept_and_a_lower_rate_goes_on(folder, collator, tmp_path):
    def spoil(pair: AlignedPair, value: float) -> None:
        with torch.no_grad():
            pair.contrast_adapter.weight.fill_(value)

    def trainer(rate: float, callbacks: list[TrainerCallback] | None = None) -> tuple[AlignedPair, AlignmentTrainer]:
        pair = make_pair(folder)
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
            make_pair(folder),
            collator,
            tmp_path,
            rows=rows_of(collator, 8),
            identity={**third.identity, "settings": {"learning_rate": 6e-3, "steps": 7}},
        ).continue_training()
