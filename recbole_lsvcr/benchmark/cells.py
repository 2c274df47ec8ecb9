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
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_lsvcr.benchmark.cell import INTERRUPTED, Cell, Processes, Stopped, in_own_process
from recbole_lsvcr.config import read_yaml
from recbole_lsvcr.errors import ConfigError, LSVCRError
from recbole_lsvcr.parameter_checks import at_least, is_text, list_of

PLAN_KEYS = {"base", "settings", "cells"}
CELL_KEYS = {"models", "settings", "seeds", "with"}
is_names, is_seeds = list_of(is_text), list_of(at_least(0))


def read_plan(file: Path) -> list[Cell]:
    """The cells of a plan, in its order, without repetitions.

    Raises:
        ConfigError: an unknown key, a part of another form, a setting that is not defined, no data set.
    """
    plan = read_yaml(file)
    if unknown := set(plan) - PLAN_KEYS:
        raise ConfigError(f"{file} has unknown keys {sorted(unknown)}; accepted: {sorted(PLAN_KEYS)}")
    base, settings = plan.get("base") or {}, plan.get("settings") or {"plain": {}}
    if not isinstance(base, dict) or not isinstance(settings, dict) or not isinstance(plan.get("cells"), list):
        raise ConfigError(f"{file}: base and settings are mappings, cells is a list of {{models: […], seeds: […]}}")
    if "dataset" not in base and any("dataset" not in (setting or {}) for setting in settings.values()):
        raise ConfigError(f"{file} names no data set: give base: {{dataset: <name>}}")
    return list(dict.fromkeys(_expand(file, base, settings, plan["cells"])))


def _expand(
    file: Path, base: Mapping[str, Any], settings: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]
) -> Iterator[Cell]:
    for group in groups:
        if not isinstance(group, dict) or not is_names(group.get("models")) or not is_seeds(group.get("seeds")):
            raise ConfigError(
                f"{file}: cells are lists of models and of seeds, {{models: [SASRec], seeds: [1]}}: {group}"
            )
        if unknown := set(group) - CELL_KEYS:
            raise ConfigError(f"{file}: a cell has unknown keys {sorted(unknown)}; accepted: {sorted(CELL_KEYS)}")
        names = group.get("settings", list(settings))
        if undefined := [name for name in names if name not in settings]:
            raise ConfigError(f"{file}: settings {undefined} are not defined; defined are {sorted(settings)}")
        for setting in names:
            for seed in group["seeds"]:
                for model in group["models"]:
                    parameters = {**base, **(settings[setting] or {}), **(group.get("with") or {})}
                    yield Cell(model, setting, seed, parameters)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the missing cells of a plan; 1 when a cell failed, 2 when the plan cannot be used, 130 when
    interrupted."""
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
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        cells = read_plan(options.plan)
    except LSVCRError as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 2
    failed, processes = 0, Processes()
    for number, cell in enumerate(cells, start=1):
        if options.minutes is not None and time.perf_counter() - started > options.minutes * 60:
            sys.stdout.write(f"time is up after {number - 1} of {len(cells)} cells; the same command continues\n")
            break
        try:
            content = in_own_process(cell, options.results, options.work, processes=processes)
        except (KeyboardInterrupt, Stopped):
            sys.stderr.write("\ninterrupted; the same command continues where it stopped\n")
            return INTERRUPTED
        failed += content["status"] != "done"
        sys.stdout.write(f"[{number}/{len(cells)}] {cell.name}: {content['status']} ({content['cost']['seconds']} s)\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
