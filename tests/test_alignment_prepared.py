"""A prepared folder holds all that alignment and encoding need: nothing is lost, and RecBole is not asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import TINY_ALIGNMENT, Make

from recbole_lsvcr import pipeline
from recbole_lsvcr.alignment.__main__ import main
from recbole_lsvcr.alignment.checkpoint import load_sr_weights
from recbole_lsvcr.alignment.prepared import MANIFEST, read_prepared, write_prepared
from recbole_lsvcr.config import LSVCRConfig
from recbole_lsvcr.encoding import TextStore
from recbole_lsvcr.errors import ConfigError, DataError
from recbole_lsvcr.registry import properties_dir

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = {**TINY_ALIGNMENT, "steps": 2, "lora_targets": ["q_proj", "v_proj"]}


@pytest.fixture
def config(tiny_config: Make) -> LSVCRConfig:
    return tiny_config(alignment=SETTINGS, text_max_tokens=40)


def test_everything_comes_back(config: LSVCRConfig) -> None:
    run = pipeline.Run(config)
    found = read_prepared(run.prepare())
    job = run.alignment
    assert (found.config, found.sr, found.seed) == (job.config, job.sr, job.seed)
    assert found.text["text_max_tokens"] == 40
    assert found.data.split == job.data.split
    for field in dataclasses.fields(job.data.tables):
        there, here = getattr(found.data.tables, field.name), getattr(job.data.tables, field.name)
        if isinstance(here, np.ndarray):
            assert there.dtype == here.dtype
            np.testing.assert_array_equal(there, here, err_msg=field.name)
        elif isinstance(here, pl.Series):
            assert there.name == here.name and there.equals(here), field.name
        elif field.name != "folder":
            assert there == here, field.name
    for kind in ("video", "comment"):
        for phase in range(3):
            np.testing.assert_array_equal(found.data.rows(kind, phase), job.data.rows(kind, phase))


def test_the_texts_of_both_tasks_are_encoded_where_both_were_prepared(tiny_config: Make) -> None:
    videos, both = ("video",), ("video", "comment")
    run = pipeline.Run(tiny_config(alignment=SETTINGS))
    assert read_prepared(run.prepare()).kinds == videos
    found = read_prepared(run.prepare(both))
    assert found.kinds == both
    reached = [found.data.reachable(kinds)[1] for kinds in (videos, both)]
    assert set(reached[0]) < set(reached[1])


def test_a_prompt_family_of_ones_own_comes_along(tiny_config: Make, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    family = (properties_dir() / "prompts" / "en.yaml").read_text("utf-8").replace("A user has", "Somebody has")
    own.write_text(family, "utf-8")
    config = tiny_config(alignment={**SETTINGS, "prompts": str(own)})
    run = pipeline.Run(config)
    prepared = run.prepare()
    away = shutil.move(prepared, tmp_path / "away")
    own.rename(tmp_path / "elsewhere.yaml")
    found = read_prepared(away)
    assert Path(found.config.prompts).read_text("utf-8") == family
    write_prepared(tmp_path / "again", found)
    assert read_prepared(tmp_path / "again").config.prompts == str(tmp_path / "again" / "prompts.yaml")
    assert main([str(away), "--output", str(tmp_path / "there"), "--device", "cpu", "--stage", "align"]) == 0
    (tmp_path / "elsewhere.yaml").rename(
        own
    )  # here the family lies where it lay, and the alignment counts as the run's
    shutil.copytree(tmp_path / "there" / "alignment", Path(config["output"]) / "alignment")
    pipeline.encode(config)
    assert pipeline.Run(config).trainer(from_alignment=True).model.sr.text_mlp is None
    (away / "prompts.yaml").write_text(family.replace("Somebody", "A person"), "utf-8")
    with pytest.raises(DataError, match=r"prompts\.yaml is missing or not the file that was prepared"):
        read_prepared(away)
    own.write_text("video: 1", "utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot be used"):
        pipeline.Run(config).prepare()


def test_it_is_written_without_transformers(config: LSVCRConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "recbole_lsvcr.alignment.stage", raising=False)
    for name in ("transformers", "peft", "safetensors"):
        monkeypatch.setitem(sys.modules, name, None)
    assert (pipeline.Run(config).prepare() / MANIFEST).is_file()


def test_it_gives_the_runs_own_alignment_without_recbole(config: LSVCRConfig, tmp_path: Path) -> None:
    prepared = pipeline.Run(config).prepare()
    away = tmp_path / "away"
    code = f"""
    import sys
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "recbole":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Absent())
    from recbole_lsvcr.alignment.__main__ import main
    sys.exit(main([{str(prepared)!r}, "--output", {str(away)!r}, "--device", "cpu"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pipeline.align(config)
    pipeline.encode(config)
    here = Path(config["output"])
    for name, weight in load_sr_weights(here / "alignment" / "aligned").items():
        np.testing.assert_allclose(load_sr_weights(away / "alignment" / "aligned")[name], weight, atol=1e-6)
    stores = [TextStore.open(folder / "text_store") for folder in (here, away)]
    np.testing.assert_allclose(stores[0].vectors(), stores[1].vectors(), atol=1e-5)
    assert stores[0].manifest["max_tokens"] == stores[1].manifest["max_tokens"] == 40


def test_two_processes_align_and_one_encodes(config: LSVCRConfig, tmp_path: Path) -> None:
    prepared = pipeline.Run(config).prepare()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone"]
    command += ["-m", "recbole_lsvcr.alignment", str(prepared), "--output", str(tmp_path / "two"), "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("parameters trained") == 1  # one of them speaks
    health = json.loads((tmp_path / "two" / "alignment" / "health.json").read_text())
    assert health["log"][-1]["step"] == 2
    assert TextStore.open(tmp_path / "two" / "text_store").manifest["aligned"]


def test_what_is_wrong_is_one_message(
    config: LSVCRConfig, tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="alignment, which is off"):
        pipeline.Run(tiny_config()).prepare()
    prepared = pipeline.Run(config).prepare()
    output = str(tmp_path / "out")
    assert main([str(tmp_path / "nothing"), "--output", output]) == 2
    assert "is no prepared folder" in capsys.readouterr().err
    assert main([str(prepared), "--output", output, "--llm", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main([str(prepared), "--output", output, "--stage", "encode"]) == 2
    assert "--stage align" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        write_prepared(tmp_path / "other", read_prepared(prepared))
    manifest = prepared / MANIFEST
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(DataError, match="another version"):
        read_prepared(prepared)
    manifest.write_text(manifest.read_text().replace('"format": 99', '"format": 1'))
    (prepared / "videos.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"videos\.parquet is missing or not the file"):
        read_prepared(prepared)
