"""How metrics and slices are called in tables and charts."""

from __future__ import annotations

import re

_METRICS = {
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "hit": "Hit",
    "precision": "Precision",
    "map": "MAP",
    "gauc": "GAUC",
    "itemcoverage": "ItemCoverage",
    "averagepopularity": "AveragePopularity",
    "shannonentropy": "ShannonEntropy",
    "giniindex": "GiniIndex",
    "tailpercentage": "TailPercentage",
}
_SLICES = {"seen_items": "seen videos", "unseen_items": "unseen videos"}  # RecBole's items are videos here


def metric_title(metric: str) -> str:
    """`ndcg@10` -> `NDCG@10`."""
    name, at, cut = metric.partition("@")
    return _METRICS.get(name, name) + at + cut


def slice_title(name: str) -> str:
    """`unseen_items` -> `unseen videos`, `history_1-4` -> `history 1–4`."""
    return _SLICES.get(name, re.sub(r"(?<=\d)-(?=\d)", "–", name.replace("_", " ")))
