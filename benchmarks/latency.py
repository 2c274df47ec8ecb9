"""Milliseconds from a user to the ranked catalogue, one user at a time: histories gathered, model run, top 10 taken.

    python benchmarks/latency.py --data dataset/my-data --store runs/stores/my-data --output latency.json

The model has its initial weights (speed does not depend on them). Candidate vectors are made once, as in serving.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from dataset_tools.files import write_json
from recbole_lsvcr.config import load_config
from recbole_lsvcr.environment import machine
from recbole_lsvcr.pipeline import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set folder")
    parser.add_argument("--store", type=Path, required=True, help="text store of its titles and comments")
    parser.add_argument("--length", type=int, default=20, help="videos and records in a history")
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    settings = {
        "dataset": options.data.name,
        "data_path": str(options.data.parent),
        "text_store": str(options.store),
        "output": "unused",  # nothing is written there
        "eval_args": {"split": {"time": [0.8, 0.9]}},
        "MAX_ITEM_LIST_LENGTH": options.length,
    }
    run = Run(load_config(None, settings))
    run.dataset._select(run.dataset.joint.rows("video", 2))
    from recbole_lsvcr.model.lsvcr import LSVCR

    model = LSVCR(run.config, run.dataset).eval()
    chosen = np.random.default_rng(0).choice(len(run.dataset), size=options.users + 20)
    times = []
    with torch.no_grad():
        for row in chosen:
            started = time.perf_counter()
            scores = model.full_sort_predict(run.dataset.gather(np.array([row])))
            scores[:, 1:].topk(10)
            times.append(time.perf_counter() - started)
    milliseconds = np.array(times[20:]) * 1000
    found = {f"p{share}": round(float(np.percentile(milliseconds, share)), 2) for share in (50, 90, 99)}
    print(f"{options.data.name}: {run.dataset.item_num - 1:,} videos, histories of {options.length}, {found} ms")
    if options.output:
        write_json(options.output, {"milliseconds": found, "length": options.length, "environment": machine()})


if __name__ == "__main__":
    main()
