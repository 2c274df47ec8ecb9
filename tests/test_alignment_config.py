"""Alignment settings: presets load, and whatever is wrong is named before any work."""

from __future__ import annotations

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
    for text, words in (("a: [", "is not YAML"), ("- 1\n", "holds no settings")):
        file = tmp_path / "x.yaml"
        file.write_text(text, "utf-8")
        with pytest.raises(ConfigError, match=words):
            load_alignment_config(str(file))
