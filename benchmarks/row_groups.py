"""What computing rows of similar length together (`model/groups.py`) gains in LSVCR's training step on real histories.

    python benchmarks/row_groups.py --data dataset/my-data --store runs/stores/my-data --output row_groups.json

Forward and backward of the same batches, with and without the grouping, in turns; the ratio is that of the sums.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from dataset_tools.files import write_json
from recbole_lsvcr.config import load_config
from recbole_lsvcr.environment import machine
from recbole_lsvcr.model import groups
from recbole_lsvcr.pipeline import Run

WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set folder")
    parser.add_argument("--store", type=Path, required=True, help="text store of its titles and comments")
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 50], help="videos and records in a history")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = {}
    for length in options.lengths:
        rows[str(length)] = row = measure(options.data, options.store, length, options.batches)
        print(
            f"histories of {length} ({row['mean_videos']:.1f} videos, {row['mean_records']:.1f} records on average): "
            f"{row['grouped_ms']:.0f} ms grouped, {row['whole_ms']:.0f} ms whole, {row['ratio']:.2f} x"
        )
    if options.output:
        write_json(options.output, {"dataset": options.data.name, "lengths": rows, "environment": machine()})


def measure(data: Path, store: Path, length: int, batches: int) -> dict[str, float]:
    """Milliseconds of a step both ways, at a history length."""
    settings = {
        "dataset": data.name,
        "data_path": str(data.parent),
        "text_store": str(store),
        "output": "unused",  # nothing is written there
        "eval_args": {"split": {"time": [0.8, 0.9]}},
        "MAX_ITEM_LIST_LENGTH": length,
    }
    run = Run(load_config(None, settings))
    train, _, _ = run.loaders
    model = run.trainer().model.train()
    seconds: dict[str, list[float]] = {"grouped": [], "whole": []}
    lengths = []
    for number, batch in enumerate(train):
        if number == batches + WARM_UP:
            break
        for way in seconds:
            model.zero_grad()
            torch.manual_seed(number)
            started = time.perf_counter()
            if way == "grouped":
                sum(model.calculate_loss(batch)).backward()
            else:
                with patch.object(groups, "_groups", lambda videos, records: []):
                    sum(model.calculate_loss(batch)).backward()
            seconds[way].append(time.perf_counter() - started)
        lengths.append((float(batch["item_length"].float().mean()), float(batch["record_length"].float().mean())))
    grouped, whole = (sum(seconds[way][WARM_UP:]) for way in ("grouped", "whole"))
    videos, records = np.mean(lengths, axis=0)
    counted = len(seconds["grouped"]) - WARM_UP
    figures = {
        "grouped_ms": grouped / counted * 1000,
        "whole_ms": whole / counted * 1000,
        "ratio": whole / grouped,
        "mean_videos": float(videos),
        "mean_records": float(records),
        "batch": len(batch),
        "batches": counted,
    }
    return {key: round(value, 2) for key, value in figures.items()}


if __name__ == "__main__":
    main()
