"""Loads Hugging Face models as text encoders, from a folder or by name; no other module here imports `transformers`."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dataset_tools.files import sha256_file
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder
from recbole_lsvcr.errors import ConfigError, StoreError

logger = logging.getLogger()

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CAUSES = (OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError, TypeError)
# What decides the vectors; an optimiser's state or a README beside them does not.
FINGERPRINTED = (
    "config.json",
    "tokenizer*.json",
    "*.model",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.py",
)


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    pooling: str = "mean",
    max_tokens: int = 512,
    batch_tokens: int | None = None,
    device: str = "cpu",
    precision: str = "auto",
    trust_remote_code: bool = False,
) -> LanguageModelEncoder:
    """The encoder or causal language model in a folder, or of a hub name (from the local cache where it is).

    Args:
        name: how it is called in messages and manifests; default: `source`.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`. precision: `auto` is bfloat16 on a GPU that has it, else float32.
        (The others: `LanguageModelEncoder`.)
    Raises:
        ConfigError: an argument that is not accepted. StoreError: a model that cannot be had or used, and why.
    """
    name = name or str(source)
    where = _device(device)
    if precision != "auto" and precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; accepted: auto, {', '.join(PRECISIONS)}")
    half = where.type == "cuda" and torch.cuda.is_bf16_supported()
    dtype = PRECISIONS.get(precision, torch.bfloat16 if half else torch.float32)
    source = str(source)
    folder = _folder(source, name)
    with _quiet_transformers():
        tokenizer = _load_tokenizer(source, name, trust_remote_code)
        model = _load_model(source, name, dtype, trust_remote_code)
    return LanguageModelEncoder(
        model.to(where),
        tokenizer,
        name=name,
        fingerprint=fingerprint(folder),
        pooling=pooling,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
    )


def fingerprint(folder: Path) -> str:
    """SHA-256 over the files of a model folder that decide its vectors; where the folder lies does not count."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    files = {path for pattern in FINGERPRINTED for path in folder.glob(pattern)} | set(weights)
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _device(device: str) -> torch.device:
    try:
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise ConfigError(f"device is {device!r}; accepted: auto, cpu, cuda, cuda:0, …") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but this PyTorch sees no GPU; use cpu")
    return where


def _folder(source: str, name: str) -> Path:
    """The folder of a model: the user's own, or the one where the hub's client keeps it."""
    folder = Path(source).expanduser()
    looks_local = folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1
    if not folder.exists() and looks_local:
        raise StoreError(
            f"the text encoder {source} is a folder that does not exist; "
            "give a Hugging Face model folder or name, minilm or hashing"
        )
    if folder.exists():
        if not (folder / "config.json").is_file():
            adapter = (
                " (it is a LoRA adapter: merge it into its base model first)"
                if (folder / "adapter_config.json").is_file()
                else ""
            )
            raise StoreError(
                f"the text encoder {source} has no config.json{adapter}; give a folder written by save_pretrained"
            )
        return folder
    from transformers.utils import cached_file

    logger.info(f"Looking for the text encoder {name} in the local Hugging Face cache and on the hub")
    try:
        return Path(str(cached_file(source, "config.json"))).parent
    except CAUSES as error:
        raise _unusable(name, error) from error


def _load_tokenizer(source: str, name: str, trust_remote_code: bool) -> Any:
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except CAUSES as error:
        raise _unusable(
            name, error, "its tokenizer cannot be loaded; save it beside the model with tokenizer.save_pretrained"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise StoreError(
            f"the text encoder {name} has no tokenizer files; "
            "save the tokenizer beside the model with tokenizer.save_pretrained"
        )
    return tokenizer


def _load_model(source: str, name: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    try:
        from safetensors import SafetensorError
        from transformers import AutoModel

        model, info = AutoModel.from_pretrained(
            source, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (*CAUSES, SafetensorError) as error:
        raise _unusable(name, error) from error
    # A base model read from a checkpoint without a pooler is as meant; anything else missing would stay random.
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise StoreError(
            f"the weights of {name} lack {len(missing)} tensors of {type(model).__name__} ({missing[0]}, …): "
            "they are another model's, or cut short; save the model again"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def _unusable(name: str, error: BaseException, reason: str = "") -> StoreError:
    """One message for what `transformers` says in many."""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, ImportError) and "transformers" in text and "No module" in text:
        return StoreError(
            f"the text encoder {name} needs the package transformers; install it, or use the encoder hashing"
        )
    if "trust_remote_code" in text:
        return StoreError(
            f"the text encoder {name} brings its own Python code; read it, and set trust_remote_code: true to run it"
        )
    if "connect" in text or "offline" in text.lower():
        reason = (
            "it is no folder here, not in the local Hugging Face cache, and the hub cannot be reached; "
            "give a model folder, minilm or hashing"
        )
    if not reason:
        reason, first = first.rstrip("."), "give a whole folder written by save_pretrained, minilm or hashing"
    return StoreError(f"the text encoder {name} cannot be loaded: {reason} ({first})")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the loading reports and bars of `transformers`: what matters in them is checked here."""
    from transformers.utils import logging as hf_logging

    verbosity, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bar:
            hf_logging.enable_progress_bar()
