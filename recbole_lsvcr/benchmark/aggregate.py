"""Cells to `results.json`: the quality, cost and comparisons of a study's arms, all that its report is made of.

    results = aggregate(StudyCells(dataset="my-data", ..., arms=[...]), folder)
    write_json(folder / "results.json", results)

Reads `cells/*.json` and the instances below `work/`, computes nothing anew and draws nothing at random that is not
seeded: the same cells give the same results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recbole_lsvcr.benchmark.arm_cells import SIZES, ArmCells, FinalCell, ReadArm, arm_json, read_arm_cells
from recbole_lsvcr.benchmark.comparisons import comparisons, mismatch
from recbole_lsvcr.benchmark.vocabulary import GROUPS, HEADLINE, MAIN
from recbole_lsvcr.evaluation.slices import ALL, FIXED

__all__ = ["ArmCells", "FinalCell", "StudyCells", "aggregate"]
FORMAT = 1
METRIC = "ndcg@10"
RANKED = ("instances", "users", "mean_length", "left_out", "too_long", "enough", "candidates_hash", "chance")
_ROLES = ("rule", "baseline", "ours")


@dataclass(frozen=True)
class StudyCells:
    """A study as it was planned; everything but `arms` goes into `results.json` as it is.

    Attributes:
        arms: in order of the catalog. references: group -> name or setting of the arm its arms are compared with (not
            of `main`). primary: task -> protocol of the main figures; default: `available+period` for videos,
            `available+uniform` for comments where they were ranked so, otherwise the first.
    """

    dataset: str
    synthetic: bool
    split: str
    history: int
    seeds: Sequence[int]
    selection: str
    command: Sequence[str]
    environment: Mapping[str, Any]
    shared: Mapping[str, Any]
    arms: Sequence[ArmCells]
    tune: Mapping[str, Any] | None = None
    portrait: Mapping[str, Any] | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    primary: Mapping[str, str] = field(default_factory=dict)


def aggregate(study: StudyCells, folder: Path) -> dict[str, Any]:
    """The content of `results.json` of a study whose `cells` and `work` lie in `folder`; plain data, no NaN.

    Cells that failed or are missing are said with their arm, and arms that cannot be compared in the task's notes.
    """
    tasks = [task for task in ("video", "comment") if any(arm.task == task for arm in study.arms)]
    content = {
        "format": FORMAT,
        "dataset": study.dataset,
        "synthetic": study.synthetic,
        "split": study.split,
        "history": study.history,
        "seeds": study.seeds,
        "selection": study.selection,
        "command": study.command,
        "environment": study.environment,
        "tune": study.tune,
        "shared": study.shared,
        "tasks": {task: _task(study, task, folder) for task in tasks},
        "portrait": study.portrait,
    }
    return dict(_plain(content))


def _task(study: StudyCells, task: str, folder: Path) -> dict[str, Any]:
    planned = sorted(  # stable: the catalog's order within a role
        (arm for arm in study.arms if arm.task == task),
        key=lambda arm: (GROUPS.index(arm.group), _ROLES.index(arm.role)),
    )
    arms = [read_arm_cells(arm, folder) for arm in planned]
    main = _standard(arms)
    protocols = list(dict.fromkeys(name for test in main.tests().values() for name in test)) if main else []
    compared, told = comparisons(arms, folder, study.references)
    notes = [*_notes(arms, main, protocols), *told, *_environments(arms)]
    return {
        "protocols": protocols,
        "metrics": _metrics(main, protocols),
        "primary": {"protocol": _primary(study.primary.get(task), protocols), "metric": METRIC},
        "ranked": {name: _ranked(main, name) for name in protocols},
        "slices": _slices(arms),
        "arms": [arm_json(arm, folder) for arm in arms],
        "comparisons": compared,
        "notes": list(dict.fromkeys(notes)),
    }


def _standard(arms: Sequence[ReadArm]) -> ReadArm | None:
    """The arm whose rankings the task's head speaks of: ours, otherwise the first that has any."""
    there = [arm for arm in arms if arm.tests()]
    ours = [arm for arm in there if arm.plan.group == MAIN and arm.plan.role == "ours"]
    return next(iter([*ours, *there]), None)


def _primary(wanted: str | None, protocols: Sequence[str]) -> str | None:
    return next((name for name in (wanted, *HEADLINE, *protocols) if name in protocols), None)


def _metrics(main: ReadArm | None, protocols: Sequence[str]) -> list[str]:
    summaries = [main.ranked(name) for name in protocols] if main else []
    return list(dict.fromkeys(metric for one in summaries if one for metric in one["metrics"]))


def _ranked(main: ReadArm | None, protocol: str) -> dict[str, Any]:
    summary = (main.ranked(protocol) if main else None) or {}
    return {name: summary.get(name) for name in RANKED}


def _slices(arms: Sequence[ReadArm]) -> list[str]:
    """`all`, the slices every study has, the others as they come; only those with instances."""
    found = [
        part
        for arm in arms
        for test in arm.tests().values()
        for summary in test.values()
        for part, figures in ((ALL, summary), *summary["slices"].items())
        if figures[SIZES[0]]
    ]
    return [name for name in FIXED if name in found] + [name for name in dict.fromkeys(found) if name not in FIXED]


def _notes(arms: Sequence[ReadArm], main: ReadArm | None, protocols: Sequence[str]) -> list[str]:
    notes = []
    for arm in arms:
        if arm.status != "done":
            where = "" if arm.plan.group == MAIN else f" ({arm.plan.group})"
            planned = len(arm.plan.cells)  # none where tuning failed or has not ended
            finished = f"{len(arm.done)} of {planned} cells are finished" if planned else "no cell is finished"
            notes.append(f"{arm.name}{where}: {finished} ({arm.reason})")
        elif not arm.tests():
            notes.append(f"{arm.name} has nothing ranked in its test phase")
    for arm in arms:
        if main is not None and arm is not main and arm.plan.group == main.plan.group:
            notes += [reason for name in protocols if arm.ranked(name) and (reason := mismatch(main, arm, name))]
    return notes


def _environments(arms: Sequence[ReadArm]) -> list[str]:
    """What differs between the machines and versions that the cells were computed with."""
    found: dict[str, list[str]] = {}
    for cell in (cell for arm in arms for cell in arm.done.values()):
        known = cell.get("environment") or {}
        for name, value in {**known, **known.get("packages", {})}.items():
            if name != "packages" and str(value) not in found.setdefault(name, []):
                found[name].append(str(value))
    different = "; ".join(f"{name} {' or '.join(sorted(values))}" for name, values in found.items() if len(values) > 1)
    return [f"not all cells were computed alike, so that their costs do not compare: {different}"] if different else []


def _plain(value: Any) -> Any:
    """As JSON has it: names as strings, lists, and null for what is no number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
