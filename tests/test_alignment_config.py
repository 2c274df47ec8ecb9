"""Alignment settings: presets load, and whatever is wrong is named before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recbole_lsvcr.alignment.config import PRESETS, AlignmentConfig, load_alignment_config
from recbole_lsvcr.errors import ConfigError


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_load_and_can_be_changed(preset: str, tmp_path: Path) -> None:
    config = load_alignment_config(preset)
    assert config.described() != AlignmentConfig().described()
    changed = load_alignment_config({"preset": preset, "steps": 7})
    assert changed.steps == 7 and changed.batch_size == config.batch_size
    own = tmp_path / "own.yaml"
    own.write_text(f"preset: {preset}\nssc: false\nlora_targets: [q_proj, v_proj]\nlearning_rate: 1\n", "utf-8")
    read = load_alignment_config(str(own))
    assert "ssc" not in read.objective().weights and read.lora_targets == ("q_proj", "v_proj")
    assert read.learning_rate == 1.0


def test_the_defaults_are_the_papers() -> None:
    config = AlignmentConfig()
    assert config.objective().weights == {"lm": 1.0, "sr": 1.0, "ssc": 0.5, "vcc": 0.5}
    assert (config.lora_r, config.lora_alpha, config.lora_dropout, config.learning_rate) == (8, 32.0, 0.1, 3e-4)
    assert config.batch_size * config.accumulation * 8 == 128  # on eight GPUs


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cpu-smal", "neither a preset"),
        ({"stepz": 1}, "unknown key 'stepz'"),
        ({"steps": "3"}, "steps is '3'; expected int"),
        ({"steps": 0}, "steps is 0; give a number of at least 1"),
        ({"ssc": 1}, "ssc is 1; expected bool"),
        ({"precision": "half"}, "accepted: auto, float32"),
        ({"lora_targets": 3}, "give a list of names"),
        ({"warmup": 1.0}, "a share from 0 to below 1"),
        ({"learning_rate": 0}, "a number above 0"),
        ({"video_step": 2.0}, "video_step"),
        ({"lm_weight": 0, "sr_weight": 0, "contrast_weight": 0}, "switched off"),
        ({"precision": "float16", "cached_rows": 2}, "cached_rows does not scale gradients"),
    ],
)
def test_what_is_wrong_is_named(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_alignment_config(given)


def test_a_file_that_is_no_yaml_or_no_mapping_is_refused(tmp_path: Path) -> None:
    for text, words in (
        (b"a: [", "is not valid YAML"),
        (b"- 1\n", "holds a list"),
        (b"# steps: 3\n", "holds no settings"),
        ("prompts: Prüfung".encode("latin-1"), "cannot read .*give a YAML file in UTF-8"),
    ):
        file = tmp_path / "x.yaml"
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=words) as caught:
            load_alignment_config(str(file))
        assert "x.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_are_read_as_in_the_main_configuration(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("learning_rate: 3e-4\nlora_dropout: 1E-1\n", "utf-8")
    config = load_alignment_config(str(file))
    assert (config.learning_rate, config.lora_dropout) == (3e-4, 0.1)


def test_a_preset_that_leads_back_to_itself_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("preset: y.yaml\nsteps: 3\n", "utf-8")
    Path("y.yaml").write_text("preset: ./x.yaml\n", "utf-8")
    for start in ("x.yaml", {"preset": "y.yaml"}):
        with pytest.raises(ConfigError, match=r"back to it .*x\.yaml.* name another preset \(cpu-small"):
            load_alignment_config(start)
    Path("y.yaml").write_text("preset: cpu-small\nsteps: 4\nlog_steps: 2\n", "utf-8")
    config = load_alignment_config("x.yaml")
    assert (config.steps, config.log_steps, config.batch_size) == (3, 2, 32)


def test_files_are_read_without_recbole(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['recbole'] = None\n"
        "from recbole_lsvcr.alignment.config import load_alignment_config\n"
        "load_alignment_config('cpu-small')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
