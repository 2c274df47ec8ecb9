"""The comment task: ranking lists against scoring candidate by candidate, and what a training step costs.

    python benchmarks/comment_evaluation.py --output comment_evaluation.json
    python benchmarks/comment_evaluation.py --comments 100000 --output comment_evaluation_long.json
    python benchmarks/comment_evaluation.py --data dataset/my-data --instances 64

Ranking: the same untrained LSVCRComment and the same stored candidates (`available+uniform`, at most 100), once with
`score_candidates` (histories are encoded once an instance) and once as RecBole evaluates a context-aware model, one row
for every (instance, candidate) through `model.predict`. Histories, ranks and metrics are the same code on both sides,
and the scores must agree to 1e-4. The more candidates a video has, the larger the ratio. Training: forward, backward
and optimiser step on the same instances, 20 candidates each (for RecBole's FM a row each). The variants take turns, so
that other load on the machine hits all of them; a ratio is the median over turns of the ratio within one turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset_tools.files import write_json
from dataset_tools.sample import generate
from recbole_lsvcr.config import load_config
from recbole_lsvcr.data.candidates import CandidateSet, candidate_set
from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.evaluation import evaluate
from recbole_lsvcr.evaluation.metrics import instance_metrics
from recbole_lsvcr.evaluation.ranking import positive_ranks
from recbole_lsvcr.pipeline import Run
from recbole_lsvcr.scorer import CommentScorer

PROTOCOL = Protocol.parse("available+uniform")
MODELS = ("LSVCRComment", "CommentMHA", "FM")
LISTS, PAIRS = "lists", "candidate by candidate"
Score = Callable[[InstanceBatch, Tensor], Tensor]
Timed = Callable[[], float]


class ByCandidate:
    """Scores the candidates of a batch as RecBole does: a row for each, `rows` of them at a time."""

    def __init__(self, model: Any, dataset: JointDataset, rows: int) -> None:
        self.model, self.dataset, self.rows = model, dataset, rows

    def score_candidates(self, batch: InstanceBatch, items: Tensor) -> Tensor:
        """Scores [B, C]; 0 for padding."""
        pairs = self.dataset.pairs(self.dataset.to_interaction(batch), items)
        parts = [pairs[first : first + self.rows] for first in range(0, len(pairs), self.rows)]
        scores = torch.zeros(items.shape)
        scores[items > 0] = torch.cat([self.model.predict(part) for part in parts])
        return scores


def make_run(args: argparse.Namespace, folder: Path, scratch: Path, model: str) -> Run:
    """A run of a model on the folder, its text store made."""
    settings = {
        "model": model,
        "dataset": folder.name,
        "data_path": str(folder.parent),
        "text_encoder": "hashing",
        "text_store": str(scratch / "store"),
        "output": str(scratch / model),
        "eval_args": {"split": {"time": [0.8, 0.9]}},
        "MAX_ITEM_LIST_LENGTH": args.length,
        "train_batch_size": args.batch,
        "use_gpu": False,
        "show_progress": False,
        "seed": args.seed,
    }
    run = Run(load_config(None, settings))
    run.encode()
    return run


def take_turns(variants: dict[str, Timed], turns: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every variant, one run of each per turn."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warm_up + turns):
        for name, run in variants.items():
            spent = run()
            if turn >= warm_up:
                seconds[name].append(spent)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


# ---- ranking ----


@torch.no_grad()
def rank(score: Score, dataset: JointDataset, chosen: CandidateSet, n: int, batch: int) -> tuple[Tensor, float, float]:
    """Scores of the first `n` lists, their mean NDCG@10, and the seconds it took."""
    started = time.perf_counter()
    parts, total = [], 0.0
    for first in range(0, n, batch):
        some = slice(first, min(first + batch, n))
        items = torch.from_numpy(chosen.items[some]).long()
        scores = score(dataset.joint.gather("comment", chosen.rows[some], training=False), items)
        positive = torch.from_numpy(chosen.positive[some])
        ranks = positive_ranks(scores, positive, torch.rand(positive.shape).numpy(), valid=items > 0)
        total += float(instance_metrics(ranks.ranks, ranks.positives, (10,))["ndcg@10"].sum())
        parts.append(torch.where(items > 0, scores, 0.0))
    return torch.cat(parts), total / n, time.perf_counter() - started


def ranking(args: argparse.Namespace, run: Run, candidates: Path) -> dict[str, Any]:
    """Both ways of scoring."""
    test = run.loaders[2].dataset
    model = run.trainer().model.eval()
    chosen = candidate_set(test.joint, "comment", 2, PROTOCOL, seed=args.seed, folder=candidates)
    n = min(args.instances, len(chosen.rows))
    ours = CommentScorer(model, test, torch.device("cpu"))
    ways = {LISTS: ours.score_candidates, PAIRS: ByCandidate(model, test, args.rows).score_candidates}
    scores = {name: rank(score, test, chosen, n, args.batch)[0] for name, score in ways.items()}
    largest = float((scores[LISTS] - scores[PAIRS]).abs().max())
    if largest > 1e-4:
        raise AssertionError(f"the two ways of scoring differ by {largest}")
    seconds = take_turns(
        {name: (lambda score=score: rank(score, test, chosen, n, args.batch)[2]) for name, score in ways.items()},
        args.turns,
    )
    started = time.perf_counter()
    options: dict[str, Any] = {"candidates_dir": candidates, "seed": args.seed, "progress": False}
    evaluate(ours, test.joint, "comment", 2, [PROTOCOL], batch_size=args.batch, **options)
    everything = time.perf_counter() - started
    return {
        "instances": n,
        "mean_candidates": float(chosen.lengths[:n].mean()),
        "largest_difference_of_scores": largest,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "instances_per_second": {name: n / statistics.median(values) for name, values in seconds.items()},
        "speed_ratio": ratio(seconds, PAIRS, LISTS),
        "whole_test_phase": {
            "instances": len(test),
            "seconds": everything,
            "instances_per_second": len(test) / everything,
        },
        "seconds": seconds,
    }


# ---- training ----


def step_of(run: Run, batches: int) -> tuple[Timed, dict[str, Any]]:
    """A training step on the run's batches, one after the other; and what making a batch costs."""
    loader = iter(run.loaders[0])
    made, spent = [], []
    for _ in range(batches):
        started = time.perf_counter()
        made.append(next(loader))
        spent.append(time.perf_counter() - started)
    trainer = run.trainer()
    model, optimizer, count = trainer.model.train(), trainer.optimizer, [0]

    def step() -> float:
        batch = made[count[0] % len(made)]
        count[0] += 1
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        (sum(loss) if isinstance(loss, tuple) else loss).backward()
        optimizer.step()
        return time.perf_counter() - started

    parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return step, {
        "rows": len(made[0]),
        "parameters": parameters,
        "seconds_to_make_a_batch": statistics.median(spent[1:] or spent),
    }


