"""What one LSVCR training step costs, against itself without L_REG and against RecBole's SASRec.

    python benchmarks/train_step.py --output train_step.json

Forward, backward and AdamW step on random data; every history is full, every id equally likely (the worst case for
projecting distinct texts once). The variants take turns, so that other load on the machine hits all of them; a ratio
is the median over turns of the ratio within one turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor
from tqdm import trange

from dataset_tools.files import write_json
from recbole_lsvcr.model.sr import SRConfig, SRModel
from recbole_lsvcr.model.streams import SRBatch
from recbole_lsvcr.model.video import VideoObjective

# Importing RecBole's sequential models switches autograd's anomaly detection on for the whole process (sine.py does),
# which looks for NaN in every gradient. Both sides are compared without it; a line of its own says what it costs.
torch.autograd.set_detect_anomaly(False)

ALIGNED_SIZE = 256
COMPARED = [
    ("LSVCR", "SASRec (RecBole)"),
    ("SASRec, anomaly detection on", "SASRec (RecBole)"),
    ("LSVCR + REG", "LSVCR"),
    ("LSVCR, raw table", "SASRec (RecBole)"),
    ("LSVCR, raw table + REG", "LSVCR, raw table"),
]
PROFILED = ["SASRec (RecBole)", "LSVCR", "LSVCR + REG"]
Step = Callable[[], float]


def random_batch(args: argparse.Namespace, generator: torch.Generator) -> SRBatch:
    """Full histories; records hold 1 … `record_width` comments; the popular comments are three per video."""

    def ids(top: int, *shape: int) -> Tensor:
        return torch.randint(1, top + 1, shape, generator=generator)

    rows, length, width = args.batch, args.length, args.record_width
    sizes = ids(width, rows, length, 1)
    return SRBatch(
        video_items=ids(args.videos, rows, length),
        video_comments=ids(min(3 * args.videos, args.comments), rows, length),
        video_len=torch.full((rows,), length),
        record_items=ids(args.videos, rows, length),
        record_comments=ids(args.comments, rows, length, width) * (torch.arange(width) < sizes),
        record_len=torch.full((rows,), length),
        target=ids(args.videos, rows),
    )


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5)


def text_tables(args: argparse.Namespace, size: int) -> tuple[Tensor, Tensor]:
    """Frozen vectors of `size` columns for titles and comments, row 0 zero."""
    generator = torch.Generator().manual_seed(args.seed)
    titles = torch.randn(args.videos + 1, size, generator=generator)
    comments = torch.randn(args.comments + 1, size, generator=generator)
    titles[0] = comments[0] = 0.0
    return titles, comments


def lsvcr_step(
    args: argparse.Namespace, batch: SRBatch, tables: tuple[Tensor, Tensor], *, regularization: float
) -> Step:
    """One step of the video task on frozen text tables (of `ALIGNED_SIZE` columns: no text_mlp)."""
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)
    titles, comments = tables
    size = titles.shape[1]
    model = SRModel(
        SRConfig(
            encoder_size=None if size == ALIGNED_SIZE else size, max_positions=args.length, n_items=args.videos + 1
        )
    ).train()
    objective, optimizer = VideoObjective(regularization=regularization), adamw(model)

    def step() -> float:
        optimizer.zero_grad()
        losses = objective(model, batch, titles, comments, generator)
        losses.total.backward()
        optimizer.step()
        return float(losses.total.detach())

    return step


def sasrec_step(args: argparse.Namespace, batch: SRBatch) -> Step:
    """One step of RecBole's SASRec with the sizes of `SRConfig`'s defaults on the batch's video histories."""
    sizes = asdict(SRConfig())
    shared = ["n_layers", "n_heads", "hidden_size", "inner_size", "hidden_dropout_prob", "attn_dropout_prob"]
    shared += ["hidden_act", "layer_norm_eps", "initializer_range"]
    config = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "LIST_SUFFIX": "_list",
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "NEG_PREFIX": "neg_",
        "MAX_ITEM_LIST_LENGTH": args.length,
        "device": torch.device("cpu"),
        "loss_type": "CE",
        **{name: sizes[name] for name in shared},
    }
    torch.manual_seed(args.seed)
    model = SASRec(config, SimpleNamespace(num=lambda field: args.videos + 1)).train()
    optimizer = adamw(model)
    interaction = Interaction(
        {"item_id_list": batch.video_items, "item_length": batch.video_len, "item_id": batch.target}
    )

    def step() -> float:
        optimizer.zero_grad()
        loss = model.calculate_loss(interaction)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def watched(step: Step) -> Step:
    """The step as RecBole runs it: with autograd looking for NaN in every gradient."""

    def run() -> float:
        with torch.autograd.set_detect_anomaly(True):
            return step()

    return run


