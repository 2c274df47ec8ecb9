"""What a benchmark says of its cells while it computes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from recbole_lsvcr.benchmark.cell import Cell

logger = logging.getLogger()


class Progress:
    """A line for every cell, with an estimate of what is left.

    Args:
        expected: cells and trials, at most. jobs: computed side by side.
    """

    def __init__(self, expected: int, jobs: int) -> None:
        self.expected, self.jobs = expected, jobs
        self.finished, self.computed, self.seconds = 0, 0, 0.0
        self._lock = threading.Lock()

    def done(self, cell: Cell, content: Mapping[str, Any], *, trial: bool, seconds: float) -> None:
        """A cell with this content was asked for, and there after `seconds`."""
        with self._lock:
            self.finished += 1
            if seconds >= 1.0:  # else it had been computed before
                self.computed += 1
                self.seconds += seconds
            left = ""
            if self.computed and self.expected > self.finished:
                remaining = (self.expected - self.finished) * self.seconds / self.computed / self.jobs
                left = f"; about {max(1, round(remaining / 60))} min left"
            what = f"{cell.arm}, {'trial' if trial else f'seed {cell.seed}'}"
            logger.info("[%d/%d] %s: %s (%.0f s%s)", self.finished, self.expected, what, _said(content), seconds, left)


def _said(content: Mapping[str, Any]) -> str:
    """A cell's outcome in a few words."""
    if content["status"] != "done":
        return f"FAILED, {content['reason']}"
    training = content["training"]
    score = training["best_valid_score"]
    if score is None:
        return "ranked"
    return f"validation {training['valid_metric']} {score:.4f} at epoch {training['best_epoch']}"
