"""What the comment task costs with 10^5, 10^6 and 10^7 comments: memory, and seconds per batch and evaluated instance.

    python benchmarks/comment_scale.py --output comment_scale.json
    python benchmarks/comment_scale.py --comments 100000 --turns 3

The data sets are made in memory, in the proportions of KuaiComt (16.4 M comments under 82,452 videos, 34,701 users,
1.0 M comment interactions), with skewed comments per video. The text vectors are random, frozen and float16, and are
read row by row from a memory-mapped file; the model is an untrained SR model of the default sizes. Each size runs in a
process of its own. Peak memory is the process's resident set with the pages of the vectors' file that it has read
(`file_bytes`, which the system may drop at any time). `drawing` candidates is done once and stored; `evaluate` ranks
the stored lists, `whole` all comments of the video where there are at most 1,000.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from dataset_tools.files import write_json
from recbole_lsvcr.data.candidates import candidate_set
from recbole_lsvcr.data.comment_negatives import CHOICES, TrainingLists
from recbole_lsvcr.data.comment_timeline import CommentTimeline
from recbole_lsvcr.data.ids import PAD
from recbole_lsvcr.data.instances import InstanceBatch
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.data.texts import TextVectors
from recbole_lsvcr.evaluation import evaluate
from recbole_lsvcr.model.comment import comment_forward, comment_scores
from recbole_lsvcr.model.sr import SRConfig, SRModel
from recbole_lsvcr.model.streams import SRBatch

SIZE = 256  # of a text vector
PROTOCOL = Protocol.parse("available+uniform")
START, SPAN = 1_696_000_000.0, 35 * 86_400.0  # the weeks of KuaiComt
BLOCK = 1 << 16  # rows of the vectors' file written at a time


# ---- data ----


def generate(comments: int, rng: np.random.Generator) -> Tables:
    """A data set of so many comments: times in order, popular videos with more of everything."""
    users, videos = max(comments * 34_701 // 16_352_904, 50), max(comments * 82_452 // 16_352_904, 50)
    talk, views = comments * 1_002_672 // 16_352_904, comments * 900_000 // 16_352_904
    popularity = 1 / (np.arange(videos) + 50.0)
    popularity = rng.permutation(popularity / popularity.sum())
    item = 1 + np.searchsorted(np.cumsum(popularity), rng.random(comments)).clip(max=videos - 1)
    posted = START + SPAN * rng.random(comments)

    # A comment interaction: a user of skewed activity, a comment of skewed popularity, some time after it was posted.
    chosen = rng.permutation(comments)[(comments * rng.random(talk) ** 3).astype(np.int64)]
    when = posted[chosen] + (START + SPAN - posted[chosen]) * rng.random(talk) ** 2
    order = np.argsort(when, kind="stable")
    chosen, when = chosen[order], when[order]
    watched = 1 + np.searchsorted(np.cumsum(popularity), rng.random(views)).clip(max=videos - 1)
    seen = np.sort(START + SPAN * rng.random(views))

    def skewed(n: int) -> np.ndarray:
        return 1 + (users * rng.random(n) ** 2).astype(np.int64).clip(max=users - 1)

    def tokens(prefix: str, n: int) -> pl.Series:
        return pl.concat([pl.Series([PAD]), prefix + pl.int_range(n, eager=True).cast(pl.String)])

    def texts(prefix: str, n: int) -> pl.Series:
        return pl.concat([pl.Series([""]), prefix + pl.int_range(n, eager=True).cast(pl.String)])

    def padded(values: np.ndarray, padding: float) -> np.ndarray:
        return np.concatenate([np.array([padding], values.dtype), values])

    return Tables(
        name=f"generated-{comments}",
        folder=Path(f"generated-{comments}"),
        fingerprint=f"generated-{comments}",
        users=tokens("u", users),
        items=tokens("v", videos),
        comments=tokens("c", comments),
        titles=texts("the title of video ", videos),
        contents=texts("what somebody wrote in comment ", comments),
        tags=None,
        inter_user=skewed(views).astype(np.int32),
        inter_item=watched.astype(np.int32),
        inter_time=seen,
        cinter_user=skewed(talk).astype(np.int32),
        cinter_item=item[chosen].astype(np.int32),
        cinter_comment=(1 + chosen).astype(np.int32),
        cinter_time=when,
        comment_item=padded(item.astype(np.int32), 0),
        comment_user=np.zeros(comments + 1, np.int32),
        comment_time=padded(posted, -np.inf),
        comment_is_reply=np.zeros(comments + 1, bool),
        item_time=np.full(videos + 1, -np.inf),
    )


def table_bytes(tables: Tables) -> dict[str, int]:
    """Bytes of the tables: numbers and strings."""
    values = list(vars(tables).values())
    return {
        "numbers": sum(value.nbytes for value in values if isinstance(value, np.ndarray)),
        "strings": sum(value.estimated_size() for value in values if isinstance(value, pl.Series)),
    }


def write_vectors(path: Path, rows: int, rng: np.random.Generator) -> None:
    """Random float16 vectors, row 0 zero: one block of them again and again, since only reading is measured."""
    block = rng.standard_normal((BLOCK, SIZE)).astype(np.float16)
    with open(path, "wb") as handle:
        for first in range(0, rows, BLOCK):
            part = block[: rows - first].copy()
            if not first:
                part[0] = 0
            handle.write(part.tobytes())


# ---- measuring ----


def memory(kind: str) -> int:
    """Bytes of this process: `RssFile`, `VmRSS`, or `VmHWM`, the most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return 1024 * int(line.split()[1])
    return 0


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Watch:
    """Seconds and peak memory of the steps of a run, by name."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        forget_peak()
        before, started = memory("VmRSS"), time.perf_counter()
        yield
        seconds, peak = time.perf_counter() - started, memory("VmHWM")
        self.found[name] = {
            "seconds": seconds,
            "peak_bytes": peak,
            "peak_bytes_beyond_start": peak - before,
            "file_bytes": memory("RssFile"),
        }


def median_seconds(work: Callable[[], object], turns: int) -> float:
    """Of several runs, after one that does not count."""
    work()
    seconds = []
    for _ in range(turns):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


class Scorer:
    """What `LSVCRComment` does when it ranks, without RecBole around it."""

    name = "LSVCRComment-like"

    def __init__(self, model: SRModel, texts: TextVectors) -> None:
        self.model, self.texts = model.eval(), texts

    def score_candidates(self, batch: InstanceBatch, items: torch.Tensor) -> torch.Tensor:
        """cos/τ [B, C]."""

        def ids(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values.astype(np.int64))

        inputs = SRBatch(
            video_items=ids(batch.video_items),
            video_comments=ids(batch.video_comments),
            video_len=ids(batch.video_len),
            record_items=ids(batch.record_items),
            record_comments=ids(batch.record_comments),
            record_len=ids(batch.record_len),
        )
        output = comment_forward(self.model, inputs, ids(batch.item), self.texts.titles, self.texts.comments)
        return comment_scores(self.model, output.preference, items, self.texts.comments)


def measure(comments: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything about one size, in this process."""
    torch.manual_seed(args.seed)
    rng, watch = np.random.default_rng(args.seed), Watch()
    with watch.step("generate"):
        tables = generate(comments, rng)
    # As many test instances as are asked for, and the week before them for validation.
    boundary = float(tables.cinter_time[-min(args.instances, len(tables.cinter_time) // 4)])
    with watch.step("JointData"):
        data = JointData(tables, split={"time": [boundary - 7 * 86_400.0, boundary]})
    with watch.step("CommentTimeline"):
        timeline = CommentTimeline(data)
    vectors = np.memmap(folder / "vectors.bin", np.float16, mode="r", shape=(comments + 1, SIZE))
    titles = torch.randn(data.n_items, SIZE)
    texts = TextVectors(titles, np.arange(comments + 1), vectors, aligned=True)
    held = {
        "joint": sum(data.memory().values()),
        "timeline": timeline.touched_users.nbytes * 3,  # the rest is the joint data's
        "vector_rows": texts.comment_rows.nbytes,
    }
    del timeline
    train, draws = data.rows("comment", 0), {}
    for choice in CHOICES:
        with watch.step(f"first draw, {choice}"):
            lists = TrainingLists(
                data, choice=choice, vectors=lambda ids: texts.comments(torch.from_numpy(ids)).numpy()
            )
            lists.draw(rng.choice(train, 512), rng)
        draws[choice] = median_seconds(lambda lists=lists: lists.draw(rng.choice(train, 512), rng), args.turns)
        del lists
    gather = median_seconds(lambda: data.gather("comment", rng.choice(train, 512), training=True, rng=rng), args.turns)

    rows = data.rows("comment", 2)
    with watch.step("drawing candidates"):
        stored = candidate_set(data, "comment", 2, PROTOCOL, seed=args.seed, folder=folder / "candidates")
    model = SRModel(SRConfig(n_items=data.n_items, max_positions=50))
    options: dict[str, Any] = {"candidates_dir": folder / "candidates", "seed": args.seed, "progress": False}
    with watch.step("evaluate"):
        result = evaluate(Scorer(model, texts), data, "comment", 2, [PROTOCOL], **options)
    with watch.step("evaluate again"):
        evaluate(Scorer(model, texts), data, "comment", 2, [PROTOCOL], **options)
    with watch.step("evaluate whole lists"):
        whole = evaluate(Scorer(model, texts), data, "comment", 2, ["available+full"], longest=1000, **options)
    candidates = result.lists[str(PROTOCOL)].ranks.lengths
    full = whole.lists["available+full"]
    sizes = np.bincount(tables.comment_item[1:], minlength=data.n_items)
    ranked = {"evaluate": len(rows), "evaluate again": len(rows), "drawing candidates": len(rows)}
    return {
        "comments": comments,
        "users": data.n_users - 1,
        "videos": data.n_items - 1,
        "comment_interactions": len(tables.cinter_time),
        "video_interactions": len(tables.inter_time),
        "comments_per_video": {"median": float(np.median(sizes[1:])), "most": int(sizes.max())},
        "comments_under_a_test_video": float(sizes[data.comments.item[rows]].mean()),
        "test_instances": len(rows),
        "mean_candidates": float(candidates.mean()),
        "whole_lists": {
            "ranked": len(full.positions),
            "too_long": full.too_long,
            "mean": float(full.ranks.lengths.mean()),
        },
        "candidate_hash": stored.hash,
        "table_bytes": table_bytes(tables),
        "held_bytes": held,
        "held_bytes_per_comment": {name: value / comments for name, value in held.items()},
        "steps": watch.found,
        "milliseconds_per_512": {**{name: 1000 * value for name, value in draws.items()}, "histories": 1000 * gather},
        "milliseconds_per_instance": {
            **{name: 1000 * watch.found[name]["seconds"] / n for name, n in ranked.items()},
            "evaluate whole lists": 1000 * watch.found["evaluate whole lists"]["seconds"] / max(len(full.positions), 1),
        },
        "peak_bytes": max(step["peak_bytes"] for step in watch.found.values()),
        "file_bytes": watch.found["evaluate whole lists"]["file_bytes"],
    }


def line(found: dict[str, Any]) -> str:
    """One size in the table."""
    steps, per_batch, each = found["steps"], found["milliseconds_per_512"], found["milliseconds_per_instance"]
    giga = 1 << 30
    return (
        f"{found['comments']:>12,} {found['peak_bytes'] / giga:>8.2f} {steps['JointData']['seconds']:>9.2f}"
        f" {steps['CommentTimeline']['seconds']:>9.2f} {sum(found['held_bytes_per_comment'].values()):>10.1f}"
        f" {per_batch['uniform']:>9.1f} {per_batch['popular']:>9.1f} {per_batch['hard']:>9.1f}"
        f" {each['drawing candidates']:>9.2f} {each['evaluate']:>9.2f} {each['evaluate again']:>9.2f}"
        f" {each['evaluate whole lists']:>9.2f}"
    )


HEADER = (
    f"{'':>12} {'peak':>8} {'JointData':>9} {'timeline':>9} {'held, B':>10} {'milliseconds per 512 lists':>29}"
    f" {'milliseconds per instance':>39}\n"
    f"{'comments':>12} {'GiB':>8} {'s':>9} {'s':>9} {'/comment':>10} {'uniform':>9} {'popular':>9} {'hard':>9}"
    f" {'drawing':>9} {'evaluate':>9} {'again':>9} {'whole':>9}"
)


def in_a_process(comments: int, args: argparse.Namespace) -> dict[str, Any]:
    """One size with vectors of its own."""
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        write_vectors(Path(scratch) / "vectors.bin", comments + 1, np.random.default_rng(args.seed))
        return measure(comments, args, Path(scratch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comments", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--instances", type=int, default=4000, help="about so many test instances")
    parser.add_argument("--turns", type=int, default=9, help="batches timed per kind of draw")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--scratch", type=Path, help="folder for the vectors (512 bytes a comment; default: temporary)")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    sys.stdout.write(HEADER + "\n")
    rows = []
    for comments in args.comments:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(in_a_process, comments, args).result())
        sys.stdout.write(line(rows[-1]) + "\n")
        sys.stdout.flush()
    if args.output:
        machine = {"processor_cores": os.cpu_count(), "threads": args.threads, "torch": torch.__version__}
        machine["load_average_after"] = os.getloadavg()[0]
        settings = {"instances": args.instances, "turns": args.turns, "seed": args.seed}
        write_json(args.output, {"machine": machine, "arguments": settings, "sizes": rows})


if __name__ == "__main__":
    main()
