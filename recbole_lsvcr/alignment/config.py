"""The settings of preference alignment: a preset, a YAML file or a mapping, checked before any work."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recbole_lsvcr.alignment.diversify import DiversifyConfig
from recbole_lsvcr.alignment.losses import AlignmentObjective
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import properties_dir
from recbole_lsvcr.yaml_files import read_yaml

PRESETS = ("cpu-small", "one-gpu-7b", "eight-gpu-7b")


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """What `run_lsvcr.py --stage align` does; the defaults are the paper's.

    Attributes:
        llm: folder or hub name of a causal language model; `corpus`: a small one, trained on the training texts.
        corpus_minutes: minutes of training that small model, when `llm` is `corpus`.
        corpus_steps: its training steps instead of minutes (0: minutes count), for a result that repeats.
        prompts: `en`, `zh`, or a YAML file of another prompt family. chat_template: wrap instructions in the model's.
        precision: `auto`, `float32`, `bfloat16`, `float16`. quantization: `none`, `4bit`, `8bit` (passed through).
        trust_remote_code: allow the model folder to run its own code. gradient_checkpointing: trade time for memory.
        max_history: videos and records the SR model reads. instruction_history: of which the instruction shows so many.
        instruction_tokens, target_tokens, short_text_tokens: longest instruction, target and short text.
        short_text_grad: `full` or `none`: whether short texts send gradients into LoRA.
        text_batch_tokens: tokens of one pass over short texts (0: what suits the device).
        lora_r, lora_alpha, lora_dropout: LoRA. lora_targets: names of linear layers; none: all of attention and FFN.
        lm_weight, sr_weight, contrast_weight: 1, λ and μ of Eq. 16; 0 leaves a loss out.
        ssc, vcc, random_positions: switches of Table 4's ablations, as are the next two.
        diversify_videos, diversify_records: comment diversification of the two histories, with the probabilities that
        an instance (`video_instance`, `record_instance`) and then a step (`video_step`, `record_step`) is diversified.
        temperature: τ. steps: optimiser steps. batch_size: instances of a process at a time, the contrastive batch.
        accumulation: batches a step. cached_rows: instructions in memory at a time in the cached-gradient step (0: the
        plain step). learning_rate, warmup, weight_decay, max_grad_norm: AdamW with linear decay.
        sr_start: what fine-tuning starts from: `aligned` SR weights, or `fresh` ones (the aligned text vectors alone).
        text_mlp: `frozen`: fine-tuning reads its output, stored (the paper's); `trained`: the store holds the aligned
        language model's states, and `text_mlp` goes on learning.
        log_steps, save_steps: every so many steps. eval_instances: held-out instances for the health figures (0: none).
    """

    llm: str = "corpus"
    corpus_minutes: float = 1.0
    corpus_steps: int = 0
    prompts: str = "en"
    chat_template: bool = False
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["none", "4bit", "8bit"] = "none"
    trust_remote_code: bool = False
    gradient_checkpointing: bool = False
    max_history: int = 20
    instruction_history: int = 20
    instruction_tokens: int = 3840
    target_tokens: int = 256
    short_text_tokens: int = 256
    short_text_grad: Literal["full", "none"] = "full"
    text_batch_tokens: int = 0
    lora_r: int = 8
    lora_alpha: float = 32.0
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] | None = None
    lm_weight: float = 1.0
    sr_weight: float = 1.0
    contrast_weight: float = 0.5
    ssc: bool = True
    vcc: bool = True
    diversify_videos: bool = True
    diversify_records: bool = True
    video_instance: float = 0.5
    video_step: float = 0.3
    record_instance: float = 0.5
    record_step: float = 0.3
    random_positions: bool = True
    temperature: float = 0.07
    steps: int = 5000
    batch_size: int = 2
    accumulation: int = 8
    cached_rows: int = 0
    learning_rate: float = 3e-4
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    sr_start: Literal["aligned", "fresh"] = "aligned"
    text_mlp: Literal["frozen", "trained"] = "frozen"
    log_steps: int = 10
    save_steps: int = 100
    eval_instances: int = 512

    def __post_init__(self) -> None:
        for name in ("max_history", "instruction_history", "instruction_tokens", "target_tokens", "short_text_tokens"):
            self._at_least(name, 1)
        for name in ("lora_r", "steps", "batch_size", "accumulation", "log_steps", "save_steps"):
            self._at_least(name, 1)
        for name in ("corpus_steps", "text_batch_tokens", "cached_rows", "eval_instances", "weight_decay"):
            self._at_least(name, 0)
        for name in ("corpus_minutes", "lora_alpha", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"alignment: {name} is {getattr(self, name)!r}; give a number above 0")
        for name in ("lora_dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"alignment: {name} is {getattr(self, name)!r}; give a share from 0 to below 1")
        if self.cached_rows and self.precision == "float16":
            raise ConfigError(
                "alignment: cached_rows does not scale gradients, which float16 needs: set precision to bfloat16 or "
                "float32, or cached_rows to 0"
            )
        self.objective()  # checks the weights
        self.diversification()  # checks the probabilities

    def _at_least(self, name: str, least: int) -> None:
        if not getattr(self, name) >= least:
            raise ConfigError(f"alignment: {name} is {getattr(self, name)!r}; give a number of at least {least}")

    def objective(self) -> AlignmentObjective:
        """Eq. 16 with these weights and switches."""
        return AlignmentObjective(
            lm=self.lm_weight,
            sr=self.sr_weight,
            contrast=self.contrast_weight,
            ssc=self.ssc,
            vcc=self.vcc,
            temperature=self.temperature,
        )

    def diversification(self) -> DiversifyConfig:
        """Comment diversification with these switches and probabilities."""
        return DiversifyConfig(
            videos=self.diversify_videos,
            records=self.diversify_records,
            video_instance=self.video_instance,
            video_step=self.video_step,
            record_instance=self.record_instance,
            record_step=self.record_step,
        )

    def described(self) -> dict[str, Any]:
        """Every setting as plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def load_alignment_config(value: str | Mapping[str, Any]) -> AlignmentConfig:
    """Settings from a preset's name, a YAML file, or a mapping, whose `preset` names what it starts from.

    Raises:
        ConfigError: no such preset or file, an unknown key (with the nearest known one), a value of another type.
    """
    given = dict(value) if isinstance(value, Mapping) else {"preset": value}
    base = given.pop("preset", None)
    settings = {**({} if base is None else _read(base)), **given}
    kinds = typing.get_type_hints(AlignmentConfig)
    for key in settings:
        if key not in kinds:
            raise ConfigError(f"alignment has an unknown key {key!r}; accepted: preset, {', '.join(kinds)}")
    return AlignmentConfig(**{key: _typed(key, value, kinds[key]) for key, value in settings.items()})


def _read(source: Any, leading: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of a preset or file, above those of the preset it names; `leading`: the files that led here."""
    built_in = source in PRESETS
    path = properties_dir() / "alignment" / f"{source}.yaml" if built_in else Path(str(source))
    if not path.is_file():
        raise ConfigError(
            f"alignment is {source!r}, neither a preset ({', '.join(PRESETS)}) nor an existing YAML file; give one "
            "of these, a mapping of settings, or off"
        )
    chain = (*leading, str(path.resolve()))
    if chain[-1] in leading:
        raise ConfigError(
            f"alignment: preset leads from {source} back to it ({' -> '.join(chain)}); name another preset "
            f"({', '.join(PRESETS)}), or none"
        )
    content = read_yaml(path)
    if not content:
        raise ConfigError(f"{source} holds no settings; write `key: value` lines, as the presets do")
    base = content.pop("preset", None)
    return {**({} if base is None else _read(base, chain)), **content}


def _typed(key: str, value: Any, kind: Any) -> Any:
    """`value` as the type of its field; whole numbers do for fractions, nothing else is converted."""
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else None
    if choices is not None:
        if value not in choices:
            raise ConfigError(f"alignment: {key} is {value!r}; accepted: {', '.join(map(str, choices))}")
        return value
    if isinstance(kind, types.UnionType):  # names or nothing
        names = [value] if isinstance(value, str) else value
        if names is None or (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            return None if names is None else tuple(names)
        raise ConfigError(f"alignment: {key} is {value!r}; give a list of names, or nothing")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"alignment: {key} is {value!r}; expected {kind.__name__}")
    return value