def training(args: argparse.Namespace, runs: dict[str, Run]) -> dict[str, Any]:
    """A step of every model."""
    steps = {name: step_of(run, 4) for name, run in runs.items()}
    # Importing RecBole's sequential models switches autograd's anomaly detection on for the whole process.
    torch.autograd.set_detect_anomaly(False)
    seconds = take_turns({name: step for name, (step, _) in steps.items()}, args.steps, warm_up=2)
    return {
        "batches": {name: about for name, (_, about) in steps.items()},
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratios": {f"{MODELS[0]} / {name}": ratio(seconds, MODELS[0], name) for name in MODELS[1:]},
        "seconds": seconds,
    }


def report(found: dict[str, Any]) -> str:
    """The measurements as a person reads them."""
    ranked, trained = found["ranking"], found["training"]
    whole = ranked["whole_test_phase"]
    lines = [
        f"{found['data']}: {ranked['instances']} instances, {ranked['mean_candidates']:.1f} candidates on average, "
        f"{found['machine']['threads']} threads",
        f"{'':32}{'seconds':>10}{'instances/s':>14}",
        *(
            f"{name:32}{seconds:>10.3f}{ranked['instances_per_second'][name]:>14,.1f}"
            for name, seconds in ranked["median_seconds"].items()
        ),
        f"{'lists are as fast':32}{ranked['speed_ratio']:>10.1f} x; scores differ by at most "
        f"{ranked['largest_difference_of_scores']:.1e}",
        f"{'the whole test phase':32}{whole['seconds']:>10.3f}{whole['instances_per_second']:>14,.1f}",
        f"{'training, ms':32}{'step':>10}{'batch':>14}{'rows':>10}{'parameters':>12}",
    ]
    for name, seconds in trained["median_seconds"].items():
        about = trained["batches"][name]
        lines.append(
            f"{name:32}{1000 * seconds:>10.1f}{1000 * about['seconds_to_make_a_batch']:>14.1f}{about['rows']:>10,}"
            f"{about['parameters']:>12,}"
        )
    lines += [f"{name:32}{value:>10.2f} x" for name, value in trained["ratios"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set folder (default: the synthetic sample, generated)")
    parser.add_argument("--comments", type=int, default=10_000, help="of the generated sample, under 1,000 videos")
    parser.add_argument("--batch", type=int, default=512, help="instances at a time")
    parser.add_argument("--rows", type=int, default=4096, help="(instance, candidate) rows at a time, as in RecBole")
    parser.add_argument("--length", type=int, default=50, help="videos and records in a history")
    parser.add_argument("--instances", type=int, default=512, help="ranked both ways")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        folder = args.data
        if folder is None:
            folder = scratch / "lsvcr-sample"
            generate(folder, seed=args.seed, comments=args.comments)
        runs = {model: make_run(args, folder.resolve(), scratch, model) for model in MODELS}
        found = {
            "data": folder.name,
            "machine": {
                "processor_cores": os.cpu_count(),
                "machine": platform.machine(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "load_average_before": os.getloadavg()[0],
            },
            "arguments": {key: value for key, value in vars(args).items() if key not in ("data", "output")},
            "ranking": ranking(args, runs[MODELS[0]], scratch / "candidates"),
            "training": training(args, runs),
        }
    found["machine"]["load_average_after"] = os.getloadavg()[0]
    sys.stdout.write(report(found))
    if args.output:
        write_json(args.output, found)


if __name__ == "__main__":
    main()
