"""Differences between the arms of a study, instance by instance, with intervals clustered by user.

    python -m recbole_lsvcr.benchmark.compare plan.yaml --work runs/my-plan --against plain --output differences.json

Every arm (setting and model) of the plan is compared with the one named: the mean difference of a metric over the test
instances both have ranked, means over the seeds both have. The 95 % interval is by USER (`clustered_intervals`):
a user's instances are no independent observations. It speaks of other users, not of other seeds, whose differences
stand beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dataset_tools.files import write_json
from recbole_lsvcr.benchmark.cells import Cell, read_plan
from recbole_lsvcr.benchmark.statistics import clustered_interval
from recbole_lsvcr.benchmark.vocabulary import HEADLINE
from recbole_lsvcr.errors import EvaluationError, LSVCRError

METRIC, PHASE = "ndcg@10", "test"
SLICES = ("all", "seen_items", "unseen_items")


@dataclass(frozen=True)
class Difference:
    """Mean of `metric(arm) - metric(baseline)` over instances, its 95 % interval clustered by user (None where there is
    one user), and by seed."""

    mean: float
    low: float | None
    high: float | None
    by_seed: Mapping[int, float]
    instances: int
    users: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+.4f} (one user: no interval)"
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def difference(arm: pl.DataFrame, baseline: pl.DataFrame, metric: str = METRIC) -> Difference:
    """Compare two frames of instances (columns `seed`, `row`, `user` and the metric) on what both hold.

    Raises:
        EvaluationError: no seed in common, or not the same instances under the same seed.
    """
    keys = ["seed", "row", "user"]
    seeds = sorted(set(arm["seed"]) & set(baseline["seed"]))
    if arm.height and baseline.height and not seeds:
        raise EvaluationError(
            f"two arms have no seed in common ({_seeds(arm)} and {_seeds(baseline)}): compute a seed for both"
        )
    both = [frame.filter(pl.col("seed").is_in(seeds)).select(*keys, metric) for frame in (arm, baseline)]
    joined = both[0].join(both[1], on=keys, suffix="_baseline")
    if not joined.height or joined.height != both[0].height or joined.height != both[1].height:
        raise EvaluationError(
            f"two arms rank different instances ({both[0].height:,} and {both[1].height:,} under common seeds "
            f"{seeds}, {joined.height:,} of them the same): compare cells of one data set and split"
        )
    joined = joined.with_columns((pl.col(metric) - pl.col(f"{metric}_baseline")).alias("difference"))
    by_seed = {int(s): float(m) for s, m in joined.group_by("seed").agg(pl.mean("difference")).sort("seed").iter_rows()}
    instances = joined.group_by("row", "user").agg(pl.mean("difference")).sort("row")
    values, users = instances["difference"].to_numpy(), instances["user"].to_numpy()
    n_users = len(np.unique(users))
    low, high = clustered_interval(values, users) if n_users > 1 else (None, None)
    return Difference(float(values.mean()), low, high, by_seed, len(values), n_users)


def read_arm(cells: Iterable[Cell], work: Path, *, protocol: str) -> pl.DataFrame:
    """The test instances of an arm's finished cells; empty where there is none."""
    frames = []
    for cell in cells:
        file = cell.instances(work)
        if file.is_file():
            frames.append(pl.read_parquet(file, glob=False).filter(pl.col("protocol") == protocol))
    return pl.concat(frames, how="diagonal") if frames else pl.DataFrame()


def protocols_of(cells: Iterable[Cell], work: Path) -> list[str]:
    """The protocols under which every finished cell of an arm was ranked."""
    files = [cell.instances(work) for cell in cells]
    frames = [
        pl.read_parquet(file, glob=False, columns=["protocol"]).unique(maintain_order=True)
        for file in files
        if file.is_file()
    ]
    return (
        [name for name in frames[0]["protocol"] if all(name in frame["protocol"] for frame in frames)] if frames else []
    )


