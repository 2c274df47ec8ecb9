"""Evaluation instances per second: one pass for all protocols, against RecBole's loaders, collector and metrics.

    python benchmarks/evaluation.py --output evaluation.json
    python benchmarks/evaluation.py --data dataset/youtube-5core --length 20

Leave-one-out, the same model on both sides: an untrained SASRec of RecBole (what it scores does not change what it
costs), and one that answers at once with fixed numbers, which leaves the cost of loaders, ranking and metrics.
RecBole's `full` and `uni99` modes are a pass each; ours ranks `all+full`, `all+uniform` and `available+period` with
slices in one; batches are equal in instances. The variants take turns, so that other load on the machine hits all of
them; a ratio is the median over turns of the ratio within one turn.
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


class Instant(SASRec):
    """A model whose scores cost nothing."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        scores = torch.rand(1 << 22, generator=torch.Generator().manual_seed(0))
        self.register_buffer("scores", scores, persistent=False)

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Fixed numbers, float32[B, n_items]."""
        return self.scores[: len(interaction) * self.n_items].view(len(interaction), self.n_items).clone()

    def predict(self, interaction: Any) -> torch.Tensor:
        """Fixed numbers, float32[B]."""
        return self.scores[: len(interaction)]


MODELS: dict[str, type[SASRec]] = {"SASRec": SASRec, "instant": Instant}


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


def stock(args: argparse.Namespace, folder: Path, mode: str) -> tuple[dict[str, Timed], int, float]:
    """RecBole's evaluation of the test phase: what to time by model, its instances, the seconds its data took."""
    config = settings(args, folder, mode)
    init_seed(args.seed, True)
    started = time.perf_counter()
    train, _, test = data_preparation(config, create_dataset(config))
    prepared = time.perf_counter() - started

    def timed(model_class: type[SASRec]) -> Timed:
        trainer = Trainer(config, model_class(config, train.dataset).to(config["device"]))

        def run() -> float:
            began = time.perf_counter()
            trainer.evaluate(test, load_best_model=False)
            return time.perf_counter() - began

        return run

    return {name: timed(model_class) for name, model_class in MODELS.items()}, len(test._dataset), prepared


def ours(args: argparse.Namespace, folder: Path, store: Path) -> tuple[dict[str, dict[str, Timed]], int, float]:
    """Our evaluations of the test phase, by protocols and model."""
    config = settings(args, folder, "full")
    init_seed(args.seed, True)
    started = time.perf_counter()
    dataset = JointDataset(config)
    test = dataset.build()[2]
    prepared = time.perf_counter() - started

    def timed(protocols: list[str], model_class: type[SASRec]) -> Timed:
        model = model_class(config, dataset).to(config["device"]).eval()
        scorer = RecBoleScorer(model, dataset, config["device"])
        options: dict[str, Any] = {"candidates_dir": store, "batch_size": args.batch, "slices": len(protocols) > 1}

        def run() -> float:
            began = time.perf_counter()
            evaluate(scorer, dataset.joint, "video", 2, protocols, progress=False, **options).summary()
            return time.perf_counter() - began

        return run

    variants = {
        name: {model: timed(protocols, model_class) for model, model_class in MODELS.items()}
        for name, protocols in PROTOCOLS.items()
    }
    return variants, len(test), prepared


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All variants in turns."""
    with tempfile.TemporaryDirectory() as store:
        variants, instances, prepared = ours(args, folder, Path(store))
        preparation = {"ours: data": prepared}
        for name, mode in ((name, mode) for name, mode in STOCK.items() if mode in args.stock):
            variants[name], count, preparation[f"{name}, data"] = stock(args, folder, mode)
            if count != instances:
                raise SystemExit(f"{name} evaluates {count} instances, ours {instances}: nothing to compare")
        preparation["ours: drawing and storing candidates"] = variants["ours: 3 protocols"]["instant"]()
        runs = {f"{name}, {model}": run for name, models in variants.items() for model, run in models.items()}
        for name, run in runs.items():
            if name != "recbole: uni99, SASRec":  # takes minutes, needs no warm-up
                run()
        turns = [{name: run() for name, run in runs.items()} for _ in range(args.turns)]
    seconds = {name: statistics.median(turn[name] for turn in turns) for name in runs}
    pairs = [(f"{a}, {model}", f"{b}, {model}") for model in MODELS for a, b in RATIOS if b in variants]
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
        "seconds": seconds,
        "instances_per_second": {name: instances / value for name, value in seconds.items()},
        "speed_ratio": {f"{a} / {b}": statistics.median(turn[b] / turn[a] for turn in turns) for a, b in pairs},
        "preparation_seconds": preparation,
    }


def report(found: dict[str, Any]) -> str:
    """The measurements as a table."""
    lines = [
        f"{found['data']}: {found['instances']:,} test instances, batch {found['batch']}, histories of "
        f"{found['length']}, {found['device']}, {found['threads']} threads, median of {found['turns']} turns",
        f"{'':56}{'seconds':>10}{'instances/s':>14}",
    ]
    lines += [
        f"{name:56}{found['seconds'][name]:>10.3f}{found['instances_per_second'][name]:>14,.0f}"
        for name in found["seconds"]
    ]
    lines += [f"{name:56}{ratio:>10.2f} x as fast" for name, ratio in found["speed_ratio"].items()]
    lines += [f"{name:56}{seconds:>10.3f} s once" for name, seconds in found["preparation_seconds"].items()]
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
