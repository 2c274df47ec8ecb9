"""Causal language models and their tokenizers, from a folder or by name, and LoRA on them for any architecture."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_lsvcr.alignment.states import base_model, check_states
from recbole_lsvcr.encoding.encoders import minilm_folder
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder
from recbole_lsvcr.encoding.pretrained import CAUSES, ModelSource, fingerprint, placement, quiet_transformers
from recbole_lsvcr.errors import CheckpointError, ConfigError, StoreError

logger = logging.getLogger()

QUANTIZATIONS = ("none", "4bit", "8bit")
NO_LIMIT = 1 << 20  # context of a model that states none
HEAD_SEED = 0
INSTALL = "install it (pip install 'recbole-lsvcr[llm]')"


@dataclass(frozen=True)
class LoadedLM:
    """A causal language model, frozen and in evaluation mode, and its tokenizer, which has EOS and a pad token.

    Attributes:
        name: what the user called it. fingerprint: of the files that decide what it computes.
        context: tokens it can read at once. hidden_size: H, of its last hidden state.
    """

    model: Any
    tokenizer: Any
    name: str
    fingerprint: str
    context: int
    hidden_size: int


def load_causal_lm(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    device: str = "cpu",
    precision: str = "auto",
    quantization: str | None = None,
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    min_context: int = 64,
) -> LoadedLM:
    """The causal language model in a folder, or of a hub name (from the local cache where it is).

    An encoder (BERT, RoBERTa, …; `minilm` is the packaged one) is loaded as a decoder, with causal attention; where its
    files hold no language-model head, that is new, the same each time, and the log says so.

    Args:
        name: how it is called in messages and checkpoints; default: `source`.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`. precision: `auto` is bfloat16 on a GPU that has it, else float32.
        quantization: `none`, `4bit` or `8bit`, passed through to bitsandbytes, untested.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        min_context: the fewest tokens that the model must be able to read at once.
    Raises:
        ConfigError: an argument that is not accepted. StoreError: a model that cannot be had or used, and why.
    """
    wanted = ModelSource(
        minilm_folder() if source == "minilm" else str(source),
        name or str(source),
        kind="the language model",
        others=" or minilm",
        install=INSTALL,
    )
    _require("transformers")
    where, dtype = placement(device, precision)
    folder = wanted.folder()
    quantized = _quantized(quantization or "none", where, dtype)
    with quiet_transformers():
        tokenizer = wanted.tokenizer(trust_remote_code)
        model = _load_model(wanted, dtype, trust_remote_code, quantized)
    model = (model if quantized else model.to(where)).requires_grad_(False).eval()
    model.config.use_cache = False
    if gradient_checkpointing:
        _checkpoint_gradients(model, wanted)
    _complete(tokenizer, model, wanted)
    # Encodes one token: a model that gives no states is found here, and so are its real limits.
    probe = LanguageModelEncoder(
        base_model(model), tokenizer, name=wanted.name, fingerprint=fingerprint(folder), max_tokens=NO_LIMIT
    )
    if probe.max_tokens < min_context:
        raise StoreError(
            f"the language model {wanted.name} reads at most {probe.max_tokens} tokens at once, {min_context} are "
            "needed for an instruction and its target; use a model with a longer context, or shorten both"
        )
    check_states(model, probe, wanted)
    return LoadedLM(model, tokenizer, wanted.name, probe.fingerprint, probe.max_tokens, probe.dim)


# --- loading ----------------------------------------------------------------------------------------------------------


def _quantized(quantization: str, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Further arguments of `from_pretrained`."""
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"quantization is {quantization!r}; accepted: {', '.join(QUANTIZATIONS)}")
    if quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"quantization is {quantization}, which needs the package bitsandbytes: install it, or set "
            "quantization: none"
        )
    from transformers import BitsAndBytesConfig

    logger.warning(f"quantization {quantization} is passed through to bitsandbytes and untested")
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantization == "8bit"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _load_model(wanted: ModelSource, dtype: torch.dtype, trust_remote_code: bool, quantized: dict[str, Any]) -> Any:
    try:
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(wanted.source, trust_remote_code=trust_remote_code)
        if getattr(config, "is_encoder_decoder", False):
            raise StoreError(
                f"{wanted.kind} {wanted.name} is an encoder with a decoder ({config.model_type}); "
                "accepted: a causal language model, or an encoder by itself"
            )
        is_encoder = _is_encoder(config)
        if is_encoder:
            config.is_decoder = True
        # A new head is the same in every process and run, and takes nothing from the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(HEAD_SEED)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                wanted.source,
                config=config,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **quantized,
            )
    except (*CAUSES, SafetensorError) as error:
        raise wanted.unusable(error) from error
    model, info = loaded
    missing = set(info["missing_keys"])
    if is_encoder:
        head = {key for key in missing if not key.startswith(f"{model.base_model_prefix}.")}
        missing -= head
        logger.info(f"{wanted.name} is an encoder: loaded as {type(model).__name__} with causal attention")
        if head:
            logger.warning(
                f"the language-model head of {wanted.name} is new ({len(head)} tensors), since its files hold none; "
                "train it: python -m recbole_lsvcr.alignment.corpus_lm --adapt"
            )
    wanted.check_weights(model, missing)
    return model


def _is_encoder(config: Any) -> bool:
    """Whether a configuration is of an architecture made for masked tokens that can be a decoder, and is not yet."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    both = MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys() & MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    return config.model_type in both and getattr(config, "is_decoder", None) is False


def _checkpoint_gradients(model: Any, wanted: ModelSource) -> None:
    # Older releases of transformers know the second name only, newer ones warn about it.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})  # works although nothing before the first LoRA layer has gradients
    except ValueError as error:
        raise ConfigError(
            f"{wanted.kind} {wanted.name} does not support gradient checkpointing; set gradient_checkpointing: false"
        ) from error


def _complete(tokenizer: Any, model: Any, wanted: ModelSource) -> None:
    """Check that the tokenizer belongs to the model, and give it EOS and a pad token where it has none."""
    embedded = model.get_input_embeddings().num_embeddings
    highest = max(tokenizer.get_vocab().values())
    if highest >= embedded:
        raise StoreError(
            f"the tokenizer of {wanted.name} has {highest + 1} tokens, its model only {embedded}: they do not belong "
            "together; save the model's own tokenizer beside it"
        )
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = _end(tokenizer, model.config, wanted)
        logger.info(f"the tokenizer of {wanted.name} has no EOS token: {tokenizer.eos_token} ends a text")
    if tokenizer.pad_token_id is None:
        # Padding is masked by position, never by its id.
        tokenizer.pad_token = tokenizer.eos_token


def _end(tokenizer: Any, config: Any, wanted: ModelSource) -> str:
    """The token that ends a text for a tokenizer without EOS: its separator, or what the model's configuration says."""
    if tokenizer.sep_token is not None:
        return str(tokenizer.sep_token)
    stated = getattr(config, "eos_token_id", None)
    for candidate in stated if isinstance(stated, list) else [stated]:
        # Configurations are full of default ids that are ordinary tokens here: only special ones count.
        if candidate in tokenizer.added_tokens_decoder and tokenizer.added_tokens_decoder[candidate].special:
            return str(tokenizer.added_tokens_decoder[candidate])
    raise StoreError(
        f"the tokenizer of {wanted.name} has no EOS token, so the model cannot learn where a text ends; set one of its "
        "tokens and save it: tokenizer.eos_token = '…'; tokenizer.save_pretrained(folder)"
    )


# --- LoRA -------------------------------------------------------------------------------------------------------------


def add_lora(
    model: Any, *, r: int = 8, alpha: float = 32, dropout: float = 0.1, targets: Sequence[str] | None = None
) -> Any:
    """`model` wrapped by PEFT: low-rank updates of its linear layers, zero at first, are all that is trained.

    `A` is drawn from torch's random numbers: seed them before.

    Args:
        r, alpha, dropout: rank, scale (times 1/r) and dropout of the updates.
        targets: names of linear layers, or ends of names (`q_proj`, `mlp.down_proj`); None: all those of attention and
            feed-forward networks, that is within the repeated blocks, whatever the architecture calls them.
    Raises:
        ConfigError: a value out of range, a name that no linear layer has, a model without repeated blocks, layers that
        PEFT cannot adapt.
    """
    if r < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise ConfigError(
            f"LoRA with r={r}, alpha={alpha}, dropout={dropout}; give r of at least 1, alpha above 0, dropout from 0 "
            "to below 1"
        )
    layers = {name: module for name, module in model.named_modules() if _is_linear(module)}
    chosen = _block_layers(model, layers) if targets is None else _named_layers(layers, targets)
    peft = _peft()
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=chosen,
        fan_in_fan_out=not any(isinstance(layers[name], nn.Linear) for name in chosen),
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            f"LoRA cannot be put on these layers of {type(model).__name__} ({' '.join(str(error).split())}); name "
            f"others in lora_targets: {_patterns(layers)}"
        ) from error


def attach_adapter(model: Any, folder: Path, state: dict[str, Tensor], *, trainable: bool) -> Any:
    """`model` with the LoRA weights `state` of a saved adapter, whose configuration lies in `folder`.

    A model that has LoRA already gets the weights; another one is wrapped first.

    Raises:
        CheckpointError: the adapter has other layers or sizes.
    """
    peft = _peft()
    wrapped = hasattr(model, "get_base_model")
    try:
        if not wrapped:
            config = peft.PeftConfig.from_pretrained(folder)
            config.base_model_name_or_path, config.inference_mode = None, not trainable
            model = peft.get_peft_model(model, config)
        expected = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        differing = shape_differences(expected, state)
        if not differing:
            peft.set_peft_model_state_dict(model, state)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"the adapter in {folder} does not fit the language model: {error}") from error
    if differing:
        if not wrapped:
            model.unload()
        raise CheckpointError(f"the adapter in {folder} does not fit the language model: {differing}")
    return model


def shape_differences(expected: dict[str, Tensor], found: dict[str, Tensor], most: int = 3) -> str:
    """How `found` tensors differ from `expected` ones in name and shape, the first few in words; "" if they do not."""
    differing = [f"{name} is missing" for name in expected.keys() - found.keys()]
    differing += [f"{name} is not expected" for name in found.keys() - expected.keys()]
    differing += [
        f"{name} has shape {list(found[name].shape)}, expected {list(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if expected[name].shape != found[name].shape
    ]
    differing.sort()
    more = f" and {len(differing) - most} more" if len(differing) > most else ""
    return "; ".join(differing[:most]) + more


def _peft() -> Any:
    _require("peft")
    import peft

    return peft


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"language models need the package {package}; {INSTALL}")


def _is_linear(module: nn.Module) -> bool:
    """Linear layers, quantised ones among them, and GPT-2's of its own kind."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _block_layers(model: Any, layers: dict[str, nn.Module]) -> list[str]:
    """Names of the linear layers within the repeated blocks: not the head, embeddings, poolers."""
    stacks = [module for module in base_model(model).modules() if isinstance(module, nn.ModuleList)]
    inside = {id(module) for stack in stacks for module in stack.modules()}
    chosen = [name for name, module in layers.items() if id(module) in inside]
    if not chosen:
        raise ConfigError(
            f"{type(model).__name__} has no repeated blocks with linear layers to adapt; name some in lora_targets: "
            f"{_patterns(layers)}"
        )
    return chosen


def _named_layers(layers: dict[str, nn.Module], targets: Iterable[str]) -> list[str]:
    """Names of the linear layers that the targets name."""
    wanted = list(dict.fromkeys(targets))
    matching = {t: [name for name in layers if name == t or name.endswith(f".{t}")] for t in wanted}
    unknown = [target for target, names in matching.items() if not names]
    if unknown or not wanted:
        raise ConfigError(
            f"lora_targets names no linear layer: {', '.join(unknown) or 'it is empty'}; there are {_patterns(layers)}"
        )
    return [name for name in layers if any(name in names for names in matching.values())]


def _patterns(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in names))
