"""What a step of S3Rec's pre-training costs, by how many attribute values there are, against one of its fine-tuning.

    python benchmarks/pretraining_step.py --data dataset/my-data --min-videos 1 5 20 --output pretraining_step.json

RecBole's model makes a list of batch x length x values numbers for every batch, so rare values are what it pays for
(`attribute_min_videos`). Seconds are of the processor, which other load on the machine hardly changes; each count has a
process of its own, whose peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dataset_tools.files import write_json
from recbole_lsvcr.checkpoint import save_checkpoint
from recbole_lsvcr.config import load_config
from recbole_lsvcr.environment import machine
from recbole_lsvcr.pipeline import Run


def timed(trainer: Any, batches: Any, steps: int) -> float:
    """Median of the processor seconds of a step, the first left out."""
    trainer.model.train()
    seconds = []
    for batch in islice(batches, steps + 1):
        started = time.process_time()
        trainer.optimizer.zero_grad()
        trainer.model.calculate_loss(batch).backward()
        trainer.optimizer.step()
        seconds.append(time.process_time() - started)
    return round(statistics.median(seconds[1:]), 2)


def measure(arguments: tuple[Path, int, int, int]) -> dict[str, Any]:
    """Both steps with the values that so many videos have."""
    data, length, min_videos, steps = arguments
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "model": "S3Rec",
            "dataset": data.name,
            "data_path": str(data.parent),
            "output": folder,
            "eval_args": {"split": {"time": [0.8, 0.9]}},
            "MAX_ITEM_LIST_LENGTH": length,
            "attribute_min_videos": min_videos,
            "use_gpu": False,
        }
        run = Run(load_config(None, settings))
        train = run.loaders[0]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        first = run.trainer()
        pretraining = timed(first, train, steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        start = Path(folder, "start.pth")
        save_checkpoint(start, {"state_dict": first.model.state_dict()})
        finetuning = timed(run.trainer(pretrained=start), train, steps)
    return {
        "attribute_min_videos": min_videos,
        "values": first.model.n_features,
        "steps_per_epoch": len(train),
        "pretraining_seconds": pretraining,
        "finetuning_seconds": finetuning,
        "memory_mb": {"before": before, "peak": peak},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set folder")
    parser.add_argument("--length", type=int, default=20, help="videos in a history")
    parser.add_argument("--min-videos", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    plan = [(options.data, options.length, count, options.steps) for count in options.min_videos]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = pool.map(measure, plan, chunksize=1)
    for row in found:
        print(row)
    if options.output:
        content = {"data": options.data.name, "length": options.length, "rows": found, "environment": machine()}
        write_json(options.output, content)


if __name__ == "__main__":
    main()
