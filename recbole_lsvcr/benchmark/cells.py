"""Cells: data set × model × setting × seed, each computed once and kept as one small JSON; the rows of every later
table.

A plan is a YAML file:

    base: {data_path: dataset/, dataset: my-data, MAX_ITEM_LIST_LENGTH: 20}     # settings of every cell
    settings: {plain: {}, masked: {text_transform: mask_digits}}                # named changes of it
    cells:
      - {models: [LSVCR, SASRec], settings: [plain, masked], seeds: [1, 2]}
      - {models: [Popularity], settings: [plain], seeds: [1], with: {epochs: 0}}

`python -m recbole_lsvcr.benchmark.cells plan.yaml --results docs/results/my-plan --work runs/my-plan` computes the
cells whose JSON is missing; killed, it
continues with the same command, inside a cell too. A cell that fails is kept with its reason and tried again next
time; the others go on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset_tools.files import write_json
from recbole_lsvcr import pipeline
from recbole_lsvcr.config import load_config, read_yaml
from recbole_lsvcr.errors import ConfigError, LSVCRError
from recbole_lsvcr.report import log_to

logger = logging.getLogger()
PLAN_KEYS = {"base", "settings", "cells"}
CELL_KEYS = {"models", "settings", "seeds", "with"}


@dataclass(frozen=True)
class Cell:
    """One model with one configuration and seed."""

    model: str
    setting: str
    seed: int
    parameters: Mapping[str, Any] = field(hash=False)

    @property
    def hash(self) -> str:
        """Hash of everything that decides the cell's numbers, as the plan states it."""
        text = json.dumps({"model": self.model, "seed": self.seed, **self.parameters}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """File name of the cell's JSON, readable and unique."""
        return f"{self.parameters['dataset']}.{self.setting}.{self.model}.{self.seed}.{self.hash}"


def read_plan(file: Path) -> list[Cell]:
    """The cells of a plan, in its order, without repetitions.

    Raises:
        ConfigError: an unknown key, a setting that is not defined, no data set.
    """
    plan = read_yaml(file)
    if unknown := set(plan) - PLAN_KEYS:
        raise ConfigError(f"{file} has unknown keys {sorted(unknown)}; accepted: {sorted(PLAN_KEYS)}")
    base, settings = plan.get("base", {}), plan.get("settings", {"plain": {}})
    if "dataset" not in base and any("dataset" not in (setting or {}) for setting in settings.values()):
        raise ConfigError(f"{file} names no data set: give base: {{dataset: <name>}}")
    return list(dict.fromkeys(_expand(file, base, settings, plan.get("cells", []))))


def _expand(
    file: Path, base: Mapping[str, Any], settings: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]
) -> Iterator[Cell]:
    for group in groups:
        if unknown := set(group) - CELL_KEYS:
            raise ConfigError(f"{file}: a cell has unknown keys {sorted(unknown)}; accepted: {sorted(CELL_KEYS)}")
        names = group.get("settings", list(settings))
        if undefined := [name for name in names if name not in settings]:
            raise ConfigError(f"{file}: settings {undefined} are not defined; defined are {sorted(settings)}")
        for setting in names:
            for seed in group["seeds"]:
                for model in group["models"]:
                    parameters = {**base, **(settings[setting] or {}), **(group.get("with") or {})}
                    yield Cell(model, setting, int(seed), parameters)


def run_cell(cell: Cell, results: Path, work: Path) -> dict[str, Any]:
    """Compute one cell unless its JSON says it is done; returns the JSON's content."""
    file = results / f"{cell.name}.json"
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["status"] == "done":
            return dict(known)
    started = time.perf_counter()
    head = {
        "model": cell.model,
        "setting": cell.setting,
        "seed": cell.seed,
        "hash": cell.hash,
        "parameters": dict(cell.parameters),
    }
    try:
        body = {"status": "done", **_compute(cell, work)}
    except (
        LSVCRError,
        RuntimeError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        logger.error("cell %s failed: %s", cell.name, error)
        body = {
            "status": "failed",
            "reason": f"{type(error).__name__}: {error}",
            "trace": traceback.format_exc().splitlines()[-6:],
        }
        body["trace"] = [re.sub(r'File ".*?([^/"]+)"', r'File "\1"', line) for line in body["trace"]]
    body["cost"] = {
        **body.get("cost", {}),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    content = {**head, **body}
    write_json(file, content)
    return content


def _in_own_process(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """One cell in a process of its own: its memory is its own, and a cell that dies takes nothing with it."""
    file = options.results / f"{cell.name}.json"
    if not (file.exists() and json.loads(file.read_text(encoding="utf-8"))["status"] == "done"):
        command = [sys.executable, "-m", "recbole_lsvcr.benchmark.cells", str(options.plan), "--only", cell.name]
        status = subprocess.run(
            [*command, "--results", str(options.results), "--work", str(options.work)], check=False
        ).returncode
        if status:
            reason = f"its process ended with status {status}"
            write_json(
                file,
                {
                    "model": cell.model,
                    "setting": cell.setting,
                    "seed": cell.seed,
                    "status": "failed",
                    "reason": reason,
                    "cost": {"seconds": None},
                },
            )
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _compute(cell: Cell, work: Path) -> dict[str, Any]:
    folder = work / cell.name
    config = load_config(None, {**cell.parameters, "model": cell.model, "seed": cell.seed, "output": str(folder)})
    with log_to(config):
        run = pipeline.Run(config)
        run.describe()
        started = time.perf_counter()
        aligned = run.align()
        seconds = time.perf_counter() - started
        run.encode()
        trained = run.finetune()
        report = run.evaluate()
    epochs = [entry["train_seconds"] for entry in trained.history]
    alignment = {} if aligned is None else {"alignment": {"held_out": aligned, "seconds": round(seconds, 1)}}
    return {
        "phases": report["phases"],
        **alignment,
        "training": {
            "best_valid_score": trained.best_valid_score if trained.history else None,
            "epochs": len(epochs),
            "best_epoch": best_epoch(trained.history),
            "seconds_per_epoch": round(sum(epochs) / len(epochs), 2) if epochs else 0.0,
        },
        "cost": {"evaluation_seconds": report["evaluation_seconds"]},
        "environment": {key: value for key, value in pipeline.environment().items() if key != "command"},
    }


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The epoch whose checkpoint is the best one; None without validation."""
    scored = [entry for entry in history if "valid_score" in entry]
    return max(scored, key=lambda entry: (entry["valid_score"], -entry["epoch"]))["epoch"] if scored else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the missing cells of a plan; 1 when a cell failed, 2 when the plan cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m recbole_lsvcr.benchmark.cells",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument(
        "--results", type=Path, required=True, help="folder of the cells' JSON files (small; may be committed)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder of checkpoints, logs and per-instance metrics (never committed)",
    )
    parser.add_argument("--minutes", type=float, default=None, help="start no further cell after this many minutes")
    parser.add_argument("--only", metavar="NAME", default=None, help="compute this cell in this process")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        cells = read_plan(options.plan)
    except LSVCRError as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 2
    if options.only:
        run_cell(next(cell for cell in cells if cell.name == options.only), options.results, options.work)
        return 0
    failed = 0
    for number, cell in enumerate(cells, start=1):
        if options.minutes is not None and time.perf_counter() - started > options.minutes * 60:
            sys.stdout.write(f"time is up after {number - 1} of {len(cells)} cells; the same command continues\n")
            break
        content = _in_own_process(cell, options)
        failed += content["status"] != "done"
        sys.stdout.write(f"[{number}/{len(cells)}] {cell.name}: {content['status']} ({content['cost']['seconds']} s)\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
