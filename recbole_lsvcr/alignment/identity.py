"""What decides an alignment, as plain data: by it an alignment is continued, encoded with, shared and fine-tuned from.

It is part of a checkpoint's description. Comparing needs neither RecBole nor transformers nor peft.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_tools.files import sha256_file
from recbole_lsvcr.alignment.checkpoint import MANIFEST, description_differences, read_description
from recbole_lsvcr.alignment.config import PRESETS, AlignmentConfig, load_alignment_config
from recbole_lsvcr.alignment.prompts import FAMILIES, PromptFamily
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.errors import CheckpointError
from recbole_lsvcr.model.sr import SRConfig
from recbole_lsvcr.yaml_files import read_yaml

ALIGNED = "aligned"  # the finished alignment, within its folder
# What may differ between a run and the one that continues it: more steps are another learning-rate plan, but these not.
_FREE = {
    "sr_start",
    "text_mlp",
    "log_steps",
    "save_steps",
    "eval_instances",
    "text_batch_tokens",
    "cached_rows",
    "gradient_checkpointing",
}
_TRAINING = ("hidden_dropout_prob", "attn_dropout_prob", "initializer_range")  # of the SR model; not what it computes
_SHOWN = 5  # differences in a message


def identity(data: JointData, config: AlignmentConfig, sr: SRConfig, seed: int) -> dict[str, Any]:
    """What alignments must have in common to be one and the same, but for the language model's fingerprint.

    A prompt family from a file counts by its content, not by where it lies.

    Raises:
        ConfigError: the file of the prompt family cannot be used.
    """
    settings = {key: value for key, value in config.described().items() if key not in _FREE}
    if config.prompts not in FAMILIES:
        PromptFamily.load(config.prompts)  # says what is wrong with it
        settings["prompts"] = f"sha256:{sha256_file(PromptFamily.file(config.prompts))}"
    return {
        "base_model": config.llm,
        "data": data.tables.fingerprint,
        "split": str(data.split),
        "histories": {"record_gap": data.record_gap, "videos": data.max_videos, "records": data.max_records},
        "seed": seed,
        "settings": settings,
        "sr": {key: value for key, value in vars(sr).items() if key not in ("encoder_size", "n_items")},
    }


def files(value: str | Mapping[str, Any]) -> list[Path]:
    """The user's own files in which an alignment's settings and prompts stand; `value`: as for `load_alignment_config`.

    Raises:
        ConfigError: one of them cannot be used.
    """
    config = load_alignment_config(value)
    base = value.get("preset") if isinstance(value, Mapping) else value
    found = []
    while base is not None and base not in PRESETS:
        found.append(Path(base))
        base = read_yaml(found[-1]).get("preset")
    if config.prompts not in FAMILIES:
        PromptFamily.load(config.prompts)
        found.append(PromptFamily.file(config.prompts))
    return found


def refuse_other(folder: str | os.PathLike[str], expected: dict[str, Any]) -> None:
    """Raise CheckpointError for an alignment whose description says otherwise than `expected`; it says what."""
    differing = description_differences(read_description(folder), expected)
    if differing:
        raise CheckpointError(
            f"{folder} holds an alignment made otherwise ({'; '.join(differing[:_SHOWN])}); go back to that "
            "configuration (its seed is alignment_seed), or give another --output or alignment_folder"
        )


def is_finished(folder: str | os.PathLike[str]) -> bool:
    """Whether there is a finished alignment in a folder."""
    return (Path(folder) / MANIFEST).exists()


def seed_of(folder: str | os.PathLike[str]) -> int | None:
    """The seed of the finished alignment in a folder; None: there is none."""
    return int(read_description(folder)["seed"]) if is_finished(folder) else None


def content(folder: str | os.PathLike[str]) -> str:
    """The hashes of a finished alignment's weights, one after another, as its description tells them."""
    files = read_description(folder)["files"]
    return "".join(files[name] for name in sorted(files) if name.endswith(".safetensors"))


def check_texts(folder: str | os.PathLike[str] | None, known: str | None) -> None:
    """Raise CheckpointError for text vectors that another alignment made than fine-tuning is to start from.

    Args:
        folder: of the finished alignment; None: it starts from none. known: `content` of the one that made them; None:
            none did.
    """
    if known == (None if folder is None else content(folder)):
        return
    if folder is None:
        raise CheckpointError(
            "the text vectors were made by an alignment, but alignment is off; switch it on, or run --stage encode "
            "again, into another text_store or after removing the old one"
        )
    other = "without any" if known is None else "by an earlier or another one"
    raise CheckpointError(
        f"the text vectors were not made by the alignment {folder}, but {other}; run --stage encode again, with this "
        "configuration, into another text_store or after removing the old one"
    )


def check_start(folder: str | os.PathLike[str], data: JointData, config: AlignmentConfig, sr: SRConfig) -> None:
    """Raise CheckpointError for an alignment that fine-tuning must not start from, nor from its text vectors: one of
    other data or another split has read what this run validates and tests on.

    The seed may be another one, and so may where the language model lies (`--llm` on another machine).
    """
    wanted = identity(data, config, sr, seed=0)
    settings = {key: value for key, value in wanted["settings"].items() if key != "llm"}
    sizes = {key: value for key, value in wanted["sr"].items() if key not in _TRAINING}
    expected = {**{key: wanted[key] for key in ("data", "split", "histories")}, "settings": settings, "sr": sizes}
    differing = description_differences(read_description(folder), expected)
    if differing:
        raise CheckpointError(
            f"fine-tuning cannot start from the alignment {folder}, which was made otherwise "
            f"({'; '.join(differing[:_SHOWN])}): go back to that configuration, or align and encode with this one, in "
            "another --output or alignment_folder"
        )
