"""Does one model for both tasks help? Two models (`--task both`) against one (`joint: true`), instance by instance.

    python benchmarks/joint_training.py my.yaml --work runs/joint --results docs/results/my-joint --seeds 1 2

`my.yaml` is a configuration of `run_lsvcr.py` without task, seed and output. Each run that is finished is kept as one
small JSON and is not repeated; a killed one continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

from dataset_tools.files import write_json
from recbole_lsvcr import pipeline
from recbole_lsvcr.benchmark.compare import difference
from recbole_lsvcr.environment import machine
from recbole_lsvcr.report import log_to

ARMS = {"two models": False, "one model": True}
RANKINGS = {"video": ("LSVCR", "available+period"), "comment": ("LSVCRComment", "available+uniform")}
METRIC = "ndcg@10"


def run_arm(config: Path, arm: str, seed: int, work: Path, results: Path) -> dict[str, Any]:
    """The reports of both tasks of one run, computed if its JSON is missing."""
    name = f"{arm.replace(' ', '-')}.{seed}"
    file = results / f"{name}.json"
    if file.exists():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    overrides = {"task": "both", "joint": ARMS[arm], "seed": seed, "output": str(work / name)}
    configs = pipeline.load_configs(config, overrides)
    with log_to(configs[0]):
        reports = pipeline.run_tasks(configs)
    histories = {}
    for report in reports:
        history = work / name / report["model"] / "history.json"
        if history.is_file():
            histories[report["task"]] = json.loads(history.read_text(encoding="utf-8"))
    found = {
        "arm": arm,
        "seed": seed,
        "tasks": {report["task"]: report["phases"] for report in reports},
        "epochs": {task: len(one["epochs"]) for task, one in histories.items()},
        "train_seconds": {task: sum(e["train_seconds"] for e in one["epochs"]) for task, one in histories.items()},
        "environment": machine(),
    }
    write_json(file, found)
    return found


def instances(work: Path, arm: str, task: str, seeds: list[int]) -> pl.DataFrame:
    """Every test instance of an arm under the task's ranking."""
    model, protocol = RANKINGS[task]
    folders = [work / f"{arm.replace(' ', '-')}.{seed}" / model for seed in seeds]
    frames = [pl.read_parquet(folder / "instances-test.parquet") for folder in folders]
    return pl.concat(frames, how="diagonal").filter(pl.col("protocol") == protocol)


def main() -> int:
    """Run, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    for seed in options.seeds:
        for arm in ARMS:
            run_arm(options.config, arm, seed, options.work, options.results)
    report: dict[str, Any] = {"metric": METRIC, "seeds": options.seeds}
    for task, (_, protocol) in RANKINGS.items():
        two, one = (instances(options.work, arm, task, options.seeds) for arm in ARMS)
        found = difference(one, two, METRIC)
        means = {arm: float(frame[METRIC].mean()) for arm, frame in zip(ARMS, (two, one), strict=True)}  # type: ignore[arg-type]
        report[task] = {"protocol": protocol, **means, "difference": vars(found)}
        sys.stdout.write(f"{task:8} {protocol:18} {means} one - two: {found} by seed {dict(found.by_seed)}\n")
    write_json(options.results / "comparison.json", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
