"""The stages of a run, as functions of a typed Python API: `align`, `encode`, `finetune`, `evaluate`; each may be
repeated and continues where it was stopped.

from recbole_lsvcr import pipeline
config = pipeline.load_config("my.yaml", {"output": "runs/mine"})
pipeline.align(config); pipeline.encode(config); pipeline.finetune(config); report = pipeline.evaluate(config)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dataset_tools.files import write_json
from recbole_lsvcr.config import LSVCRConfig, load_config, load_configs, output_folder
from recbole_lsvcr.encoding import TextStore
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.pretraining import check_stage
from recbole_lsvcr.task_run import FinetuneResult, Run

__all__ = ["STAGES", "FinetuneResult", "Run", "align", "encode", "evaluate", "finetune", "load_config", "load_configs"]
__all__ += ["run", "run_tasks"]

STAGES = ("prepare", "align", "encode", "finetune", "evaluate", "all")


def align(config: LSVCRConfig) -> dict[str, Any] | None:
    """Stage `align`: held-out figures of the alignment (None without alignment)."""
    return Run(config).align()


def encode(config: LSVCRConfig) -> TextStore | None:
    """Stage `encode`: the text store of the run (None for a model that reads no text)."""
    return Run(config).encode()


def finetune(config: LSVCRConfig) -> FinetuneResult:
    """Stage `finetune`: train the model; the text store must exist."""
    return Run(config).finetune()


def evaluate(config: LSVCRConfig) -> dict[str, Any]:
    """Stage `evaluate`: rank and report; the trained model must exist."""
    return Run(config).evaluate()


def run(config: LSVCRConfig, stage: str = "all") -> dict[str, Any] | None:
    """One stage or all of them in order; returns the report when `evaluate` is among them.

    Raises:
        ConfigError: an unknown stage. Whatever the stages raise.
    """
    return next(iter(run_tasks([config], stage)), None)


def run_tasks(configs: Sequence[LSVCRConfig], stage: str = "all") -> list[dict[str, Any]]:
    """`run` for each task (`load_configs`); returns the reports when `evaluate` is among the stages.

    Several tasks share the output folder, and with it the alignment and the text store; with `joint` they share the
    model, too. Their reports stand together in `report.json`.

    Raises:
        As `run`.
    """
    if stage not in STAGES:
        raise ConfigError(f"stage '{stage}' is not known; accepted: {', '.join(STAGES)}")
    if stage != "align" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"stage {stage} runs in one process, only align in several: start torchrun with --stage align, and the "
            "other stages without torchrun"
        )
    runs: list[Run] = []
    for config in configs:  # what is wrong with the data of a later task is said before the first one's work
        check_stage(config, stage)
        runs.append(Run(config, runs[0].dataset.joint if runs else None))
        runs[-1].describe()
        runs[-1].dataset  # noqa: B018
    if stage == "prepare":
        runs[0].prepare(tuple(current.dataset.kind for current in runs))
    if stage in ("align", "all"):
        runs[0].align()
    if stage in ("encode", "all"):
        for current in runs:
            current.encode()
    if stage in ("finetune", "all"):
        if len(runs) > 1 and configs[0]["joint"]:
            runs[0].finetune_with(runs[1])
        else:
            for current in runs:
                current.finetune()
    reports = [current.evaluate() for current in runs] if stage in ("evaluate", "all") else []
    if len(reports) > 1:
        write_json(output_folder(configs[0]) / "report.json", {report["task"]: report for report in reports})
    return reports
