"""Checkpoints of alignment: a PEFT adapter, the small trained parts as safetensors, and JSON that says what they are.

A checkpoint is a folder:

- `adapter_config.json`, `adapter_model.safetensors`: LoRA, as PEFT writes it; PEFT alone can load it.
- `alignment.safetensors`: `sr.…` (with `sr.text_mlp.…`) and `contrast_adapter.…`. Reading it needs safetensors only.
- `alignment.json`: format, versions, the base model, settings, and the SHA-256 of the files.

It appears whole or not at all, and takes the place of an older one without a moment at which neither could be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dataset_tools.files import sha256_file, write_json
from recbole_lsvcr import __version__
from recbole_lsvcr.alignment.load import attach_adapter, shape_differences
from recbole_lsvcr.errors import CheckpointError
from recbole_lsvcr.folders import former_folder, replaced_folder

FORMAT = 1
MANIFEST = "alignment.json"
STATE = "alignment.safetensors"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
SR_PREFIX = "sr."
BASE = ("base_model", "base_fingerprint")
AGAIN = "copy it again, use another checkpoint, or align again"


@dataclass(frozen=True)
class Alignment:
    """A checkpoint that was read: the model with its adapter, the other tensors, and what `alignment.json` says."""

    model: Any
    pair_state: dict[str, Tensor]
    description: dict[str, Any]


def save_alignment(
    folder: str | os.PathLike[str],
    *,
    pair_state: Mapping[str, Tensor],
    peft_model: Any,
    description: Mapping[str, Any],
    adapter: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint; only one process may write a folder at a time.

    Args:
        folder: new, empty, or an older checkpoint, which is replaced.
        pair_state: the tensors beside the language model, `sr.…` and `contrast_adapter.…`.
        peft_model: the language model with LoRA. description: plain data, among it `base_model` (its name) and
            `base_fingerprint`. adapter: the state of `peft_model`, where its own holds parts of the weights only.
    Raises:
        ConfigError: a folder that holds something else. OSError, CheckpointError: it cannot be written; an older
        checkpoint is left as it was. ValueError: a description or state without what is named above.
    """
    lacking = [key for key in BASE if key not in description]
    if lacking or not any(name.startswith(SR_PREFIX) for name in pair_state):
        raise ValueError(f"the description lacks {lacking}, or pair_state has no tensor named {SR_PREFIX}…")
    try:
        with replaced_folder(folder, MANIFEST) as temporary:
            # Copies: safetensors refuses tensors that share memory.
            state = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in pair_state.items()}
            save_file(state, temporary / STATE, metadata={"format": "pt"})
            # Embeddings are never changed; looking for that, PEFT would ask the hub.
            whole = {} if adapter is None else {"state_dict": dict(adapter)}
            peft_model.save_pretrained(temporary, save_embedding_layers=False, **whole)
            (temporary / "README.md").unlink(missing_ok=True)  # PEFT's model card, an empty form
            files = {name: sha256_file(temporary / name) for name in (ADAPTER_CONFIG, ADAPTER, STATE)}
            head = {"format": FORMAT, "written_by": f"recbole-lsvcr {__version__}"}
            write_json(temporary / MANIFEST, {**head, **description, "files": files})
    except SafetensorError as error:
        raise CheckpointError(
            f"the checkpoint {folder} cannot be written ({error}); free space or choose another folder"
        ) from error


