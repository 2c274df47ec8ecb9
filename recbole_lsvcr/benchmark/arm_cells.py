"""The arms of a study as their cells left them on disk: which are there, what they ranked, what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recbole_lsvcr.benchmark.statistics import mean_std
from recbole_lsvcr.benchmark.vocabulary import Group, Role
from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.evaluation.slices import ALL

SIZES = ("instances", "users")  # what stands among a slice's metrics and is none


@dataclass(frozen=True)
class FinalCell:
    """A cell an arm is to have: its seed, its name (`cells/<name>.json` of the study's folder) and the folder with its
    `<Model>/instances-test.parquet`, relative to the study's; None: `work/<name>`."""

    seed: int
    name: str
    work: Path | None = None


@dataclass(frozen=True)
class ArmCells:
    """An arm as it was planned.

    Attributes:
        name: as it is shown, unique within its task and group. model: class name. task: `video` or `comment`.
        cells: every final cell expected, of different seeds.
        chosen: hyper-parameters tuning chose. trials: the tuning trials' JSON, as files (relative to the study's
            folder) or as contents. tuned: the names shown of a trial's parameters; none given: those of `chosen`.
        failed: why no cell could be planned.
    """

    name: str
    model: str
    task: str
    setting: str
    group: Group
    role: Role
    cells: Sequence[FinalCell]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    trials: Sequence[Path | Mapping[str, Any]] = ()
    tuned: Sequence[str] = ()
    failed: str | None = None


@dataclass(frozen=True)
class ReadArm:
    """An arm with the content of its finished cells, seed -> JSON in order of the seeds; why others are not there."""

    plan: ArmCells
    done: Mapping[int, Mapping[str, Any]]
    status: Literal["done", "partial", "failed", "missing"]
    reason: str | None

    @property
    def name(self) -> str:
        return self.plan.name

    def tests(self) -> dict[int, Mapping[str, Any]]:
        """Seed -> protocol -> what the test phase's summary says; without seeds that had nothing to rank."""
        found = {seed: content.get("phases", {}).get("test") for seed, content in self.done.items()}
        return {seed: summary["protocols"] for seed, summary in found.items() if summary}

    def ranked(self, protocol: str) -> Mapping[str, Any] | None:
        """A protocol's summary of the first seed that has it."""
        return next((test[protocol] for test in self.tests().values() if protocol in test), None)

    def candidates(self, protocol: str) -> set[tuple[str | None, int, int]]:
        """What its seeds were ranked against: hash of the candidates, instances, users; one, or something is wrong."""
        found = [test[protocol] for test in self.tests().values() if protocol in test]
        return {(one.get("candidates_hash"), one["instances"], one["users"]) for one in found}


def read_arm_cells(plan: ArmCells, folder: Path) -> ReadArm:
    """An arm's final cells below `folder`: `done` with every seed, `partial` with some, `failed` where none is done and
    one failed, `missing` where none was computed."""
    if plan.failed is not None:
        return ReadArm(plan, {}, "failed", plan.failed)
    done: dict[int, Mapping[str, Any]] = {}
    reasons: dict[str, list[int]] = {}
    failed = False
    for cell in sorted(plan.cells, key=lambda one: one.seed):
        content = _content(folder / "cells" / f"{cell.name}.json")
        if content.get("status") == "done":
            done[cell.seed] = content
            continue
        failed |= content.get("status") != "missing"
        reasons.setdefault(content.get("reason") or "failed without a reason", []).append(cell.seed)
    reason = "; ".join(f"{_seeds(seeds)}: {text}" for text, seeds in reasons.items()) or None
    if done:
        return ReadArm(plan, done, "partial" if reasons else "done", reason)
    return ReadArm(plan, done, "failed" if failed else "missing", reason or "not computed yet")


def _content(file: Path) -> Mapping[str, Any]:
    """A cell's JSON; for one that is not there, or no cell, a status and a reason."""
    if not file.is_file():
        return {"status": "missing", "reason": "not computed"}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return {"status": "failed", "reason": f"{file.name} cannot be read ({error}); delete it and compute it again"}
    return content if isinstance(content, dict) else {"status": "failed", "reason": f"{file.name} is no cell"}


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(str(seed) for seed in seeds)}"


