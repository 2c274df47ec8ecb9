"""The paper's studies as benchmarks: which cells are computed, with which parameters, and what they are compared with.

Nothing is trained: a cell's score is made up from its settings, in this process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from benchmark_cells import ranked
from conftest import TINY

from dataset_tools.files import write_json
from recbole_lsvcr.benchmark.cell import Cell, Processes
from recbole_lsvcr.benchmark.run import Options, run_benchmark

ALIGNMENT = {"preset": "cpu-small", "steps": 20}
OPTIONS = Options(names=("popularity", "sasrec", "zam"), ablation=True, steps=(0, 10, 20), cold=True, jobs=3)


@pytest.fixture(scope="module")
def study(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Cell, bool]]]:
    """The folder of a benchmark with all presets, and its computed cells in order, with whether they are trials."""
    folder, computed = tmp_path_factory.mktemp("presets"), []

    def wait(
        self: Processes, target: Any, cell: Cell, results: Path, work: Path, trial: bool, threads: int, log: Path
    ) -> int:
        computed.append((cell, trial))
        score = 0.5 - abs(cell.parameters.get("learning_rate", 0.1) - 0.003 * (1 + len(cell.model) % 2))
        instances, summary = ranked(score, cell.seed)
        content: dict[str, Any] = {
            "arm": cell.arm,
            "model": cell.model,
            "setting": cell.setting,
            "seed": cell.seed,
            "parameters": dict(cell.parameters),
            "status": "done",
            "training": {
                "best_valid_score": score,
                "valid_metric": "NDCG@5",
                "epochs": 1,
                "best_epoch": 0,
                "seconds_per_epoch": 1.0,
                "seconds_to_best": 1.0,
                "history": [],
            },
            "cost": {"seconds": 1.0, "evaluation_seconds": {"test": 1.0}},
        }
        if cell.parameters.get("alignment"):
            steps = dict(cell.parameters["alignment"])["steps"]
            content["alignment"] = {"held_out": {"lm": 3.0}, "seconds": 1.0, "log": [{"step": steps, "loss": 9.0}]}
        if not trial:
            content["phases"] = {"test": summary}
            (work / cell.name / cell.model).mkdir(parents=True)
            instances.write_parquet(work / cell.name / cell.model / "instances-test.parquet")
        write_json(cell.file(results, trial=trial), content)
        return 0

    settings = {key: value for key, value in TINY.items() if key not in ("seed", "learning_rate", "epochs")}
    given = {
        **settings,
        "task": "both",
        "data_path": str(tiny_data),
        "output": str(folder),
        "alignment": ALIGNMENT,
        "seeds": [1, 2],
        "tune": {"budget": 3, "space": {"learning_rate": [0.01, 0.006, 0.003]}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "wait", wait)
        text, incomplete = run_benchmark(given, OPTIONS)
    assert not incomplete, text
    return folder, computed


def arms(folder: Path, task: str) -> list[Mapping[str, Any]]:
    return json.loads((folder / "results.json").read_text())["tasks"][task]["arms"]


def test_no_cell_is_computed_twice_though_studies_share_arms(study: tuple[Path, list[tuple[Cell, bool]]]) -> None:
    names = [(cell.name, trial) for cell, trial in study[1]]
    assert len(names) == len(set(names))
    settings = {(cell.model, cell.setting) for cell, trial in study[1]}
    variants = {"no-ssc", "no-vcc", "no-diversification", "no-random-positions", "no-alignment", "no-reg", "no-id"}
    for ours in ("LSVCR", "LSVCRComment"):
        assert {setting for model, setting in settings if model == ours} == {"main", "steps-10", *variants}
    assert {("UniSRec", "inductive"), ("CommentMHA", "main")} <= settings  # Figure 4's, though nobody named them


@pytest.mark.parametrize(("task", "ours", "others"), [
    ("video", "LSVCR", ["Popularity", "SASRec"]),
    ("comment", "LSVCRComment", ["CommentZAM"]),
])  # fmt: skip
def test_the_groups_of_the_report(
    study: tuple[Path, list[tuple[Cell, bool]]], task: str, ours: str, others: list[str]
) -> None:
    found: dict[str, list[str]] = {}
    for arm in arms(study[0], task):
        assert arm["status"] == "done"
        found.setdefault(arm["group"], []).append(arm["name"])
    cold = {"video": "UniSRec", "comment": "CommentMHA"}[task]
    assert found["main"] == [*others, ours]
    assert len(found["ablation"]) == 7 and found["ablation"][0] == ours
    assert found["alignment-steps"] == ["0 steps", "10 steps", "20 steps"]
    assert set(found["cold"]) == {cold, ours, f"{ours} without ids"}


def test_variants_take_the_parameters_of_the_whole_and_cold_arms_their_own(
    study: tuple[Path, list[tuple[Cell, bool]]],
) -> None:
    for task in ("video", "comment"):
        found = {(arm["group"], arm["name"]): arm for arm in arms(study[0], task)}
        whole = next(arm for (group, _), arm in found.items() if group == "main" and arm["role"] == "ours")
        assert whole["chosen"]["learning_rate"] in (0.003, 0.006)
        for (group, name), arm in found.items():
            if group in ("ablation", "alignment-steps"):
                assert arm["chosen"] == whole["chosen"] and (arm["setting"] == "main" or not arm["trials"])
            if group == "cold":
                assert len(arm["trials"]) == 3, name


def test_each_study_is_compared_with_what_it_is_about(study: tuple[Path, list[tuple[Cell, bool]]]) -> None:
    results = json.loads((study[0] / "results.json").read_text())
    for task, ours in (("video", "LSVCR"), ("comment", "LSVCRComment")):
        compared: dict[str, set[str]] = {}
        for one in results["tasks"][task]["comparisons"]:
            compared.setdefault(one["group"], set()).add(one["baseline"] if one["group"] != "main" else one["arm"])
        assert compared == {
            "main": {ours},
            "ablation": {ours},
            "alignment-steps": {"0 steps"},
            "cold": {f"{ours} without ids"},
        }
    page = (study[0] / "report.html").read_text()
    for heading in ("Ablation", "Alignment", "Cold start"):
        assert heading in page


def test_alignments_are_shared_by_what_decides_them_only(study: tuple[Path, list[tuple[Cell, bool]]]) -> None:
    aligned = {
        json.dumps(dict(cell.parameters["alignment"]), sort_keys=True)
        for cell, _ in study[1]
        if cell.parameters.get("alignment")
    }
    assert len(aligned) == 6  # the whole, four parts of the alignment, ten steps; REG and ids are no part of it
    assert all("alignment" not in cell.parameters for cell, _ in study[1] if not cell.model.startswith("LSVCR"))
