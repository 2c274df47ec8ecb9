"""The comparisons of a task: ours with every baseline, the arms of other groups with their reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recbole_lsvcr.benchmark.arm_cells import ReadArm, quality, read_instances
from recbole_lsvcr.benchmark.statistics import Instances, Pair, average_seeds, compare_pairs, holm, pair
from recbole_lsvcr.benchmark.vocabulary import MAIN
from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.evaluation.slices import ALL, FIXED

METRICS = ("ndcg@10", "recall@10", "mrr@10")


@dataclass(frozen=True)
class _Asked:
    """One comparison to be made; `family`: what Holm corrects together."""

    group: str
    arm: ReadArm
    baseline: ReadArm
    protocol: str
    metric: str
    part: str
    found: Pair

    @property
    def family(self) -> tuple[str, ...]:
        anchor = self.arm.name if self.group == MAIN else self.baseline.name
        return self.group, anchor, self.protocol, self.metric, self.part


def comparisons(
    arms: Sequence[ReadArm], folder: Path, references: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The comparisons of a task's arms as `results.json` has them, and notes on what could not be compared.

    In group `main` the arms of role `ours` are compared with all others, in other groups every arm with the group's
    reference, an arm's name or setting; where several have that setting, the group's own, then those of `main`, and
    among them ours. `best` is the best of main's baselines and rules by its mean over all instances, of two alike the
    first of `arms`; it was chosen on the data it is compared on, which `p_holm` over all of them accounts for.
    """
    notes: list[str] = []
    asked: list[_Asked] = []
    instances = _Averaged(folder, notes)
    for group, arm, baseline in _pairs(arms, references, notes):
        asked += _ask(group, arm, baseline, instances, notes)
    found = compare_pairs([one.found for one in asked])
    families: dict[tuple[str, ...], list[int]] = {}
    for place, one in enumerate(asked):
        families.setdefault(one.family, []).append(place)
    corrected: dict[int, float | None] = {}
    for places in families.values():
        corrected.update(zip(places, holm([found[place].p for place in places]), strict=True))
    best = _Best(arms)
    result = []
    for place, (one, figures) in enumerate(zip(asked, found, strict=True)):
        head = {name: getattr(one, name) for name in ("group", "protocol", "metric")}
        names = {"slice": one.part, "arm": one.arm.name, "baseline": one.baseline.name}
        seeds = dict(zip(("arm", "baseline"), figures.seeds, strict=True))
        is_best = one.group == MAIN and one.baseline is best.of(one.arm, one.protocol, one.metric)
        result.append({**head, **names, "best": is_best, **asdict(figures), "p_holm": corrected[place], "seeds": seeds})
    return result, list(dict.fromkeys(notes))


def mismatch(arm: ReadArm, baseline: ReadArm, protocol: str) -> str | None:
    """Why two arms cannot be compared under a protocol that both were ranked under; None if they can."""
    for one in (arm, baseline):
        if len(one.candidates(protocol)) > 1:
            return f"the seeds of {one.name} were ranked against different candidates under {protocol}: not compared"
    if arm.candidates(protocol) == baseline.candidates(protocol):
        return None
    texts = [
        f"{one.name} ({instances:,} instances of {users:,} users, candidates {(key or 'all')[:12]})"
        for one in (arm, baseline)
        for key, instances, users in one.candidates(protocol)
    ]
    return f"{' and '.join(texts)} were not ranked against the same candidates under {protocol}: not compared"


def _pairs(
    arms: Sequence[ReadArm], references: Mapping[str, str], notes: list[str]
) -> Iterator[tuple[str, ReadArm, ReadArm]]:
    """Group, arm and baseline of every comparison between arms that have ranked something."""
    main = [arm for arm in arms if arm.plan.group == MAIN]
    for ours in main:
        if ours.plan.role == "ours" and ours.tests():
            yield from ((MAIN, ours, arm) for arm in main if arm.plan.role != "ours" and arm.tests())
    for group in dict.fromkeys(arm.plan.group for arm in arms if arm.plan.group != MAIN):
        wanted = references.get(group)
        reference = _reference(arms, group, wanted)
        if reference is None:
            why = "it has no reference" if wanted is None else f"its reference '{wanted}' does not name one arm"
            notes.append(f"group {group} is not compared: {why}")
        elif not reference.tests():
            notes.append(f"group {group} is not compared: its reference {reference.name} has no finished cell")
        else:
            members = [arm for arm in arms if arm.plan.group == group and arm is not reference]
            yield from ((group, arm, reference) for arm in members if arm.tests())


