"""Loads Hugging Face models as text encoders, from a folder or by name; no other module here imports `transformers`."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ModelSource:
    """A Hugging Face model to load, and how messages speak of it.

    Attributes:
        source: its folder or hub name. name: what the user called it.
        kind: what it is to be. others: what could be given instead. install: what to do without `transformers`.
    """

    source: str
    name: str
    kind: str = "the text encoder"
    others: str = ", minilm or hashing"
    install: str = "install it, or use the encoder hashing"

    def folder(self) -> Path:
        """The folder of the model: the user's own, or the one where the hub's client keeps it.

        Raises:
            StoreError: there is none.
        """
        folder = Path(self.source).expanduser()
        looks_local = folder.is_absolute() or self.source.startswith((".", "~")) or self.source.count("/") > 1
        if not folder.exists() and looks_local:
            raise StoreError(
                f"{self.kind} {self.source} is a folder that does not exist; "
                f"give a Hugging Face model folder or name{self.others}"
            )
        if folder.exists():
            if not (folder / "config.json").is_file():
                adapter = (
                    " (it is a LoRA adapter: merge it into its base model first)"
                    if (folder / "adapter_config.json").is_file()
                    else ""
                )
                raise StoreError(
                    f"{self.kind} {self.source} has no config.json{adapter}; give a folder written by save_pretrained"
                )
            return folder
        try:
            from transformers.utils import cached_file

            logger.info(f"Looking for {self.kind} {self.name} in the local Hugging Face cache and on the hub")
            return Path(str(cached_file(self.source, "config.json"))).parent
        except CAUSES as error:
            raise self.unusable(error) from error

    def tokenizer(self, trust_remote_code: bool) -> Any:
        """The model's tokenizer.

        Raises:
            StoreError: it has none, or one that cannot be loaded.
        """
        try:
            from transformers import AutoTokenizer, PreTrainedTokenizerFast
            from transformers.models.auto.tokenization_auto import get_tokenizer_config

            # For some architectures AutoTokenizer takes the family's own tokenizer, with more tokens and other rules,
            # even where the folder says that it holds another one.
            stated = get_tokenizer_config(self.source).get("tokenizer_class")
            loader: Any = PreTrainedTokenizerFast if stated == PreTrainedTokenizerFast.__name__ else AutoTokenizer
            tokenizer = loader.from_pretrained(self.source, trust_remote_code=trust_remote_code)
        except CAUSES as error:
            raise self.unusable(
                error, "its tokenizer cannot be loaded; save it beside the model with tokenizer.save_pretrained"
            ) from error
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise StoreError(
                f"{self.kind} {self.name} has no tokenizer files; "
                "save the tokenizer beside the model with tokenizer.save_pretrained"
            )
        return tokenizer

    def check_weights(self, model: Any, missing: Iterable[str]) -> None:
        """Raise StoreError for weights of `model` that its files lack: they would stay random."""
        lacking = sorted(missing)
        if lacking:
            raise StoreError(
                f"the weights of {self.name} lack {len(lacking)} tensors of {type(model).__name__} ({lacking[0]}, …): "
                "they are another model's, or cut short; save the model again"
            )

    def unusable(self, error: BaseException, reason: str = "") -> StoreError:
        """One message for what `transformers` says in many."""
        text = str(error)
        first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
        if isinstance(error, ImportError) and "transformers" in text and "No module" in text:
            return StoreError(f"{self.kind} {self.name} needs the package transformers; {self.install}")
        if "trust_remote_code" in text:
            return StoreError(
                f"{self.kind} {self.name} brings its own Python code; read it, and set trust_remote_code: true to run "
                "it"
            )
        if "connect" in text or "offline" in text.lower():
            reason = (
                "it is no folder here, not in the local Hugging Face cache, and the hub cannot be reached; "
                f"give a model folder{self.others}"
            )
        if not reason:
            reason, first = first.rstrip("."), f"give a whole folder written by save_pretrained{self.others}"
        return StoreError(f"{self.kind} {self.name} cannot be loaded: {reason} ({first})")


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
    wanted = ModelSource(str(source), name or str(source))
    where, dtype = placement(device, precision)
    folder = wanted.folder()
    with quiet_transformers():
        tokenizer = wanted.tokenizer(trust_remote_code)
        model = _load_model(wanted, dtype, trust_remote_code)
    return LanguageModelEncoder(
        model.to(where),
        tokenizer,
        name=wanted.name,
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


def placement(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """Where a model goes and in which numbers, from the words of the configuration (see `load_pretrained`).

    Raises:
        ConfigError: a word that is not accepted, or a GPU that is not there.
    """
    try:
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise ConfigError(f"device is {device!r}; accepted: auto, cpu, cuda, cuda:0, …") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but this PyTorch sees no GPU; use cpu")
    if precision != "auto" and precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; accepted: auto, {', '.join(PRECISIONS)}")
    half = where.type == "cuda" and torch.cuda.is_bf16_supported()
    return where, PRECISIONS.get(precision, torch.bfloat16 if half else torch.float32)


def _load_model(wanted: ModelSource, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    try:
        from safetensors import SafetensorError
        from transformers import AutoModel

        model, info = AutoModel.from_pretrained(
            wanted.source, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (*CAUSES, SafetensorError) as error:
        raise wanted.unusable(error) from error
    # A base model read from a checkpoint without a pooler is as meant.
    wanted.check_weights(model, [key for key in info["missing_keys"] if "pooler" not in key])
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
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
