"""What an evaluation of a few instances leaves, without any model: for tests of what is made of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

PERIOD, FULL = "available+period", "all+full"
METRICS = ("recall@10", "ndcg@10", "mrr@10", "mrr")
USERS = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 3, 4, 2])
SLICES = {
    "seen_items": np.arange(24) % 2 == 0,
    "unseen_items": np.arange(24) % 2 == 1,
    "unseen_users": USERS == 3,  # one user
    "no_records": np.zeros(24, bool),
    "history_1-4": np.arange(24) % 3 == 0,
}


def ranked(gain: float, seed: int, hash: str = "abc", rows: int = 24) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The instances of two protocols, metrics scattered about `gain`, and their summary as a cell's JSON has it."""
    frames, summaries = [], {}
    for number, protocol in enumerate((PERIOD, FULL)):
        rng = np.random.default_rng([seed, number, int(gain * 1000)])
        values = {metric: np.clip(gain + rng.normal(0, 0.05, 24), 0, 1) for metric in METRICS}
        frame = pl.DataFrame({"row": np.arange(24), "user": [f"u{user}" for user in USERS], **values, **SLICES})[:rows]
        frames.append(frame.select(pl.lit(protocol).alias("protocol"), pl.all(), pl.lit(seed).alias("seed")))
        parts = {"all": frame, **{name: frame.filter(pl.col(name)) for name in SLICES}}
        figures = {
            name: {
                **{metric: part[metric].mean() for metric in METRICS},
                "instances": part.height,
                "users": part["user"].n_unique(),
            }
            for name, part in parts.items()
        }
        overall = figures.pop("all")
        summaries[protocol] = {
            "metrics": {metric: overall[metric] for metric in METRICS},
            "chance": dict.fromkeys(METRICS, 0.05),
            "instances": rows,
            "users": overall["users"],
            "left_out": 1,
            "too_long": 0,
            "mean_length": 27.5,
            "enough": None if protocol == FULL else 3,
            "candidates_hash": None if protocol == FULL else hash,
            "slices": figures,
        }
    return pl.concat(frames), {"protocols": summaries}
