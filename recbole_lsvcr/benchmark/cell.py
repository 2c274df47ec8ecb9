"""A cell: data set × model × setting × seed, computed once, in a process of its own, and kept as one small JSON."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dataset_tools.files import write_json
from recbole_lsvcr import pipeline
from recbole_lsvcr.alignment.identity import ALIGNED, seed_of
from recbole_lsvcr.benchmark.ranks import keep_ranks
from recbole_lsvcr.config import LSVCRConfig, load_config
from recbole_lsvcr.encoding.encoders import content_of
from recbole_lsvcr.environment import flushed_denormals, forget_peak_memory, machine, peak_memory
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.folders import exclusive
from recbole_lsvcr.report import log_to

logger = logging.getLogger()
# Places of a cell that several cells share; the other places are settings of the configuration.
SHARED_FOLDERS = ("candidates", "alignments", "stores")
INTERRUPTED = 130  # exit status of a process that Ctrl-C ended
TEXT_SETTINGS = ("text_encoder", "text_pooling", "text_dtype", "text_transform", "text_max_tokens")


@dataclass(frozen=True)
class Cell:
    """One model with one configuration and seed.

    Attributes:
        parameters: settings that decide the numbers. places: settings that say where things are, and do not.
        data: fingerprint of the data set where its name alone is not to be trusted. arm: its name in the tables.
    """

    model: str
    setting: str
    seed: int
    parameters: Mapping[str, Any] = field(hash=False)
    places: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    data: str | None = None
    arm: str | None = None

    @property
    def hash(self) -> str:
        """Hash of everything that decides the cell's numbers, as the plan states it."""
        known = {} if self.data is None else {"data": self.data}
        text = json.dumps(
            {"model": self.model, "seed": self.seed, **known, **self.parameters}, sort_keys=True, default=str
        )
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def alignment_seed(self) -> int:
        """The seed of the alignment that it starts from, if it starts from one."""
        named = {**self.parameters, **self.places}.get("alignment_seed")
        return self.seed if named is None else int(named)

    @property
    def name(self) -> str:
        """File name of the cell's JSON, readable and unique."""
        return f"{self.parameters['dataset']}.{self.setting}.{self.model}.{self.seed}.{self.hash}"

    def file(self, results: Path, *, trial: bool = False) -> Path:
        """Where its JSON is; that of a trial, which was trained and validated but not ranked, beside it."""
        return results / f"{self.name}{'.trial' if trial else ''}.json"

    def ranks(self, results: Path) -> Path:
        """Where its positives' ranks are, beside its JSON."""
        return results / f"{self.name}.ranks.parquet"

    def instances(self, work: Path) -> Path:
        """Where the metrics of its test instances are, in its working folder."""
        return work / self.name / self.model / "instances-test.parquet"


def finished(file: Path) -> dict[str, Any] | None:
    """The content of a finished cell's JSON; None where it is missing, damaged or failed, and to be computed."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("status") == "done" else None


def run_cell(cell: Cell, results: Path, work: Path, *, trial: bool = False) -> dict[str, Any]:
    """Compute one cell unless its JSON says it is done; returns the JSON's content.

    Two processes with the same cell compute it once. `trial`: stop after validation; the test period is not read, and
    the whole cell goes on from there.
    """
    with exclusive(work / cell.name, "cell"):
        file = cell.file(results, trial=trial)
        known = finished(file)
        if known is not None:
            return known
        content = _run_cell(cell, results, work, trial)
        if content["status"] == "done" and not trial:
            keep_ranks(cell.instances(work), cell.ranks(results))
        write_json(file, content)
        return content


def _run_cell(cell: Cell, results: Path, work: Path, trial: bool) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        body = {"status": "done", **_compute(cell, work, trial)}
    except Exception as error:  # noqa: BLE001 - a model of the user's own may raise anything, and is one cell of many
        logger.error("cell %s failed: %s", cell.name, error)
        trace = traceback.format_exc().splitlines()[-6:]
        body = {
            "status": "failed",
            "reason": f"{type(error).__name__}: {error}",
            "trace": [re.sub(r'File ".*?([^/"]+)"', r'File "\1"', line) for line in trace],
        }
    before = (None if trial else finished(cell.file(results, trial=True))) or {"cost": {}}
    seconds = time.perf_counter() - started + before["cost"].get("seconds", 0.0)
    cost = {**peak_memory(), **body.get("cost", {}), "seconds": round(seconds, 1)}
    return {**_head(cell), **body, "cost": cost}


def _head(cell: Cell) -> dict[str, Any]:
    head: dict[str, Any] = {} if cell.arm is None else {"arm": cell.arm}
    head |= {"model": cell.model, "setting": cell.setting, "seed": cell.seed, "hash": cell.hash}
    return {**head, "parameters": dict(cell.parameters)} | ({} if cell.data is None else {"data": cell.data})


class Processes:
    """The processes of cells that are being computed, so that all can be stopped at once.

    They are forked from one process that has imported everything and done nothing else: importing RecBole takes longer
    than a small cell.
    """

    def __init__(self) -> None:
        self.stopped = False
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload([__name__])
        self._running: set[Any] = set()
        self._lock = threading.Lock()

    def wait(self, target: Callable[..., None], *arguments: Any) -> int:
        """Run `target(*arguments)` in a process of its own to its end; returns its exit status.

        Raises:
            Stopped: `stop` was called before it ended.
        """
        with self._lock:
            if self.stopped:
                raise Stopped
            process = self._context.Process(target=target, args=arguments)
            process.start()
            self._running.add(process)
        try:
            process.join()
        except BaseException:
            process.terminate()
            process.join()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if self.stopped:
            raise Stopped
        return int(process.exitcode)

    def stop(self) -> None:
        """Stop what runs and start nothing more; the cells continue where they are when they are asked for again."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                process.terminate()


