"""The four stages in a row: alignment changes what is fine-tuned and read, and is not needed to rank."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, TINY_ALIGNMENT, Make

from recbole_lsvcr import pipeline
from recbole_lsvcr.alignment.checkpoint import load_sr_weights
from recbole_lsvcr.alignment.identity import check_start
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.encoding import TextStore
from recbole_lsvcr.errors import CheckpointError, ConfigError

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = {**TINY_ALIGNMENT, "steps": 3, "save_steps": 2, "log_steps": 1}


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


def test_one_alignment_and_one_store_serve_both_tasks(tiny_config: Make, tmp_path: Path) -> None:
    settings = dict(tiny_config(alignment=SETTINGS, text_max_tokens=40).external_config_dict)
    del settings["model"]
    configs = pipeline.load_configs(None, {**settings, "task": "both", "epochs": 1})
    reports = pipeline.run_tasks(configs)
    assert [report["model"] for report in reports] == ["LSVCR", "LSVCRComment"]
    assert len(list((tmp_path / "run").rglob("aligned"))) == len(list((tmp_path / "run").rglob("manifest.json"))) == 1
    weights = load_sr_weights(tmp_path / "run" / "alignment" / "aligned")
    start = pipeline.Run(configs[1]).trainer(from_alignment=True).model.sr.state_dict()
    for part in ("fusion_comment.attention.projection.weight", "fuse_linear_comment.weight", "text_proj.weight"):
        torch.testing.assert_close(start[part], weights[part])


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


def test_fine_tuning_starts_from_no_alignment_that_was_made_otherwise(tiny_config: Make, tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    config = tiny_config(alignment=SETTINGS, alignment_folder=shared)
    pipeline.align(config)
    pipeline.encode(config)
    later = {"eval_args": {"split": {"time": [0.8, 0.9]}}}  # what is validated on here was trained on there
    for sr_start in ("aligned", "fresh"):
        settings = {**SETTINGS, "sr_start": sr_start}
        for changes, told in (
            (later, r"split is .* there, .* here"),
            ({"hidden_size": 16}, "hidden_size is 8 there, 16 here"),
            ({"record_gap": 600}, "record_gap is .* there, 600.0 here"),
            ({"MAX_RECORD_LIST_LENGTH": 2}, "records is 8 there, 2 here"),
            ({"alignment": {**settings, "temperature": 0.1}}, "temperature is 0.07 there, 0.1 here"),
        ):
            other = tiny_config(**{"alignment": settings, "alignment_folder": shared, **changes})
            with pytest.raises(CheckpointError, match=told) as caught:
                pipeline.finetune(other)
            assert "align and encode with this one" in str(caught.value) and "\n" not in str(caught.value)
    run = pipeline.Run(config)
    job = run._prepared()
    tables = dataclasses.replace(job.data.tables, fingerprint="0" * 64)
    elsewhere = JointData(tables, split=job.data.split, max_videos=8, max_records=8)
    with pytest.raises(CheckpointError, match="data is"):
        check_start(Path(shared) / "aligned", elsewhere, job.config, job.sr)
    # Another seed, dropout, or place of the language model is no reason.
    moved = dataclasses.replace(job.config, llm="/elsewhere/model")
    check_start(Path(shared) / "aligned", job.data, moved, dataclasses.replace(job.sr, hidden_dropout_prob=0.1))
    another = tiny_config(alignment=SETTINGS, alignment_folder=shared, seed=8)
    assert pipeline.Run(another).trainer(from_alignment=True).model.sr.text_mlp is None


def test_fine_tuning_meets_no_text_vectors_of_another_or_no_alignment(tiny_config: Make, tmp_path: Path) -> None:
    config, without = tiny_config(alignment=SETTINGS), {"text_store": str(tmp_path / "without")}
    pipeline.align(config)
    pipeline.encode(config)
    with pytest.raises(CheckpointError, match="were made by an alignment, but alignment is off"):
        pipeline.finetune(tiny_config())
    pipeline.finetune(tiny_config(model="SASRec", epochs=1))  # reads no text
    # Vectors of the same length, of the language model as it was.
    model = str(tmp_path / "run" / "alignment" / "language_model")
    pipeline.encode(tiny_config(text_encoder=model, **without))
    for sr_start in ("aligned", "fresh"):
        with pytest.raises(CheckpointError, match=r"not made by the alignment .* but without any; run --stage encode"):
            pipeline.finetune(tiny_config(alignment={**SETTINGS, "sr_start": sr_start}, **without))
    shutil.rmtree(tmp_path / "run" / "alignment")
    pipeline.align(tiny_config(alignment=SETTINGS, alignment_seed=9))
    with pytest.raises(CheckpointError, match="by an earlier or another one; run --stage encode again"):
        pipeline.finetune(config)


def test_fine_tuning_compares_and_starts_without_transformers_and_peft(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(alignment=SETTINGS)
    pipeline.align(config)
    pipeline.encode(config)
    file = tmp_path / "c.yaml"
    given = {**TINY, "data_path": config["data_path"].removesuffix("/tiny"), "alignment": SETTINGS, "epochs": 1}
    file.write_text(yaml.safe_dump({**given, "output": str(tmp_path / "run")}))
    code = (
        "import sys\n"
        "for name in ('transformers', 'peft'): sys.modules[name] = None\n"
        "import run_lsvcr\n"
        f"command = ['--config', {str(file)!r}, '--stage', 'finetune']\n"
        "print(run_lsvcr.main([*command, '--eval_args={split: {time: [0.8, 0.9]}}']), run_lsvcr.main(command))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.split() == ["2", "0"], done.stderr
    assert "fine-tuning cannot start from the alignment" in done.stderr


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
