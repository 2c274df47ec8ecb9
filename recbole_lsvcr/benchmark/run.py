"""A benchmark from its configuration to its report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset_tools.errors import DataToolError
from dataset_tools.files import write_json
from dataset_tools.portrait_numbers import count
from dataset_tools.portrait_warnings import warnings
from recbole_lsvcr.benchmark.aggregate import StudyCells, aggregate
from recbole_lsvcr.benchmark.arm_cells import ArmCells, FinalCell
from recbole_lsvcr.benchmark.cell import finished
from recbole_lsvcr.benchmark.ranks import Lists
from recbole_lsvcr.benchmark.report import write_report
from recbole_lsvcr.benchmark.study import CELLS, WORK, Options, Outcome, Study
from recbole_lsvcr.benchmark.vocabulary import ABLATION, COLD, MAIN, STEPS
from recbole_lsvcr.config import LSVCRConfig, plain
from recbole_lsvcr.data.tables import is_synthetic
from recbole_lsvcr.environment import command, machine
from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.report import aligned, log_to
from recbole_lsvcr.trainer import selection_protocol

__all__ = ["Options", "run_benchmark"]

logger = logging.getLogger()
RESULTS, PORTRAIT = "results.json", "portrait.json"
# What every model of a task has in common, beside data and split.
_SHARED = (
    "MAX_ITEM_LIST_LENGTH",
    "epochs",
    "eval_step",
    "stopping_step",
    "train_batch_size",
    "sample_num",
    "candidate_seed",
    "text_encoder",
    "text_transform",
)
_SHOWN = ("recall@10", "ndcg@10", "mrr@10")


def run_benchmark(given: Mapping[str, Any], options: Options) -> tuple[str, bool]:
    """Compute what is missing, and write `results.json` and the report into the output folder.

    Returns:
        The main tables as text, and whether some arm lacks a cell.

    Raises:
        ConfigError, DataError: what in the configuration or the data cannot be used.
        KeyboardInterrupt: it was interrupted; the same command continues.
    """
    with log_to({"output": given.get("output"), "state": given.get("state")}):
        study = Study(given, options)
        study.run()
        _restore(study)
        results = aggregate(_planned(study), study.folder)
        write_json(study.folder / RESULTS, results)
        write_report(results, study.folder)
    incomplete = any(arm["status"] != "done" for task in results["tasks"].values() for arm in task["arms"])
    return f"{_text(results)}\nreport: {study.folder / 'report.html'}\n", incomplete


def _restore(study: Study) -> None:
    """Make the instances again of cells that were brought without their working folder."""
    lists, cells, work = Lists(study.folder / WORK / "candidates"), study.folder / CELLS, study.folder / WORK
    for arm, outcome in study.outcomes.items():
        for cell in outcome.cells.values():
            content, ranks, instances = finished(cell.file(cells)), cell.ranks(cells), cell.instances(work)
            summary = (content or {}).get("phases", {}).get("test")
            if summary and ranks.is_file() and not instances.is_file():
                try:
                    lists.restore(study.configuration(arm), summary, ranks, instances, seed=cell.seed)
                except EvaluationError as error:
                    logger.warning("%s, seed %d: not in the comparisons, %s", cell.arm, cell.seed, error)


def _planned(study: Study) -> StudyCells:
    """The study as its cells are to be read."""
    ours = {arm.task: study.configuration(arm) for arm in study.main if arm.role == "ours"}
    config = next(iter(ours.values()))
    return StudyCells(
        dataset=str(config["dataset"]),
        synthetic=is_synthetic(Path(config["data_path"])),
        split=", ".join(f"{key} {value}" for key, value in config["eval_args"]["split"].items()),
        history=int(config["MAX_ITEM_LIST_LENGTH"]),
        seeds=study.seeds,
        selection="; ".join(
            f"{task}s: {config['valid_metric']} on validation under {_selected_by(task, config)}"
            for task, config in ours.items()
        ),
        command=command(),
        environment=machine(),
        shared={**{name: plain(config[name]) for name in _SHARED}, "embedding size": study.size},
        arms=[_arm_cells(study, study.outcomes[arm]) for arm in study.arms],
        tune={"budget": study.tuning.budget, "space": plain(study.tuning.space)} if study.tuning.budget else None,
        portrait=_portrait(config, study),
        references={
            ABLATION: MAIN,
            STEPS: next((arm.setting for arm in study.presets if arm.group == STEPS), MAIN),
            COLD: "no-id",
        },
        primary={task: _selected_by(task, config) for task, config in ours.items()},
    )


def _selected_by(task: str, config: LSVCRConfig) -> str:
    """The ranking by which models are chosen, and judged."""
    return str(selection_protocol(config, comments=task == "comment"))


def _arm_cells(study: Study, outcome: Outcome) -> ArmCells:
    arm = outcome.arm
    return ArmCells(
        name=arm.name,
        model=arm.model,
        task=arm.task,
        setting=arm.setting,
        group=arm.group,
        role=arm.role,
        cells=[FinalCell(seed, cell.name) for seed, cell in outcome.cells.items()],
        chosen=outcome.chosen,
        trials=[cell.file(Path(CELLS), trial=True) for _, cell in outcome.trials],
        tuned=list(study.space(arm)),
        failed=outcome.failed,
    )


def _portrait(config: LSVCRConfig, study: Study) -> dict[str, Any] | None:
    """The data set's portrait, counted once for these data; None, with a warning, where it cannot be."""
    file, encoder = study.folder / PORTRAIT, str(config["text_encoder"])
    head = {"data": study.data, "encoder": encoder}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = None
    if isinstance(known, dict) and {key: known.get(key) for key in head} == head:
        return known
    try:
        numbers = count(Path(config["data_path"]))
    except DataToolError as error:
        logger.warning("the report has no portrait of the data set: %s", error)
        return None
    found = {**head, **asdict(numbers), "warnings": [asdict(hint) for hint in warnings(numbers, encoder)]}
    write_json(file, found)
    return found


def _text(results: Mapping[str, Any]) -> str:
    """The main arms of each task under the primary ranking, for the terminal."""
    lines = []
    for name, task in results["tasks"].items():
        protocol = task["primary"]["protocol"]
        synthetic = " (synthetic data)" if results["synthetic"] else ""
        lines.append(f"\n{results['dataset']}{synthetic}, {name}s, test, {protocol}; mean ± std of seeds")
        rows = [["model", *_SHOWN, "seeds"]]
        for arm in task["arms"]:
            if arm["group"] == MAIN:
                found = arm["quality"].get(protocol, {}).get("all", {})
                rows.append([arm["name"], *(_spread(found.get(metric)) for metric in _SHOWN), str(len(arm["seeds"]))])
        lines += aligned(rows)
        for arm in task["arms"]:
            if arm["reason"]:
                lines.append(f"{arm['name']} is {arm['status']}: {arm['reason']}")
    return "\n".join(lines) + "\n"


def _spread(value: Mapping[str, Any] | None) -> str:
    if value is None or value["mean"] is None:
        return "-"
    return f"{value['mean']:.4f}" + ("" if value["std"] is None else f" ± {value['std']:.4f}")