def arm_json(arm: ReadArm, folder: Path) -> dict[str, Any]:
    """The arm as `results.json` has it."""
    plan = arm.plan
    return {
        "name": plan.name,
        "model": plan.model,
        "setting": plan.setting,
        "group": plan.group,
        "role": plan.role,
        "status": arm.status,
        "reason": arm.reason,
        "chosen": dict(plan.chosen),
        "trials": [_trial(plan, trial, folder) for trial in plan.trials],
        "seeds": list(arm.done),
        "quality": quality(arm),
        "cost": _cost(arm),
        "curves": [_curve(seed, cell["training"]) for seed, cell in arm.done.items() if _history(cell)],
        "alignment": _alignment(arm),
    }


def _trial(plan: ArmCells, trial: Path | Mapping[str, Any], folder: Path) -> dict[str, Any]:
    content = _content(folder / trial) if isinstance(trial, Path) else trial
    shown = plan.tuned or list(plan.chosen)
    parameters = content.get("parameters", {})
    return {
        "parameters": {name: parameters[name] for name in shown if name in parameters},
        "seed": content.get("seed"),
        "valid_score": (content.get("training") or {}).get("best_valid_score"),
        "status": content.get("status"),
        "reason": content.get("reason"),
    }


def quality(arm: ReadArm) -> dict[str, dict[str, dict[str, Any]]]:
    """protocol -> slice (`all` first) -> `instances`, `users`, and metric -> `mean`, `std` and `values` by seed. Slices
    without instances are left out."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for seed, protocols in arm.tests().items():
        for protocol, summary in protocols.items():
            overall = {**summary["metrics"], **{size: summary[size] for size in SIZES}}
            for part, figures in {ALL: overall, **summary["slices"]}.items():
                if not figures["instances"]:
                    continue
                sizes = {size: figures[size] for size in SIZES}
                entry = found.setdefault(protocol, {}).setdefault(part, sizes)
                for metric, value in figures.items():
                    if metric not in SIZES and value is not None and math.isfinite(value):
                        entry.setdefault(metric, {"values": {}})["values"][str(seed)] = value
    for parts in found.values():
        for entry in parts.values():
            for metric in entry.keys() - set(SIZES):
                values = entry[metric]["values"]
                mean, std = mean_std(list(values.values()))
                entry[metric] = {"mean": mean, "std": std, "values": values}
    return found


def _cost(arm: ReadArm) -> dict[str, float | None]:
    cells = list(arm.done.values())

    def known(figure: Callable[[Mapping[str, Any]], float | None]) -> list[float]:
        figures = [figure(cell) for cell in cells]
        return [value for value in figures if value is not None and math.isfinite(value)]

    def mean(figure: Callable[[Mapping[str, Any]], float | None]) -> float | None:
        return mean_std(known(figure))[0]

    return {
        "parameters": None if arm.plan.role == "rule" else max(known(_parameters), default=None),
        # of a rule, which has no epoch, 0 seconds would be a figure of nothing
        "seconds_per_epoch": mean(lambda cell: _trained(cell).get("seconds_per_epoch")),
        "seconds_to_best": mean(lambda cell: _trained(cell).get("seconds_to_best")),
        "pretraining_seconds": mean(lambda cell: (cell.get("pretraining") or {}).get("seconds")),
        "alignment_seconds": mean(lambda cell: (cell.get("alignment") or {}).get("seconds")),
        "peak_memory_mb": max(known(lambda cell: cell.get("cost", {}).get("peak_memory_mb")), default=None),
        "ranked_per_second": mean(_ranked_per_second),
    }


def _parameters(cell: Mapping[str, Any]) -> float | None:
    number: float | None = cell.get("cost", {}).get("parameters")
    return number


def _trained(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    training: Mapping[str, Any] = cell.get("training") or {}
    return training if training.get("epochs") else {}


def _ranked_per_second(cell: Mapping[str, Any]) -> float | None:
    """Test instances by second; an instance is scored once, whatever the number of protocols it is ranked under."""
    seconds = (cell.get("cost", {}).get("evaluation_seconds") or {}).get("test")
    test = cell.get("phases", {}).get("test")
    if not seconds or not test:
        return None
    return max((one["instances"] for one in test["protocols"].values()), default=0) / float(seconds)


def _history(cell: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = (cell.get("training") or {}).get("history") or ()
    return found


def _curve(seed: int, training: Mapping[str, Any]) -> dict[str, Any]:
    history = training["history"]
    return {
        "seed": seed,
        "epochs": [entry["epoch"] for entry in history],
        "loss": [sum(entry["losses"]) for entry in history],
        "valid": [entry.get("valid_score") for entry in history],
        "best_epoch": training.get("best_epoch"),
    }


def _alignment(arm: ReadArm) -> dict[str, Any] | None:
    """That of the first seed which has one: the others' curves look alike, and their seconds are in the cost."""
    for cell in arm.done.values():
        found = cell.get("alignment")
        if found:
            log, asked = found.get("log") or [], cell.get("parameters", {}).get("alignment")
            steps = asked.get("steps") if isinstance(asked, Mapping) else None
            last = max((entry["step"] for entry in log if "step" in entry), default=None)
            return {"held_out": found.get("held_out"), "steps": last if steps is None else steps, "log": log}
    return None


