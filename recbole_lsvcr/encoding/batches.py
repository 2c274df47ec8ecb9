"""Batches of texts of like length, bounded by their number of tokens."""

from __future__ import annotations

import numpy as np


def token_batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Split texts into batches of at most `budget` tokens, padding included, with little of it.

    A text longer than the budget is a batch of its own. Where lengths fall steeply, a batch ends before its padding
    exceeds a sixteenth of the budget: a few more batches cost less than the padding.

    `lengths`: int[n], tokens per text. The batches hold indices into it, each index once, longest texts first: what
    does not fit in memory fails at once.
    """
    order = np.argsort(-lengths, kind="stable")
    falling = lengths[order]
    batches = []
    start = 0
    while start < len(order):
        longest = max(1, int(falling[start]))
        candidates = falling[start : start + max(1, budget // longest)]
        padding = np.cumsum(longest - candidates)  # of a batch that ends here; never falls
        size = max(1, int(np.searchsorted(padding, budget // 16, side="right")))
        batches.append(order[start : start + size])
        start += size
    return batches


def cost_chunks(costs: np.ndarray, budget: int) -> np.ndarray:
    """Ends of consecutive chunks of about `budget` of cost each (int64, the last is `len(costs)`); none is empty."""
    if not len(costs):
        return np.zeros(0, np.int64)
    chunk = (np.cumsum(costs) - 1) // budget
    return np.append(np.flatnonzero(np.diff(chunk)) + 1, len(costs)).astype(np.int64)
