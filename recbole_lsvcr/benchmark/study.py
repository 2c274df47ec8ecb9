"""`run_lsvcr.py --benchmark`: every arm tuned alike and computed for every seed, in cells that are computed once."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_lsvcr.benchmark.arms import CATALOGUE, DEFAULT_SIZE, Arm, Catalogue
from recbole_lsvcr.benchmark.cell import (
    SHARED_FOLDERS,
    Cell,
    Processes,
    Stopped,
    finished,
    in_own_process,
)
from recbole_lsvcr.benchmark.names import resolve
from recbole_lsvcr.benchmark.places import Places
from recbole_lsvcr.benchmark.progress import Progress
from recbole_lsvcr.benchmark.settings import (
    OWN_KEYS,
    PLACES,
    check_settings,
    check_tuning,
    refuse_single,
    with_what_is_judged,
)
from recbole_lsvcr.benchmark.tuning import Trial, Tuning, best, search
from recbole_lsvcr.config import (
    MODEL_OF,
    LSVCRConfig,
    load_config,
    output_folder,
)
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.parameters import BY_NAME
from recbole_lsvcr.pretraining import check_stage
from recbole_lsvcr.task_run import Run

logger = logging.getLogger()
CELLS, WORK = "cells", "work"


@dataclass(frozen=True)
class Options:
    """What the command line adds to the configuration."""

    names: tuple[str, ...] | None = None
    ablation: bool = False
    steps: tuple[int, ...] = ()
    cold: bool = False
    jobs: int = 1
    minutes: float | None = None


@dataclass
class Outcome:
    """What became of an arm.

    Attributes:
        chosen: tuned parameters. trials: in order, with the cell of each. cells: the final ones, by seed.
        failed: why there are no final cells; None: there are, or will be.
    """

    arm: Arm
    chosen: Mapping[str, Any] = field(default_factory=dict)
    trials: list[tuple[Trial, Cell]] = field(default_factory=list)
    cells: dict[int, Cell] = field(default_factory=dict)
    failed: str | None = None


class Study:
    """A benchmark in an output folder.

    Args:
        given: the user's configuration. options: the command line's.

    Raises:
        ConfigError, DataError: anything in the configuration or the data that would make an arm fail for that reason.
    """

    def __init__(self, given: Mapping[str, Any], options: Options) -> None:
        for key in ("benchmark", "seeds", "tune", "model_settings", "task", "hidden_size"):
            if given.get(key) is not None and not BY_NAME[key].accepts(given[key]):
                raise ConfigError(f"{key} = {given[key]!r} is not accepted; accepted: {BY_NAME[key].accepted}")
        refuse_single(given)
        self.options = options
        self.folder = output_folder({"output": given.get("output")})
        task = str(given.get("task") or ("comment" if given.get("model") == MODEL_OF["comment"] else "video"))
        self.tasks = ("video", "comment") if task == "both" else (task,)
        self.seeds = tuple(given.get("seeds") or [given.get("seed", 2020)])
        if not BY_NAME["seeds"].accepts(list(self.seeds)):
            raise ConfigError(f"seed = {given['seed']!r} is not accepted; accepted: an integer >= 0")
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds = {list(self.seeds)} has a seed twice; name each once")
        rest = {key: value for key, value in given.items() if key not in OWN_KEYS}
        # Trials are chosen by the validation score of training; only the test period is ranked under every protocol.
        places = {"report_phases": ["test"], **{key: rest.pop(key) for key in PLACES if key in rest}}
        self.settings = with_what_is_judged(rest)
        self.size = int(rest.get("hidden_size") or DEFAULT_SIZE)
        catalogue = Catalogue(self.settings, given.get("model_settings") or {}, self.tasks)
        self.main = catalogue.main(options.names or given.get("benchmark"))
        ours = [arm for arm in self.main if arm.role == "ours"]
        self.presets: list[Arm] = []
        if options.ablation:
            self.presets += catalogue.ablation(ours)
        if options.steps:
            self.presets += catalogue.alignment_steps(ours, options.steps)
        if options.cold:
            self.presets += catalogue.cold(ours)
        self.tuning = Tuning.parse(given.get("tune"), [arm.model for arm in self.arms if arm.learns])
        models = list(dict.fromkeys(arm.model for arm in self.arms))
        others = self._others(given.get("benchmark") or ())
        check_settings(self.settings, catalogue.model_settings, self.tuning, models, others)
        by_task = {arm.task: arm for arm in ours}
        self._places = Places(places, self.settings, by_task, self.folder / WORK, self.seeds[0])
        self._sources = {arm: arm.source for arm in self.arms}
        self.data: str | None = None
        self.data = self._check()
        self.processes = Processes()
        self.outcomes = {arm: Outcome(arm) for arm in self.arms}
        self._cells: dict[str, threading.Lock] = {}
        self._started = time.monotonic()
        self._progress = Progress(self._expected(), options.jobs)

    # ------------------------------------------------------------------ before any work

    def _others(self, configured: Sequence[Any]) -> dict[str, bool]:
        """Models that take no part because of the command line or the task, of which the configuration may speak all
        the same, and whether their settings are known: not those of a user's own, which are not imported for that."""
        chosen = self.options.names is not None
        found = {
            entry.model: True
            for task, entries in CATALOGUE.items()
            for entry in entries
            if chosen or task not in self.tasks
        }
        for one in configured if chosen else ():
            name = str(one.get("model") if isinstance(one, Mapping) else one)
            if ":" in name:
                found.setdefault(name.rpartition(":")[2], False)
            elif not any(entry.is_called(name) for entries in CATALOGUE.values() for entry in entries):
                found[resolve(name)] = True
        return found

    def _check(self) -> str:
        """Load every arm's configuration and the data of every task; returns the fingerprint of the data."""
        for arm in self.arms:
            if arm.learns and self.tuning.budget:
                check_tuning(self.tuning, arm.model)
            config = self.configuration(arm)
            check_stage(config, "all")
            if arm.learns and self.tuning.budget and config["eval_step"] <= 0:
                raise ConfigError(
                    f"eval_step = {config['eval_step']} leaves {arm.name} without validation while it trains, by which "
                    "tune chooses; give an eval_step of at least 1, or tune: off"
                )
        joint: JointData | None = None  # read once for both tasks
        for arm in self.main:
            if arm.role == "ours":
                run = Run(self.configuration(arm), joint)
                run.dataset.build()
                if run.config["alignment_folder"]:
                    run.check_alignment()
                joint = run.dataset.joint
        assert joint is not None  # ours is always among the arms
        return joint.tables.fingerprint

    @property
    def arms(self) -> list[Arm]:
        """Every arm, those of the presets last."""
        return [*self.main, *self.presets]

    def cell(self, arm: Arm, parameters: Mapping[str, Any], seed: int) -> Cell:
        """The cell of an arm with tuned parameters and a seed."""
        chosen = {name: value for name, value in parameters.items() if name not in arm.fixed}
        settings, source = {**arm.parameters, **chosen}, self._sources[arm]
        return Cell(
            arm.model,
            arm.setting,
            seed,
            settings,
            places=self._places.of(arm, settings),
            data=self.data if source is None else f"{self.data}, files {source}",
            arm=arm.name,
        )

    def space(self, arm: Arm) -> dict[str, Any]:
        """What is tuned of an arm."""
        return {name: values for name, values in self.tuning.of(arm.model).items() if name not in arm.fixed}

    def configuration(self, arm: Arm) -> LSVCRConfig:
        """The configuration of an arm before anything is tuned.

        Raises:
            ConfigError: there is something wrong with it.
        """
        cell = self.cell(arm, {}, self.seeds[0])
        places = {name: value for name, value in cell.places.items() if name not in SHARED_FOLDERS}
        given = {**cell.parameters, **places, "model": cell.model, "seed": cell.seed, "output": str(self.folder)}
        return load_config(None, given)

    def _expected(self) -> int:
        """Cells and trials of all arms, at most."""
        total = 0
        for arm in self.arms:
            trials = self.tuning.budget if arm.learns and arm.chosen_with is None else 0
            total += trials + (len(self.seeds) if arm.learns else 1)
        return total

    # ------------------------------------------------------------------ the work

    def run(self) -> None:
        """Compute what is missing: the main arms, then those of the presets, which take the parameters chosen before.

        Raises:
            KeyboardInterrupt: it was interrupted; the cells that ran go on where they are the next time.
        """
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            # SIGINT too: reading the data, polars sets a handler of its own, after which Ctrl-C does not end a waiting.
            before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for arms in (self.main, self.presets):
                self._compute(arms)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _compute(self, arms: Sequence[Arm]) -> None:
        pool = ThreadPoolExecutor(max_workers=self.options.jobs)
        try:
            # Ours first, to be looked at early; rules last, which fill what is left of the jobs.
            order = sorted(arms, key=lambda arm: (not arm.learns, arm.role != "ours"))
            futures = [pool.submit(self._lane, arm) for arm in order]
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        except BaseException:
            self.processes.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _lane(self, arm: Arm) -> None:
        """An arm's trials, and then its cells, one after the other."""
        outcome = self.outcomes[arm]
        try:
            if arm.learns and arm.chosen_with is not None:
                whole = self._whole(arm)
                outcome.chosen = {name: value for name, value in whole.chosen.items() if name not in arm.fixed}
                outcome.failed = whole.failed
            elif arm.learns and self.tuning.budget:
                self._tune(outcome)
            if outcome.failed is not None:
                return
            for seed in self.seeds if arm.learns else self.seeds[:1]:
                outcome.cells[seed] = self.cell(arm, outcome.chosen, seed)
            for cell in outcome.cells.values():
                self._run(cell, trial=False)
        except (Stopped, _TimeUp):
            return

    def _whole(self, arm: Arm) -> Outcome:
        """What became of the main arm whose tuned parameters `arm` takes."""
        return next(self.outcomes[one] for one in self.main if (one.role, one.task) == ("ours", arm.task))

    def _tune(self, outcome: Outcome) -> None:
        arm = outcome.arm
        config = self.configuration(arm)
        space, bigger = self.space(arm), bool(config["valid_metric_bigger"])
        tried: dict[str, dict[str, Any]] = {}

        def run(parameters: Mapping[str, Any]) -> float | None:
            cell = self.cell(arm, parameters, self.seeds[0])
            content = tried[cell.name] = self._run(cell, trial=True)
            score = content["training"]["best_valid_score"] if content["status"] == "done" else None
            outcome.trials.append((Trial(dict(parameters), score), cell))
            return score

        first = {name: config[name] for name in space}
        trials = search(space, self.tuning.budget, first=first, seed=0, bigger_is_better=bigger, run=run)
        chosen = best(trials, bigger)
        if chosen is None:
            reasons = [content["reason"] for content in tried.values() if content.get("reason")]
            outcome.failed = next(iter(reasons), "no trial has a validation score: nothing was there to validate")
            return
        outcome.chosen = chosen
        kept = self.cell(arm, chosen, self.seeds[0]).name
        for _, cell in outcome.trials:
            if cell.name != kept:
                _forget_weights(self.folder / WORK / cell.name / cell.model)

    def _run(self, cell: Cell, *, trial: bool) -> dict[str, Any]:
        with self._cells.setdefault(cell.name, threading.Lock()):  # studies share cells: one job computes, one waits
            folders, minutes = (self.folder / CELLS, self.folder / WORK), self.options.minutes
            is_late = minutes is not None and time.monotonic() - self._started > minutes * 60
            if is_late and finished(cell.file(folders[0], trial=trial)) is None:
                raise _TimeUp
            said = os.environ.get("OMP_NUM_THREADS", "")
            threads = int(said) if said.isdecimal() else max(1, (os.cpu_count() or 1) // self.options.jobs)
            started = time.monotonic()
            content = in_own_process(cell, *folders, trial=trial, threads=threads, processes=self.processes)
        self._progress.done(cell, content, trial=trial, seconds=time.monotonic() - started)
        return content


class _TimeUp(Exception):
    """No further cell is to be started."""


def _forget_weights(folder: Path) -> None:
    """Remove the checkpoints of a trial that was not chosen; its configuration and logs stay."""
    for file in folder.glob("**/*.pth"):
        file.unlink(missing_ok=True)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
