"""Hashed n-grams: an encoder without any language model, for machines that have none and as a baseline."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from recbole_lsvcr.errors import ConfigError

SEED = 2024
FEATURES = 2**18
NON_ZEROS = 4


class HashingEncoder:
    """Hashed counts of character n-grams (2 to 4, inside words) and words (1 to 2), projected by a fixed sparse matrix.

    Nothing is fitted, so a text has one vector in every data set. Similar spellings are near, similar meanings are not.

    Args:
        dim: size of the vectors.
    Raises:
        ConfigError: `dim` below 1.
    """

    name = "hashing"

    def __init__(self, *, dim: int = 256) -> None:
        if dim < 1:
            raise ConfigError(f"dim of the hashing encoder is {dim}; give an integer of at least 1")
        from sklearn.feature_extraction.text import HashingVectorizer

        self.dim = dim
        generator = np.random.default_rng(SEED)
        digest = hashlib.sha256(f"char_wb 2-4, word 1-2, {FEATURES} features".encode())
        self._parts = []
        for settings in (
            {"analyzer": "char_wb", "ngram_range": (2, 4)},
            {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\w+"},
        ):
            vectorizer = HashingVectorizer(n_features=FEATURES, dtype=np.float32, **settings)
            projection = _projection(generator, dim)
            # NumPy may change its generators' streams: the fingerprint is of the numbers, not of the seed.
            digest.update(projection.indices.tobytes() + projection.data.tobytes())
            self._parts.append((vectorizer, projection))
        self.fingerprint = digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What identifies the vectors, for a store's manifest."""
        return {
            "encoder": self.name,
            "encoder_fingerprint": self.fingerprint,
            "pooling": "hashed n-grams",
            "max_tokens": None,
            "precision": "float32",
            "language_model": False,
        }

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors of `texts`, float32 [n, dim]."""
        total = np.zeros((len(texts), self.dim), np.float32)
        if texts:
            for vectorizer, projection in self._parts:
                total += (vectorizer.transform(texts) @ projection).toarray()
        return total

    def unknown_share(self, texts: list[str]) -> float:
        """0: every n-gram has its hash."""
        return 0.0


def _projection(generator: np.random.Generator, dim: int) -> Any:
    """A sparse random projection, float32 [FEATURES, dim], that keeps lengths and angles in expectation."""
    from scipy.sparse import csr_matrix

    columns = generator.integers(dim, size=FEATURES * NON_ZEROS, dtype=np.int32)
    signs = generator.integers(2, size=FEATURES * NON_ZEROS, dtype=np.int32) * 2 - 1
    starts = np.arange(FEATURES + 1, dtype=np.int64) * NON_ZEROS
    return csr_matrix((signs.astype(np.float32) / np.float32(NON_ZEROS**0.5), columns, starts), shape=(FEATURES, dim))
