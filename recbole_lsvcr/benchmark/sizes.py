"""The size of a video's vector under each model's own name for it."""

from __future__ import annotations

_EMBEDDING = {"Caser", "GRU4Rec", "NARM", "FM"}


def size_parameters(model: str, size: int) -> dict[str, int]:
    """To be replaced."""
    return {"embedding_size" if model in _EMBEDDING else "hidden_size": size}
