"""What the joint data set costs beside RecBole's `SequentialDataset`: bytes per interaction, and instances per second.

    python benchmarks/joint_memory.py --data dataset/mychannel --output joint_memory.json

Bytes are those of the arrays and tensors that stay in memory while training (texts apart). RecBole's side holds user,
item, time and the histories of both; ours holds, besides, the comment records and what ranks popular comments, and each
of its batches carries them. Without --data the synthetic sample is generated and measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataset_tools.files import write_json
from dataset_tools.sample import generate
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables

SPLIT = {"LS": "valid_and_test"}


def joint(tables: Tables, length: int, batch: int, seconds: float) -> dict[str, float]:
    """Costs of our side at a history length."""
    start = time.perf_counter()
    data = JointData(tables, split=SPLIT, max_videos=length, max_records=length)
    built = time.perf_counter() - start
    parts = data.memory()
    events = sum(
        getattr(tables, f"{kind}_{field}").nbytes
        for kind, fields in (("inter", ("user", "item", "time")), ("cinter", ("user", "item", "comment", "time")))
        for field in fields
    )
    videos = parts["videos"] + parts["timeline"] + tables.inter_user.nbytes * 2 + tables.inter_time.nbytes
    n = len(tables.inter_time)

    def batches() -> Iterator[int]:
        rng = np.random.default_rng(0)
        rows = rng.permutation(data.rows("video", 0))
        for begin in range(0, len(rows), batch):
            yield len(data.gather("video", rows[begin : begin + batch], training=True, rng=rng))

    return {
        "bytes_per_video_interaction": videos / n,
        "bytes_per_interaction_all": (sum(parts.values()) + events) / (n + len(tables.cinter_time)),
        "build_seconds": built,
        **throughput(batches, seconds),
    }


def recbole(folder: Path, length: int, batch: int, seconds: float) -> dict[str, float]:
    """Costs of RecBole's side at a history length."""
    from recbole.config import Config
    from recbole.data.dataloader import TrainDataLoader
    from recbole.data.dataset import SequentialDataset

    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    config = Config(
        model="SASRec",
        dataset=folder.name,
        config_dict={
            "data_path": str(folder.parent),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": length,
            "train_neg_sample_args": None,
            "train_batch_size": batch,
            "eval_args": {"split": SPLIT, "order": "TO", "group_by": "user", "mode": "full"},
            "use_gpu": False,
        },
    )
    dataset = SequentialDataset(config)
    n = len(dataset.inter_feat)
    start = time.perf_counter()
    phases = dataset.build()
    built = time.perf_counter() - start
    held = sum(column.nbytes for phase in phases for column in phase.inter_feat.interaction.values())
    loader = TrainDataLoader(config, phases[0], None, shuffle=True)
    return {
        "bytes_per_video_interaction": held / n,
        "build_seconds": built,
        **throughput(lambda: (len(rows) for rows in loader), seconds),
    }


def throughput(batches: Callable[[], Iterator[int]], seconds: float) -> dict[str, float]:
    """Whole batches made one after the other, through as many epochs as fit into `seconds`."""
    n, spent = 0, []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for size in batches():
            n += size
            spent.append(time.perf_counter() - start)
            start = time.perf_counter()
            if start > end:
                break
    return {"milliseconds_per_batch": 1000 * float(np.median(spent)), "instances_per_second": n / sum(spent)}


def line(name: str, length: int, cost: dict[str, Any]) -> str:
    everything = cost.get("bytes_per_interaction_all")
    return (
        f"{name:<20} {length:>6} {cost['bytes_per_video_interaction']:>12.0f}"
        f" {f'{everything:.0f}' if everything else '-':>12} {cost['build_seconds']:>8.2f}"
        f" {cost['milliseconds_per_batch']:>9.1f} {cost['instances_per_second']:>12,.0f}"
    )


def measure(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per side and length, printed as they come."""
    start = time.perf_counter()
    tables = Tables.load(folder)
    sys.stdout.write(
        f"{tables.name}: {len(tables.inter_time):,} video and {len(tables.cinter_time):,} comment interactions,"
        f" {tables.n_comments - 1:,} comments, loaded in {time.perf_counter() - start:.2f} s; batches of {args.batch}\n"
        f"{'':<20} {'length':>6} {'B/video int.':>12} {'B/int., all':>12} {'build s':>8} {'ms/batch':>9}"
        f" {'instances/s':>12}\n"
    )
    rows = []
    for length in args.lengths:
        for name, side, source in (("joint data set", joint, tables), ("SequentialDataset", recbole, folder)):
            found = side(source, length, args.batch, args.seconds)
            rows.append({"data": name, "length": length, **found})
            sys.stdout.write(line(name, length, found) + "\n")
            sys.stdout.flush()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set folder (default: the synthetic sample, generated)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 50], help="history lengths (default: 20 50)")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on making batches, per row")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data
        if folder is None:
            folder = Path(scratch) / "lsvcr-sample"
            generate(folder)
        rows = measure(folder.absolute(), args)
    if args.output:
        write_json(args.output, {"data": folder.name, "batch": args.batch, "split": SPLIT, "rows": rows})


if __name__ == "__main__":
    main()
