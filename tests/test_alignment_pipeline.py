"""The four stages in a row: alignment changes what is fine-tuned and read, and is not needed to rank."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_lsvcr import pipeline
from recbole_lsvcr.alignment.checkpoint import load_sr_weights
from recbole_lsvcr.config import LSVCRConfig
from recbole_lsvcr.encoding import TextStore
from recbole_lsvcr.errors import CheckpointError, ConfigError

Make = Callable[..., LSVCRConfig]
SETTINGS: dict[str, Any] = {
    "preset": "cpu-small",
    "corpus_steps": 2,
    "instruction_tokens": 256,
    "steps": 3,
    "batch_size": 4,
    "save_steps": 2,
    "log_steps": 1,
    "eval_instances": 8,
}


def test_align_encode_finetune_evaluate(tiny_config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = tiny_config(alignment=SETTINGS, text_max_tokens=40)
    health = pipeline.align(config)
    assert health is not None and {"lm", "sr", "ssc", "vcc", "retrieval", "perplexity"} <= health.keys()
    pipeline.encode(config)
    store = TextStore.open(folder / "text_store")
    assert store.manifest["aligned"] and store.manifest["dim"] == config["text_size"]
    assert store.manifest["max_tokens"] == 40

    weights = load_sr_weights(folder / "alignment" / "aligned")
    run = pipeline.Run(config)
    run.loaders  # noqa: B018  (the phases come before the model)
    start = run.trainer(from_alignment=True).model.sr
    assert start.text_mlp is None
    torch.testing.assert_close(start.text_proj.weight, weights["text_proj.weight"])
    torch.testing.assert_close(
        start.encoder_video[0].state_dict(),
        {
            name.removeprefix("encoder_video.0."): value
            for name, value in weights.items()
            if name.startswith("encoder_video.0.")
        },
    )

    pipeline.finetune(config)
    shutil.rmtree(folder / "alignment")  # the language model is thrown away
    report = pipeline.evaluate(config)
    assert report["phases"]["test"]["protocols"]["all+full"]["instances"] > 0
    whole = pipeline.run(tiny_config(alignment=SETTINGS, text_max_tokens=40, output=str(tmp_path / "again")))
    assert whole is not None and whole["phases"] == report["phases"]


def test_runs_share_an_alignment_and_may_start_afresh(tiny_config: Make, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    first = tiny_config(alignment=SETTINGS, alignment_folder=str(shared))
    pipeline.align(first)
    written = (shared / "aligned" / "alignment.json").stat().st_mtime_ns
    fresh = tiny_config(
        alignment={**SETTINGS, "sr_start": "fresh"}, alignment_folder=str(shared), output=str(tmp_path / "second")
    )
    pipeline.align(fresh)  # finished: what fine-tuning starts from is no other alignment
    assert (shared / "aligned" / "alignment.json").stat().st_mtime_ns == written
    assert not (tmp_path / "second" / "alignment").exists()
    aligned = load_sr_weights(shared / "aligned")["text_proj.weight"]
    starts = []
    for config in (first, fresh):
        pipeline.encode(config)
        run = pipeline.Run(config)
        run.loaders  # noqa: B018
        starts.append(run.trainer(from_alignment=True).model.sr.text_proj.weight)
    torch.testing.assert_close(starts[0], aligned)
    assert not torch.allclose(starts[1], aligned)
    stores = [TextStore.open(Path(config["output"]) / "text_store").vectors() for config in (first, fresh)]
    assert (stores[0] == stores[1]).all()


def test_text_mlp_may_go_on_learning(tiny_config: Make, tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    pipeline.align(tiny_config(alignment=SETTINGS, alignment_folder=shared))
    config = tiny_config(alignment={**SETTINGS, "text_mlp": "trained"}, alignment_folder=shared)
    pipeline.encode(config)
    store = TextStore.open(tmp_path / "run" / "text_store")
    assert not store.manifest["aligned"] and store.manifest["dim"] == 128  # the language model's states
    run = pipeline.Run(config)
    run.loaders  # noqa: B018
    aligned = load_sr_weights(Path(shared) / "aligned")["text_mlp.inner.weight"]
    torch.testing.assert_close(run.trainer(from_alignment=True).model.sr.text_mlp.inner.weight, aligned)
    learnt = torch.load(pipeline.finetune(config).checkpoint, weights_only=True)["state_dict"][
        "sr.text_mlp.inner.weight"
    ]
    assert not torch.allclose(learnt, aligned)


def test_what_is_missing_or_wrong_is_named(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(alignment=SETTINGS)
    with pytest.raises(CheckpointError, match="--stage align"):
        pipeline.encode(config)
    with pytest.raises(ConfigError, match="unknown key 'stepz'"):
        tiny_config(alignment={**SETTINGS, "stepz": 1})
    with pytest.raises(ConfigError, match="neither a preset"):
        tiny_config(alignment="cpu-smal")
    pipeline.align(config)
    with pytest.raises(CheckpointError, match="temperature"):
        pipeline.align(tiny_config(alignment={**SETTINGS, "temperature": 0.1}))
    assert pipeline.align(tiny_config()) is None  # off


def test_several_processes_are_for_alignment_alone(tiny_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="stage all runs in one process, only align in several"):
        pipeline.run(tiny_config(alignment=SETTINGS))


@pytest.mark.parametrize("stage", [pipeline.align, pipeline.encode])
def test_a_missing_package_is_named(tiny_config: Make, monkeypatch: pytest.MonkeyPatch, stage: Any) -> None:
    monkeypatch.delitem(sys.modules, "recbole_lsvcr.alignment.stage", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"needs the package transformers: pip install 'recbole-lsvcr\[llm\]'"):
        stage(tiny_config(alignment=SETTINGS))
