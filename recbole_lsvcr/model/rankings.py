"""Rankings that learn nothing: popularity, newest video, text similarity. Every table shows them beside the models.

Functions of arrays, importable without RecBole; `trivial.py` makes RecBole models of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def release_order(item_time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The videos' places in order of the time they came to exist.

    Args:
        item_time: float64[n_items], row 0 is padding; -inf where unknown (oldest of all).

    Returns:
        The different times, ascending, float64[T]; and each video's index among them, int64[n_items] (0 for padding).
        Whole numbers stay exact in float32 scores, which times would not.
    """
    moments, order = np.unique(item_time[1:], return_inverse=True)
    return moments, np.concatenate([[0], order])


def newest_scores(order: torch.Tensor, moments: np.ndarray, times: np.ndarray) -> torch.Tensor:
    """Newest existing video first; videos that do not exist yet come last, the latest at the very end.

    Args:
        order: int64[n_items] and moments: float64[T], of `release_order`. times: float64[B], Unix seconds.

    Returns:
        float32[B, n_items]; a video exists at `t` if its time is <= `t`.
    """
    exists = torch.from_numpy(np.searchsorted(moments, times, side="right")).to(order.device)  # [B] moments up to t
    return torch.where(order < exists[:, None], order + 1, -order - 1).float()


def text_similarity(history: torch.Tensor, titles: torch.Tensor) -> torch.Tensor:
    """Cosine of the mean title vector of a history and every title; 0 where either has no text.

    Args:
        history: int64[B, L] video ids, 0-padded; padding and empty titles (zero vectors) do not turn the mean.
        titles: float32[n_items, H], row 0 zero.

    Returns:
        float32[B, n_items].
    """
    mean = titles[history].sum(dim=1)  # [B, H]; the sum has the mean's direction
    return nn.functional.normalize(mean, dim=1) @ nn.functional.normalize(titles, dim=1).T