def candidates_of(cells: Iterable[Cell], work: Path, *, protocol: str) -> set[str]:
    """Hashes of the stored candidates that an arm's finished cells ranked; none where nothing is drawn."""
    files = [work / cell.name / cell.model / "metrics.json" for cell in cells]
    summaries = [json.loads(file.read_text(encoding="utf-8"))["phases"].get(PHASE) for file in files if file.is_file()]
    found = [summary["protocols"].get(protocol) for summary in summaries if summary]
    return {one["candidates_hash"] for one in found if one and one["candidates_hash"]}


@dataclass(frozen=True)
class Comparison:
    """Differences of arms to a baseline under a protocol, arm -> slice -> difference; what was left out, and why."""

    protocol: str
    arms: Mapping[str, Mapping[str, Difference]]
    left_out: Sequence[str]


def compare(
    cells: Sequence[Cell],
    work: Path,
    against: str,
    *,
    metric: str = METRIC,
    protocol: str | None = None,
    slices: Sequence[str] = SLICES,
) -> Comparison:
    """Differences of every arm to the arm `against` (a setting, or `setting:model`), of all instances and by slice.
    `protocol`: the ranking; None: the first of `HEADLINE` that the baseline has.

    Left out are arms on other data or another split, ranked against other candidates, without instances, without the
    metric, or without a seed of the baseline's, and slices without instances.

    Raises:
        EvaluationError: the baseline is not in the plan, is several arms, is not finished or lacks protocol, metric or
        slice; an arm ranks other instances under the same seed; nothing is left to compare.
    """
    arms: dict[str, list[Cell]] = {}
    for cell in cells:
        arms.setdefault(f"{cell.setting}:{cell.model}", []).append(cell)
    named = [name for name in arms if against in (name, name.partition(":")[0])]
    if len(named) != 1:
        raise EvaluationError(f"--against {against} names {len(named)} arms; give one of {', '.join(arms)}")
    ranked = protocols_of(arms[named[0]], work)
    if not ranked:
        raise EvaluationError(f"{work} holds no instances of {named[0]}; compute its cells first")
    protocol = protocol or next((name for name in HEADLINE if name in ranked), ranked[0])
    if protocol not in ranked:
        raise EvaluationError(f"{named[0]} was not ranked under {protocol}; there are {', '.join(ranked)}")
    baseline = read_arm(arms[named[0]], work, protocol=protocol)
    if not _has(baseline, metric):
        there = ", ".join(name for name in baseline.columns if _has(baseline, name))
        raise EvaluationError(f"{named[0]} has no metric {metric} in each of its cells; there are {there}")
    known = [name for name, kind in baseline.schema.items() if kind == pl.Boolean]
    if unknown := [name for name in slices if name != "all" and name not in known]:
        raise EvaluationError(f"{named[0]} has no slice {', '.join(unknown)}; there are all, {', '.join(known)}")
    candidates = candidates_of(arms[named[0]], work, protocol=protocol)
    found: dict[str, dict[str, Difference]] = {}
    left_out: list[str] = []
    for name, group in arms.items():
        if name == named[0]:
            continue
        elsewhere = _instances(group[0]) != _instances(arms[named[0]][0])
        arm = pl.DataFrame() if elsewhere else read_arm(group, work, protocol=protocol)
        reason = "other data or another split" if elsewhere else _lacking(arm, baseline, metric, protocol)
        if not reason and len(candidates | candidates_of(group, work, protocol=protocol)) > 1:
            reason = f"other candidates under {protocol}"
        if reason:
            left_out.append(f"{name}: {reason}")
            continue
        parts = _slices(arm, baseline, metric, slices)
        left_out += [f"{name}, {part}: no instance" for part in slices if part not in parts]
        if parts:
            found[name] = parts
    if not found:
        raise EvaluationError(f"nothing can be compared with {named[0]} ({'; '.join(left_out) or 'it is alone'})")
    return Comparison(protocol, found, left_out)