def load_alignment(
    folder: str | os.PathLike[str],
    model: Any,
    *,
    name: str,
    fingerprint: str,
    pair_shapes: Mapping[str, Tensor] | None = None,
    expect: Mapping[str, Any] | None = None,
    trainable: bool = False,
) -> Alignment:
    """Read a checkpoint and put its adapter into `model`: one with LoRA, or one without, which is wrapped.

    Args:
        model, name, fingerprint: of the base model, as `load_causal_lm` gives them.
        pair_shapes: tensors that `pair_state` must agree with in name and shape.
        expect: keys of the description and the values they must have.
        trainable: whether the adapter of a model that had none is to be trained.
    Raises:
        CheckpointError: no checkpoint, a damaged one, one of another base model, other sizes or other settings: which
        ones is said.
    """
    found, description = _open(folder)
    if description.get("base_fingerprint") != fingerprint:
        raise CheckpointError(
            f"the checkpoint {folder} belongs to the base model {description.get('base_model')} (fingerprint "
            f"{str(description.get('base_fingerprint'))[:12]}…), not to {name} ({fingerprint[:12]}…): give that model "
            "as llm, or align again"
        )
    differing = description_differences(description, expect or {})
    if differing:
        raise CheckpointError(
            f"the checkpoint {folder} is another one: {'; '.join(differing)}; choose another output folder, or go back "
            "to what it was made with"
        )
    state = _tensors(folder, found, description, STATE)
    sizes = "" if pair_shapes is None else shape_differences(dict(pair_shapes), state)
    if sizes:
        raise CheckpointError(f"the checkpoint {folder} has other sizes: {sizes}; set them alike, or align again")
    adapter = _tensors(folder, found, description, ADAPTER)
    _check_file(folder, found, description, ADAPTER_CONFIG)
    return Alignment(attach_adapter(model, found, adapter, trainable=trainable), state, description)


def load_sr_weights(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The aligned SR model (its names without `sr.`), for fine-tuning; needs neither transformers nor peft.

    Raises:
        CheckpointError: no checkpoint, or a damaged one.
    """
    found, description = _open(folder)
    state = _tensors(folder, found, description, STATE)
    return {name.removeprefix(SR_PREFIX): value for name, value in state.items() if name.startswith(SR_PREFIX)}


def description_differences(description: Mapping[str, Any], expect: Mapping[str, Any]) -> list[str]:
    """What a description says otherwise than expected, in words; within settings, each one apart."""
    differing: list[str] = []
    for key, value in json.loads(json.dumps(dict(expect))).items():  # as they come back: tuples as lists
        there = description.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            differing += description_differences(there, value)
        elif there != value:
            said = f"{there!r} there" if key in description else "not told there (an earlier version made it)"
            differing.append(f"{key} is {said}, {value!r} here")
    return differing


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `alignment.json` says.

    Raises:
        CheckpointError: no checkpoint, or one of another format.
    """
    return _open(folder)[1]


# --- reading ----------------------------------------------------------------------------------------------------------


def _open(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Where the checkpoint lies, and its description."""
    found = Path(folder).resolve()
    if not found.exists() and former_folder(found).is_dir():
        found = former_folder(found)  # a process died while it replaced the checkpoint
    if not found.is_dir():
        raise CheckpointError(f"there is no alignment checkpoint {folder}: give the folder of one, or align first")
    try:
        description = json.loads((found / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is no alignment checkpoint (it has no {MANIFEST}): give a folder that alignment wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {folder} has a damaged {MANIFEST} ({error}); {AGAIN}") from error
    if not isinstance(description, dict) or not isinstance(description.get("files"), dict):
        raise CheckpointError(f"{folder} is no alignment checkpoint: its {MANIFEST} is that of something else")
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint {folder} has format {description.get('format')} (written by "
            f"{description.get('written_by')}), this version reads format {FORMAT}; use the version that wrote it"
        )
    return found, description


def _check_file(folder: str | os.PathLike[str], found: Path, description: dict[str, Any], name: str) -> Path:
    path = found / name
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {folder} lacks {name}; {AGAIN}")
    if sha256_file(path) != description["files"].get(name):
        raise CheckpointError(
            f"the checkpoint {folder} is damaged: {name} is cut short or not the file it was written with; {AGAIN}"
        )
    return path


def _tensors(folder: str | os.PathLike[str], found: Path, description: dict[str, Any], name: str) -> dict[str, Tensor]:
    return load_file(_check_file(folder, found, description, name))
