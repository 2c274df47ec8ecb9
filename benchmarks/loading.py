"""How long a data set takes to be opened, the first time and again, in what memory, and how fast batches are drawn.

    python benchmarks/loading.py dataset/mychannel --output benchmarks/results/loading.json

The data set's cache (`<name>.cache/`) is deleted first. Each opening is a process of its own: the tables, the joint
data, one batch of the video task. Peak memory is the process's largest resident set, pages of mapped files included,
which the system may drop at any time (`file_bytes`: how many there were at the end). Then an epoch's training batches
of both tasks are drawn, in random order, for at most --seconds each; comment batches with their lists of 19 negatives.
What the system keeps of the files in memory is left as it is. `cpu_seconds` tell a busy machine from slow code.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports, which are part of an opening

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402

from dataset_tools.files import write_json  # noqa: E402
from recbole_lsvcr.data.comment_negatives import TrainingLists  # noqa: E402
from recbole_lsvcr.data.joint import JointData  # noqa: E402
from recbole_lsvcr.data.tables import Tables  # noqa: E402

SPLIT = {"time": [0.8, 0.9]}
GIGA = 1 << 30


def memory(kind: str) -> int:
    """Bytes of this process: `RssFile`, or `VmHWM`, the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return 1024 * int(line.split()[1])
    return 0


def opening(args: argparse.Namespace) -> dict[str, Any]:
    """One opening in this process; with --epoch also the batches of an epoch."""
    seconds = {"imports": time.perf_counter() - STARTED}
    tables = Tables.load(args.folder, cache=not args.no_cache)
    seconds["tables"] = time.perf_counter() - STARTED - sum(seconds.values())
    data = JointData(tables, split=SPLIT, max_videos=args.length, max_records=args.length)
    seconds["joint"] = time.perf_counter() - STARTED - sum(seconds.values())
    rng = np.random.default_rng(args.seed)
    data.gather("video", rng.choice(data.rows("video", 0), args.batch), training=True, rng=rng)
    seconds["first_batch"] = time.perf_counter() - STARTED - sum(seconds.values())
    found: dict[str, Any] = {
        "seconds": sum(seconds.values()),
        "cpu_seconds": time.process_time(),
        "of_which": seconds,
        "peak_bytes": memory("VmHWM"),
        "file_bytes": memory("RssFile"),
        "load_average": os.getloadavg()[0],
    }
    if args.epoch:
        found["sizes"] = {
            "users": data.n_users - 1,
            "videos": data.n_items - 1,
            "comments": data.n_comments - 1,
            "video_interactions": len(tables.inter_time),
            "comment_interactions": len(tables.cinter_time),
        }
        found["epoch"] = {kind: epoch(data, kind, args, rng) for kind in ("video", "comment")}
        found["peak_bytes_with_epochs"] = memory("VmHWM")
    return found


def epoch(data: JointData, kind: Any, args: argparse.Namespace, rng: np.random.Generator) -> dict[str, Any]:
    """The training batches of one kind, until the epoch or the time ends."""
    start = time.perf_counter()
    lists = TrainingLists(data) if kind == "comment" else None
    prepared = time.perf_counter() - start
    rows = rng.permutation(data.rows(kind, 0))
    start, cpu = time.perf_counter(), time.process_time()
    drawn = 0
    for first in range(0, len(rows), args.batch):
        some = rows[first : first + args.batch]
        data.gather(kind, some, training=True, rng=rng)
        if lists is not None:
            lists.draw(some, rng)
        drawn += len(some)
        if time.perf_counter() - start > args.seconds:
            break
    wall = time.perf_counter() - start
    return {
        "training_instances": len(rows),
        "drawn": drawn,
        "prepared_seconds": prepared,
        "instances_per_second": drawn / wall,
        "instances_per_cpu_second": drawn / (time.process_time() - cpu),
    }


def in_a_process(arguments: list[str]) -> dict[str, Any]:
    """What `opening` finds in a fresh process."""
    command = [sys.executable, __file__, *arguments, "--inside"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="data set folder; its cache is made anew")
    parser.add_argument("--length", type=int, default=50, help="length of both histories (default: 50)")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=60.0, help="at most so long an epoch (default: 60)")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    for hidden in ("--inside", "--epoch", "--no-cache"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        sys.stdout.write(json.dumps(opening(args)))
        return
    folder = args.folder.absolute()
    shutil.rmtree(folder / f"{folder.name}.cache", ignore_errors=True)
    given = [str(folder), *(f"--{name}={getattr(args, name)}" for name in ("length", "batch", "seconds", "seed"))]
    found = {}
    for name, more in (("without_cache", ["--no-cache"]), ("first", []), ("second", []), ("drawing", ["--epoch"])):
        found[name] = in_a_process([*given, *more])
        parts = ", ".join(f"{part} {value:.2f}" for part, value in found[name]["of_which"].items())
        sys.stdout.write(
            f"{name:<14} {found[name]['seconds']:>7.2f} s ({parts}), {found[name]['cpu_seconds']:.2f} s of processor,"
            f" peak {found[name]['peak_bytes'] / GIGA:.2f} GiB, load {found[name]['load_average']:.1f}\n"
        )
        sys.stdout.flush()
    drawing = found.pop("drawing")
    for kind, values in drawing["epoch"].items():
        sys.stdout.write(
            f"{kind}: {values['drawn']:,} of {values['training_instances']:,} instances drawn,"
            f" {values['instances_per_second']:,.0f} a second, {values['instances_per_cpu_second']:,.0f} a second of"
            " processor\n"
        )
    if args.output:
        files = {
            path.name: path.stat().st_size
            for path in sorted(folder.iterdir())
            if path.suffix in (".inter", ".item", ".cinter", ".comment")
        }
        cache = sum(path.stat().st_size for path in (folder / f"{folder.name}.cache").rglob("*"))
        result = {
            "data": folder.name,
            "file_bytes": files,
            "cache_bytes": cache,
            "sizes": drawing["sizes"],
            "machine": {"processor_cores": os.cpu_count(), "numpy": np.__version__, "polars": pl.__version__},
            "arguments": {name: getattr(args, name) for name in ("length", "batch", "seconds", "seed")},
            "openings": found,
            "epoch": drawing["epoch"],
            "peak_bytes_with_epochs": drawing["peak_bytes_with_epochs"],
        }
        write_json(args.output, result)


if __name__ == "__main__":
    main()