def read_instances(
    arm: ReadArm, folder: Path, metrics: Sequence[str], slices: Sequence[str]
) -> tuple[dict[str, dict[int, pl.DataFrame]], list[str]]:
    """The test instances of an arm's finished cells, protocol -> seed -> frame (`row`, `user`, those of `metrics` and
    `slices` that are there), and why seeds are left out: no file, or not the instances the cell's JSON speaks of."""
    found: dict[str, dict[int, pl.DataFrame]] = {}
    reasons: dict[str, list[int]] = {}
    cells = {cell.seed: cell for cell in arm.plan.cells}
    for seed, protocols in arm.tests().items():
        cell = cells[seed]
        file = folder / (cell.work or Path("work") / cell.name) / arm.plan.model / "instances-test.parquet"
        try:
            frames = _frames(file, protocols, metrics, slices)
        except EvaluationError as error:
            reasons.setdefault(str(error), []).append(seed)
            continue
        for protocol, frame in frames.items():
            found.setdefault(protocol, {})[seed] = frame
    left_out = [f"{arm.name}, {_seeds(seeds)}: not in the comparisons, {text}" for text, seeds in reasons.items()]
    return found, left_out


def _frames(
    file: Path, protocols: Mapping[str, Any], metrics: Sequence[str], slices: Sequence[str]
) -> dict[str, pl.DataFrame]:
    if not file.is_file():
        raise EvaluationError(
            f"its {file.name} is no longer there, nor its ranks beside the JSON; delete that and compute it again"
        )
    try:
        there = pl.scan_parquet(file, glob=False).collect_schema()
        shown = [name for name in metrics if name in there]
        parts = [name for name in slices if there.get(name) == pl.Boolean]
        every = pl.read_parquet(file, glob=False, columns=["protocol", "row", "user", *shown, *parts])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise EvaluationError(f"its {file.name} cannot be read ({type(error).__name__})") from error
    frames = {}
    for protocol, summary in protocols.items():
        frame = every.filter(pl.col("protocol") == protocol).drop("protocol")
        told = {name: summary["metrics"].get(name) for name in shown} if summary["instances"] else {}
        near = all(value is not None and _near(frame[name], value) for name, value in told.items())
        if frame.height != summary["instances"] or not near:
            raise EvaluationError(f"its {file.name} and its JSON differ under {protocol}; compute the cell again")
        if frame.height:
            frames[protocol] = frame
    return frames


def _near(values: pl.Series, told: float) -> bool:
    mean = values.mean()
    return isinstance(mean, float) and math.isclose(mean, told, abs_tol=1e-9)