def _lacking(arm: pl.DataFrame, baseline: pl.DataFrame, metric: str, protocol: str) -> str:
    """Why an arm cannot be compared; "" if it can."""
    if not arm.height:
        return f"no instances under {protocol}; its cells are not computed, or ranked otherwise"
    if not _has(arm, metric):
        return f"no metric {metric} in each of its cells"
    if not set(_seeds(arm)) & set(_seeds(baseline)):
        return f"no seed in common ({_seeds(arm)}, the baseline {_seeds(baseline)})"
    return ""


def _slices(arm: pl.DataFrame, baseline: pl.DataFrame, metric: str, slices: Sequence[str]) -> dict[str, Difference]:
    """The differences of the slices that have instances under the common seeds."""
    common = pl.col("seed").is_in(sorted(set(_seeds(arm)) & set(_seeds(baseline))))
    found = {}
    for part in slices:
        one, other = (_part(frame.filter(common), part) for frame in (arm, baseline))
        if one.height or other.height:
            found[part] = difference(one, other, metric)
    return found


def _seeds(frame: pl.DataFrame) -> list[int]:
    return sorted(set(frame["seed"]))


def _has(frame: pl.DataFrame, metric: str) -> bool:
    """Whether a column is a metric, of every instance: all other numbers with fractions are times."""
    is_metric = metric != "time" and metric in frame.columns and frame.schema[metric].is_float()
    return is_metric and not frame[metric].null_count()


def _instances(cell: Cell) -> tuple[object, object]:
    """What decides which instances a cell ranks."""
    return cell.parameters["dataset"], cell.parameters.get("eval_args")


def _part(frame: pl.DataFrame, part: str) -> pl.DataFrame:
    return frame if part == "all" else frame.filter(pl.col(part))


def markdown(found: Mapping[str, Mapping[str, Difference]], slices: Sequence[str] = SLICES) -> str:
    """Rows: arms; columns: slices, each a difference with its interval, - without instances; then the differences by
    seed."""
    lines = [f"| arm | {' | '.join(slices)} | by seed |", "|---" * (len(slices) + 2) + "|"]
    for name, parts in found.items():
        seeds = ", ".join(f"{value:+.4f}" for value in next(iter(parts.values())).by_seed.values())
        lines.append(f"| {name} | {' | '.join(str(parts.get(part, '-')) for part in slices)} | {seeds} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print (and write) the differences; 2 when there is nothing to compare."""
    parser = argparse.ArgumentParser(
        prog="python -m recbole_lsvcr.benchmark.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="the cells' working folder, with their instances")
    parser.add_argument(
        "--against", required=True, metavar="SETTING[:MODEL]", help="the arm all others are compared with"
    )
    parser.add_argument("--metric", default=METRIC, help=f"default: {METRIC}")
    parser.add_argument(
        "--protocol", default=None, help=f"default: {HEADLINE[0]} for videos, {HEADLINE[1]} for comments"
    )
    parser.add_argument("--slices", nargs="+", default=SLICES, metavar="SLICE", help=f"default: {' '.join(SLICES)}")
    parser.add_argument("--output", type=Path, help="JSON of the figures")
    options = parser.parse_args(arguments)
    try:
        found = compare(
            read_plan(options.plan),
            options.work,
            options.against,
            metric=options.metric,
            protocol=options.protocol,
            slices=options.slices,
        )
    except LSVCRError as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 2
    sys.stdout.write(markdown(found.arms, options.slices))
    for reason in found.left_out:
        sys.stderr.write(f"left out: {reason}\n")
    if options.output:
        head = {"against": options.against, "metric": options.metric, "protocol": found.protocol}
        arms = {name: {part: vars(one) for part, one in parts.items()} for name, parts in found.arms.items()}
        write_json(options.output, {**head, "arms": arms, "left_out": found.left_out})
    return 0


if __name__ == "__main__":
    sys.exit(main())