def _reference(arms: Sequence[ReadArm], group: str, wanted: str | None) -> ReadArm | None:
    named = [arm for arm in arms if wanted in (arm.name, arm.plan.setting)]
    for home in (group, MAIN):
        there = [arm for arm in named if arm.plan.group == home]
        ours = [arm for arm in there if arm.plan.role == "ours"]
        if there:
            found = there if len(there) == 1 else ours
            return found[0] if len(found) == 1 else None
    return None


class _Averaged:
    """The instances of arms, read and averaged over seeds when they are first asked for."""

    def __init__(self, folder: Path, notes: list[str]) -> None:
        self.folder, self.notes = folder, notes
        self.frames: dict[int, dict[str, dict[int, pl.DataFrame]]] = {}
        self.known: dict[tuple[int, str], Instances | None] = {}

    def of(self, arm: ReadArm, protocol: str) -> Instances | None:
        """None where the arm has no usable instances; the notes say why."""
        key = id(arm), protocol
        if key not in self.known:
            if id(arm) not in self.frames:
                self.frames[id(arm)], left_out = read_instances(arm, self.folder, METRICS, FIXED[1:])
                self.notes += left_out
            self.known[key] = self._average(arm, protocol, self.frames[id(arm)].pop(protocol, {}))
        return self.known[key]

    def _average(self, arm: ReadArm, protocol: str, frames: Mapping[int, pl.DataFrame]) -> Instances | None:
        if not frames:
            return None
        columns = [name for name in (*METRICS, *FIXED) if all(name in frame.columns for frame in frames.values())]
        try:
            return average_seeds(
                frames, [name for name in columns if name in METRICS], [name for name in columns if name in FIXED]
            )
        except EvaluationError as error:
            self.notes.append(f"{arm.name} is not compared under {protocol}: {error}")
            return None


def _ask(group: str, arm: ReadArm, baseline: ReadArm, instances: _Averaged, notes: list[str]) -> Iterator[_Asked]:
    for protocol in dict.fromkeys(name for test in arm.tests().values() for name in test):
        if not baseline.ranked(protocol):
            notes.append(f"{baseline.name} was not ranked under {protocol}: not compared")
            continue
        if reason := mismatch(arm, baseline, protocol):
            notes.append(reason)
            continue
        one, other = instances.of(arm, protocol), instances.of(baseline, protocol)
        if one is None or other is None:
            continue
        for part in FIXED:
            if not one.inside(part).any():
                continue
            for metric in METRICS:
                if metric in one.metrics and metric in other.metrics:
                    try:
                        found = pair(one, other, metric, part)
                    except EvaluationError as error:
                        notes.append(f"{arm.name} and {baseline.name} are not compared under {protocol}: {error}")
                        break
                    yield _Asked(group, arm, baseline, protocol, metric, part, found)


class _Best:
    """The best of main's baselines and rules, among those ranked against the same candidates as ours."""

    def __init__(self, arms: Sequence[ReadArm]) -> None:
        self.others = [arm for arm in arms if arm.plan.group == MAIN and arm.plan.role != "ours" and arm.tests()]
        self.quality = [quality(arm) for arm in self.others]

    def of(self, ours: ReadArm, protocol: str, metric: str) -> ReadArm | None:
        best, highest = None, None
        for arm, figures in zip(self.others, self.quality, strict=True):
            mean = figures.get(protocol, {}).get(ALL, {}).get(metric, {}).get("mean")
            if mean is not None and (highest is None or mean > highest) and not mismatch(ours, arm, protocol):
                best, highest = arm, mean
        return best
