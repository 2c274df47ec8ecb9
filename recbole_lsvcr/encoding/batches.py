"""Batches of texts of like length, bounded by their number of tokens."""

from __future__ import annotations

import numpy as np


def token_batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Split texts into batches of at most `budget` tokens, padding included; a longer text is a batch of its own.

    `lengths`: int[n], tokens per text. The batches hold indices into it, each index once, longest texts first: what
    does not fit in memory fails at once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        end = start + max(1, budget // longest)
        batches.append(order[start:end])
        start = end
    return batches


def cost_chunks(costs: np.ndarray, budget: int) -> np.ndarray:
    """Ends of consecutive chunks of about `budget` of cost each (int64, the last is `len(costs)`); none is empty."""
    if not len(costs):
        return np.zeros(0, np.int64)
    chunk = (np.cumsum(costs) - 1) // budget
    return np.append(np.flatnonzero(np.diff(chunk)) + 1, len(costs)).astype(np.int64)
