"""Evaluation instances per second: one pass for all protocols, against RecBole's loaders, collector and metrics.

    python benchmarks/evaluation.py --output evaluation.json
    python benchmarks/evaluation.py --data dataset/youtube-5core --length 20

Leave-one-out, an untrained SASRec of RecBole on both sides (what it scores does not change what it costs), the same
batch size in instances. RecBole's `full` and `uni99` modes are a pass each; ours ranks `all+full`, `all+uniform` and
`available+period` with slices in one. The variants take turns, so that other load on the machine hits all of them; a
ratio is the median over turns of the ratio within one turn. "model only" is the forward pass on batches made before.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender.sasrec import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

from dataset_tools.sample import generate
from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.evaluation import evaluate
from recbole_lsvcr.plugin import hidden_argv
from recbole_lsvcr.scorer import RecBoleScorer

SAMPLED = 100  # candidates per instance under uni99
PROTOCOLS = {
    "ours: all+full": ["all+full"],
    "ours: all+uniform": ["all+uniform"],
    "ours: 3 protocols": ["all+uniform", "all+full", "available+period"],
}
STOCK = {"recbole: full": "full", "recbole: uni99": "uni99"}
RATIOS = [
    ("ours: all+full", "recbole: full"),
    ("ours: all+uniform", "recbole: uni99"),
    ("ours: 3 protocols", "recbole: full"),
    ("ours: 3 protocols", "recbole: uni99"),
]
Timed = Callable[[], float]


def settings(args: argparse.Namespace, folder: Path, mode: str) -> Config:
    """A configuration of the stock SASRec on the folder, leave-one-out."""
    values = {
        "data_path": str(folder.parent),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode},
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": args.length,
        "metrics": ["Recall", "NDCG", "MRR"],
        "topk": [5, 10],
        # RecBole counts rows of (instance, candidate) in sampled evaluation.
        "eval_batch_size": args.batch * (SAMPLED if mode.startswith("uni") else 1),
        "use_gpu": args.device != "cpu",
        "gpu_id": "0",
        "show_progress": False,
        "checkpoint_dir": tempfile.gettempdir(),
        "seed": args.seed,
    }
    with hidden_argv():
        return Config(model="SASRec", dataset=folder.name, config_dict=values)


def stock(args: argparse.Namespace, folder: Path, mode: str) -> tuple[Timed, int, float]:
    """RecBole's evaluation of the test phase: what to time, its instances, and the seconds its data took."""
    config = settings(args, folder, mode)
    init_seed(args.seed, True)
    started = time.perf_counter()
    train, _, test = data_preparation(config, create_dataset(config))
    prepared = time.perf_counter() - started
    trainer = Trainer(config, SASRec(config, train.dataset).to(config["device"]))

    def run() -> float:
        began = time.perf_counter()
        trainer.evaluate(test, load_best_model=False)
        return time.perf_counter() - began

    return run, len(test._dataset), prepared


def ours(args: argparse.Namespace, folder: Path, store: Path) -> tuple[dict[str, Timed], int, float]:
    """Our evaluations of the test phase, and the model alone."""
    config = settings(args, folder, "full")
    init_seed(args.seed, True)
    started = time.perf_counter()
    dataset = JointDataset(config)
    test = dataset.build()[2]
    prepared = time.perf_counter() - started
    model = SASRec(config, dataset).to(config["device"]).eval()
    scorer = RecBoleScorer(model, dataset, config["device"])
    rows = dataset.joint.rows("video", 2)

    def ranking(protocols: list[str]) -> Timed:
        def run() -> float:
            began = time.perf_counter()
            result = evaluate(
                scorer,
                dataset.joint,
                "video",
                2,
                protocols,
                candidates_dir=store,
                batch_size=args.batch,
                slices=len(protocols) > 1,
                progress=False,
            )
            result.summary()
            return time.perf_counter() - began

        return run

    parts = [
        dataset.joint.gather("video", rows[at : at + args.batch], training=False)
        for at in range(0, len(rows), args.batch)
    ]

    @torch.no_grad()
    def model_only() -> float:
        began = time.perf_counter()
        for part in parts:
            scorer.score_full(part)
        return time.perf_counter() - began

    timed = {name: ranking(protocols) for name, protocols in PROTOCOLS.items()}
    return {**timed, "model only": model_only}, len(test), prepared


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All variants in turns."""
    with tempfile.TemporaryDirectory() as store:
        variants, instances, prepared = ours(args, folder, Path(store))
        preparation = {"ours: data": prepared}
        for name, mode in ((name, mode) for name, mode in STOCK.items() if mode in args.stock):
            variants[name], count, preparation[f"{name}, data"] = stock(args, folder, mode)
            if count != instances:
                raise SystemExit(f"{name} evaluates {count} instances, ours {instances}: nothing to compare")
        preparation["ours: candidate sets and a first pass"] = variants["ours: 3 protocols"]()
        for run in variants.values():
            run()  # warm up
        turns = [{name: run() for name, run in variants.items()} for _ in range(args.turns)]
    return {
        "data": folder.name,
        "instances": instances,
        "batch": args.batch,
        "length": args.length,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "turns": args.turns,
        "seconds": {name: statistics.median(turn[name] for turn in turns) for name in variants},
        "instances_per_second": {
            name: instances / statistics.median(turn[name] for turn in turns) for name in variants
        },
        "speed_ratio": {
            f"{a} / {b}": statistics.median(turn[b] / turn[a] for turn in turns) for a, b in RATIOS if b in variants
        },
        "preparation_seconds": preparation,
    }


def report(found: dict[str, Any]) -> str:
    """The measurements as a table."""
    lines = [
        f"{found['data']}: {found['instances']:,} test instances, batch {found['batch']}, histories of "
        f"{found['length']}, {found['device']}, {found['threads']} threads, median of {found['turns']} turns",
        f"{'':42}{'seconds':>10}{'instances/s':>14}",
    ]
    lines += [
        f"{name:42}{found['seconds'][name]:>10.3f}{found['instances_per_second'][name]:>14,.0f}"
        for name in found["seconds"]
    ]
    lines += [f"{name:42}{ratio:>10.2f} x as fast" for name, ratio in found["speed_ratio"].items()]
    lines += [f"{name:42}{seconds:>10.3f} s once" for name, seconds in found["preparation_seconds"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data set folder (default: the synthetic sample)")
    parser.add_argument("--batch", type=int, default=512, help="instances scored at a time")
    parser.add_argument("--length", type=int, default=50, help="videos in a history")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--stock",
        nargs="*",
        choices=tuple(STOCK.values()),
        default=tuple(STOCK.values()),
        help="RecBole's modes to time (uni99 is slow)",
    )
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.data
        if folder is None:
            folder = Path(temporary) / "lsvcr-sample"
            generate(folder, seed=args.seed)
        found = measure(args, folder.resolve())
    sys.stdout.write(report(found))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