class Stopped(Exception):
    """The benchmark is being stopped."""


def in_own_process(
    cell: Cell,
    results: Path,
    work: Path,
    *,
    trial: bool = False,
    threads: int | None = None,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """One cell in a process of its own: its memory is its own, and a cell that dies takes nothing with it.

    What the process prints is kept in `<work>/<cell>/output.log`. `threads`: it computes with; None: as PyTorch does.

    Raises:
        Stopped: `processes` are being stopped, or the process was interrupted; nothing is written.
        ConfigError: the cell is there, but starts from the alignment of another seed.
    """
    file = cell.file(results, trial=trial)
    known = finished(file)
    if known is not None:
        _refuse_other_alignment(cell, known, results)
        return known
    log = work / cell.name / "output.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    status = (processes or Processes()).wait(_in_this_process, cell, results, work, trial, threads, log)
    if status == INTERRUPTED:  # Ctrl-C reaches it before `processes` know
        raise Stopped
    if status and finished(file) is None:  # two threads that ask for it at once: one is told 255 in its place
        reason = f"its process ended with status {status}; see output.log in the cell's folder"
        write_json(file, {**_head(cell), "status": "failed", "reason": reason, "cost": {"seconds": None}})
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _refuse_other_alignment(cell: Cell, content: Mapping[str, Any], results: Path) -> None:
    """Cells with an alignment of their own and cells that share one are no seeds of one thing."""
    made = (content.get("alignment") or {}).get("seed")
    if made not in (None, cell.alignment_seed):
        raise ConfigError(
            f"{results} has a finished cell of {cell.arm}, seed {cell.seed}, that starts from the alignment of seed "
            f"{made}, where alignment_folder and alignment_seed now mean that of seed {cell.alignment_seed}; go back "
            "to what they were, or give another --output"
        )


def _in_this_process(cell: Cell, results: Path, work: Path, trial: bool, threads: int | None, log: Path) -> None:
    """What the process of a cell does: its words go to a file, an interruption of the benchmark ends it quietly, and it
    does not outlive the benchmark."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(log, "ab") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    tqdm.set_lock(threading.RLock())  # its own is of several processes, and not taken down where this one is ended
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with flushed_denormals():
            run_cell(cell, results, work, trial=trial)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, however it comes (`kill -9` tells nobody), and end too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(INTERRUPTED)


def _compute(cell: Cell, work: Path, trial: bool) -> dict[str, Any]:
    folder = work / cell.name
    given = {**cell.parameters, **cell.places, "model": cell.model, "seed": cell.seed, "output": str(folder)}
    shared = {name: Path(given.pop(name)) for name in SHARED_FOLDERS if name in given}
    config = load_config(None, given)
    with log_to(config):
        run = pipeline.Run(config)
        _share(run, shared)
        run.describe()
        started = time.perf_counter()
        aligned = run.align()
        seconds = time.perf_counter() - started
        run.encode()
        forget_peak_memory()  # what was aligned and encoded serves other cells too
        trained = run.finetune()
        report = None if trial else run.evaluate()
    alignment = {} if aligned is None else {"alignment": _alignment(run, aligned, seconds)}
    return {
        "task": run.dataset.kind,
        **(
            {}
            if report is None
            else {"phases": {name: _phase(name, found) for name, found in report["phases"].items()}}
        ),
        **alignment,
        **({} if trained.pretraining is None else {"pretraining": trained.pretraining}),
        "training": _training(config, trained),
        "cost": {"parameters": trained.parameters, **_peak_memory(trained)}
        | ({} if report is None else {"evaluation_seconds": report["evaluation_seconds"]}),
        "environment": machine(),
    }


def _alignment(run: pipeline.Run, held_out: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """How the alignment went; its time is that of the cell that made it, or of its steps where another one did."""
    from recbole_lsvcr.alignment.stage import HEALTH

    log = json.loads((run.alignment_folder / HEALTH).read_text(encoding="utf-8"))["log"]
    steps = sum(entry.get("train_runtime", 0.0) for entry in log)
    made = {"seed": seed_of(run.alignment_folder / ALIGNED)}
    return {**made, "held_out": dict(held_out), "seconds": round(max(seconds, steps), 1), "log": log}


def _phase(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a phase: of validation no slices, which nobody is to choose by."""
    if name == "test":
        return dict(summary)
    protocols = {
        protocol: {key: value for key, value in found.items() if key != "slices"}
        for protocol, found in summary["protocols"].items()
    }
    return {**summary, "protocols": protocols}


def _training(config: LSVCRConfig, trained: pipeline.FinetuneResult) -> dict[str, Any]:
    """What a table and the learning curves need of a training."""
    history, best = trained.history, best_epoch(trained.history)
    left_out = {"valid", *peak_memory()}
    seconds = [entry["train_seconds"] for entry in history]
    to_best = [
        entry["train_seconds"] + entry.get("valid_seconds", 0.0) for entry in history if entry["epoch"] <= (best or 0)
    ]
    return {
        "best_valid_score": trained.best_valid_score if history else None,
        "valid_metric": config["valid_metric"],
        "epochs": len(history),
        "best_epoch": best,
        "seconds_per_epoch": round(sum(seconds) / len(seconds), 2) if seconds else 0.0,
        "seconds_to_best": round(sum(to_best), 2) if best is not None else None,
        "history": [{key: value for key, value in entry.items() if key not in left_out} for entry in history],
    }


def _peak_memory(trained: pipeline.FinetuneResult) -> dict[str, int]:
    """The most memory of training and ranking, whatever the number of processes that did it one after another."""
    held = [peak_memory(), *trained.history, *((trained.pretraining or {}).get("history") or ())]
    return {name: max(entry.get(name, 0) for entry in held) for name in held[0]}


def _share(run: pipeline.Run, shared: Mapping[str, Path]) -> None:
    """Give a run the folders that cells of one benchmark share: candidates, an alignment, a text store."""
    config = run.config
    if "candidates" in shared:
        run.candidates_dir = shared["candidates"]
    aligned = run.alignment_identity() if run.aligned else None
    if "alignments" in shared and aligned is not None and not config["alignment_folder"]:
        known = _with_files(aligned, run.alignment_config.llm)
        config["alignment_folder"] = str(shared["alignments"] / _key(known))
        # Arms that differ in how they are aligned start from one and the same language model.
        small = {name: known[name] for name in ("data", "split", "seed")}
        small |= {name: value for name, value in known["settings"].items() if name.startswith("corpus")}
        run.corpus_lm = shared["alignments"] / f"corpus-{_key(small)}"
    if "stores" in shared and not config["text_store"]:
        settings = {"data": run.dataset.joint.tables.fingerprint} | {name: config[name] for name in TEXT_SETTINGS}
        if aligned is not None:
            settings |= {"alignment": aligned, "text_mlp": run.alignment_config.text_mlp}
        settings = _with_files(settings, config["text_encoder"] if aligned is None else run.alignment_config.llm)
        config["text_store"] = str(shared["stores"] / _key(settings))


def _with_files(settings: dict[str, Any], model: str) -> dict[str, Any]:
    """Settings with what the name of a language model or text encoder among them does not tell, if it is a folder's."""
    content = content_of(model)
    return settings if content is None else {**settings, "files": content}


def _key(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The epoch whose checkpoint is the best one; None without validation."""
    scored = [entry for entry in history if "valid_score" in entry]
    return max(scored, key=lambda entry: (entry["valid_score"], -entry["epoch"]))["epoch"] if scored else None