def take_turns(steps: dict[str, Step], turns: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds per step of every variant, one step of each per turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in trange(warm_up + turns, desc="turns", disable=None):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


# What an operator of the profile is for; the first pattern that its name contains decides.
CATEGORIES = {
    "random numbers": ("bernoulli", "random_", "randperm"),
    "matrix products": ("mm",),
    "softmax and its losses": ("softmax", "nll_loss", "SoftmaxLoss", "amax", "logsumexp"),
    "activation": ("gelu", "erf"),
    "LayerNorm": ("layer_norm",),
    "look-up and its backward": ("embedding", "index", "gather", "scatter", "unique", "sort", "nonzero"),
    "optimiser": ("addcdiv", "addcmul_", "lerp", "sqrt"),
}


def profile(step: Step, steps: int = 3) -> dict[str, float]:
    """Milliseconds of one step by category of operator; the rest is element-wise work and copies."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        for _ in range(steps):
            step()
    milliseconds = dict.fromkeys([*CATEGORIES, "element-wise and copies"], 0.0)
    for event in recorded.key_averages():
        fitting = (name for name, patterns in CATEGORIES.items() if any(part in event.key for part in patterns))
        milliseconds[next(fitting, "element-wise and copies")] += event.self_cpu_time_total / 1000 / steps
    return milliseconds


def machine() -> dict[str, str | int]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--length", type=int, default=50, help="steps of both histories")
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--comments", type=int, default=200_000)
    parser.add_argument("--record-width", type=int, default=2, help="most comments of a record")
    parser.add_argument("--raw-size", type=int, default=384, help="columns of the raw text table (MiniLM: 384)")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None, help="default: PyTorch's choice")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    return parser.parse_args(arguments)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything the report holds."""
    batch = random_batch(args, torch.Generator().manual_seed(args.seed))
    aligned, raw = text_tables(args, ALIGNED_SIZE), text_tables(args, args.raw_size)
    sasrec = sasrec_step(args, batch)
    steps = {
        "SASRec (RecBole)": sasrec,
        "SASRec, anomaly detection on": watched(sasrec),
        "LSVCR": lsvcr_step(args, batch, aligned, regularization=0.0),
        "LSVCR + REG": lsvcr_step(args, batch, aligned, regularization=0.1),
        "LSVCR, raw table": lsvcr_step(args, batch, raw, regularization=0.0),
        "LSVCR, raw table + REG": lsvcr_step(args, batch, raw, regularization=0.1),
    }
    load = os.getloadavg()[0]
    seconds = take_turns(steps, args.turns, args.warm_up)
    return {
        "machine": machine(),
        "load average": {"before": load, "after": os.getloadavg()[0]},
        "arguments": {key: value for key, value in vars(args).items() if key != "output"},
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratios": {f"{name} / {base}": ratio(seconds, name, base) for name, base in COMPARED},
        "profile_milliseconds": {name: profile(steps[name]) for name in PROFILED},
        "seconds": seconds,
    }


def table(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    loads = report["load average"]
    lines = [", ".join(f"{key} {value}" for key, value in report["machine"].items())]
    lines += [f"load average {loads['before']:.1f} before, {loads['after']:.1f} after (one own thread counts 1)", ""]
    lines += [f"{name:52s} {value * 1000:8.0f} ms" for name, value in report["median_seconds"].items()]
    lines += ["", *(f"{name:52s} {value:8.2f} x" for name, value in report["ratios"].items()), ""]
    profiles = report["profile_milliseconds"]
    lines += ["profile, ms per step" + " " * 8 + "".join(f"{name:>20s}" for name in profiles)]
    for category in next(iter(profiles.values())):
        lines += [f"{category:28s}" + "".join(f"{values[category]:20.0f}" for values in profiles.values())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    report = measure(args)
    sys.stdout.write(table(report) + "\n")
    if args.output:
        write_json(args.output, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
