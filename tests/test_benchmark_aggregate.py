"""Cells on disk to `results.json`: its schema, arms that are not whole, candidates that differ, and the comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from benchmark_cells import FULL, METRICS, PERIOD, ranked

from dataset_tools.files import write_json
from recbole_lsvcr.benchmark.aggregate import ArmCells, FinalCell, StudyCells, aggregate

GAINS = {"SASRec": 0.3, "UniSRec": 0.35, "Popularity": 0.1, "LSVCR": 0.5}


def _arm(name: str, role: Any, seeds: Sequence[int] = (1, 2), **changes: Any) -> ArmCells:
    setting = changes.get("setting", "plain")
    cells = [FinalCell(seed, f"tiny.{setting}.{name.split()[0]}.{seed}") for seed in seeds]
    return replace(ArmCells(name, name.split()[0], "video", "plain", "main", role, cells), **changes)


def _cell(folder: Path, arm: ArmCells, seed: int, gain: float, hash: str = "abc", rows: int = 24) -> None:
    """A finished cell of an arm, and the instances it speaks of."""
    (cell,) = (one for one in arm.cells if one.seed == seed)
    instances, summary = ranked(gain, seed, hash, rows)
    learns = arm.role != "rule"
    history = [
        {"epoch": 0, "losses": [2.0, 1.0], "train_seconds": 1.0, "valid_score": 0.2},
        {"epoch": 1, "losses": [float("inf")], "train_seconds": 3.0},
    ]
    content: dict[str, Any] = {
        "model": arm.model,
        "seed": seed,
        "parameters": {"dataset": "tiny", "learning_rate": 0.01},
        "status": "done",
        "phases": {"valid": None, "test": summary},
        "training": {
            "best_valid_score": 0.2 if learns else None,
            "epochs": 2 if learns else 0,
            "best_epoch": 0 if learns else None,
            "seconds_per_epoch": 1.0 + seed if learns else 0.0,
            "seconds_to_best": 1.0 if learns else 0.0,
            "history": history if learns else [],
        },
        "cost": {
            "parameters": 1000,
            "peak_memory_mb": 500 + seed,
            "evaluation_seconds": {"valid": 9.0, "test": 2.0},
        },
    }
    if arm.role == "ours":
        log = [{"step": 10, "lm": 4.0}, {"step": 20, "lm": 3.5}]
        content["alignment"] = {"held_out": {"lm": 3.6}, "seconds": 60.0, "log": log}
    (folder / "cells").mkdir(exist_ok=True)
    (folder / "cells" / f"{cell.name}.json").write_text(json.dumps(content))
    work = folder / (cell.work or f"work/{cell.name}") / arm.model
    work.mkdir(parents=True, exist_ok=True)
    instances.sample(fraction=1, shuffle=True, seed=seed).write_parquet(work / "instances-test.parquet")


def _study(arms: Sequence[ArmCells], **changes: Any) -> StudyCells:
    study = StudyCells(
        dataset="tiny",
        synthetic=False,
        split="time 0.8/0.9",
        history=20,
        seeds=(1, 2),
        selection="NDCG@5 on validation, available+period",
        command=["lsvcr", "--benchmark"],
        environment={"cores": np.int64(2), "speed": float("nan")},
        shared={"epochs": 5},
        arms=arms,
    )
    return replace(study, **changes)


ARMS = (
    _arm("LSVCR", "ours"),
    _arm("SASRec", "baseline", (1, 2, 3), chosen={"learning_rate": 0.01}),
    _arm("UniSRec", "baseline"),
    _arm("Popularity", "rule", (1,)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for arm in ARMS:
        for cell in arm.cells:
            _cell(tmp_path, arm, cell.seed, GAINS[arm.name] + cell.seed / 100)
    return tmp_path


def _only(entries: Sequence[Mapping[str, Any]], **wanted: Any) -> Mapping[str, Any]:
    (found,) = (one for one in entries if all(one[name] == value for name, value in wanted.items()))
    return found


def _named(task: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _only(task["arms"], name=name)


def _compared(task: Mapping[str, Any], baseline: str, protocol: str = PERIOD, part: str = "all") -> Mapping[str, Any]:
    return _only(task["comparisons"], baseline=baseline, protocol=protocol, slice=part, metric="ndcg@10")


NUMBER, TEXT, FLAG, NULL = (int, float), str, bool, type(None)
TOP = {
    "format": int, "dataset": TEXT, "synthetic": FLAG, "split": TEXT, "history": int, "seeds": list, "selection": TEXT,
    "command": list, "environment": dict, "tune": (dict, NULL), "shared": dict, "tasks": dict, "portrait": (dict, NULL),
}  # fmt: skip
TASK = {
    "protocols": list, "metrics": list, "primary": dict, "ranked": dict, "slices": list, "arms": list,
    "comparisons": list, "notes": list,
}  # fmt: skip
RANKED = {
    "instances": int, "users": int, "mean_length": NUMBER, "left_out": int, "enough": (int, NULL),
    "candidates_hash": (TEXT, NULL), "chance": dict,
}  # fmt: skip
ARM = {
    "name": TEXT, "model": TEXT, "setting": TEXT, "group": TEXT, "role": TEXT, "status": TEXT, "reason": (TEXT, NULL),
    "chosen": dict, "trials": list, "seeds": list, "quality": dict, "cost": dict, "curves": list,
    "alignment": (dict, NULL),
}  # fmt: skip
TRIAL = {"parameters": dict, "seed": (int, NULL), "valid_score": (float, NULL), "status": TEXT, "reason": (TEXT, NULL)}
COST = dict.fromkeys(
    ("parameters", "seconds_per_epoch", "seconds_to_best", "pretraining_seconds", "alignment_seconds",
     "peak_memory_mb", "ranked_per_second"), (*NUMBER, NULL)
)  # fmt: skip
CURVE = {"seed": int, "epochs": list, "loss": list, "valid": list, "best_epoch": (int, NULL)}
ALIGNMENT = {"held_out": dict, "steps": (int, NULL), "log": list}
COMPARISON = {
    "group": TEXT, "protocol": TEXT, "metric": TEXT, "slice": TEXT, "arm": TEXT, "baseline": TEXT, "best": FLAG,
    "mean": float, "low": (float, NULL), "high": (float, NULL), "relative": (float, NULL), "p": (float, NULL),
    "p_holm": (float, NULL), "instances": int, "users": int, "seeds": dict,
}  # fmt: skip


def _walk(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    assert not set(schema) - set(entry)
    for name, kind in schema.items():
        assert isinstance(entry[name], kind), (name, entry[name])


def _validate(content: Mapping[str, Any]) -> None:
    """Every documented key is there with its type, nothing but finite numbers, and names refer to what there is."""
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    _walk(content, TOP)
    for task in content["tasks"].values():
        _walk(task, TASK)
        assert set(task["primary"]) == {"protocol", "metric"}
        assert list(task["ranked"]) == task["protocols"]
        for lists in task["ranked"].values():
            _walk(lists, RANKED)
        names = {(arm["group"], arm["name"]) for arm in task["arms"]}
        assert len(names) == len(task["arms"])
        for arm in task["arms"]:
            _walk(arm, ARM)
            _walk(arm["cost"], COST)
            for entries, schema in ((arm["trials"], TRIAL), (arm["curves"], CURVE)):
                for entry in entries:
                    _walk(entry, schema)
            if arm["alignment"]:
                _walk(arm["alignment"], ALIGNMENT)
            for parts in arm["quality"].values():
                assert next(iter(parts)) == "all" and set(parts) <= set(task["slices"])
                for entry in parts.values():
                    assert entry["instances"] >= entry["users"] > 0
                    for metric in set(entry) - {"instances", "users"}:
                        _walk(entry[metric], {"mean": float, "std": (float, NULL), "values": dict})
                        assert {int(seed) for seed in entry[metric]["values"]} <= set(arm["seeds"])
        for one in task["comparisons"]:
            _walk(one, COMPARISON)
            assert {one["arm"], one["baseline"]} <= {name for _, name in names} and one["slice"] in task["slices"]
            assert one["low"] is None or one["low"] <= one["mean"] <= one["high"]
            assert one["p"] is None or 0 <= one["p"] <= one["p_holm"] <= 1


def test_a_whole_study(folder: Path) -> None:
    content = aggregate(_study(ARMS), folder)
    _validate(content)
    assert content["environment"] == {"cores": 2, "speed": None}
    task = content["tasks"]["video"]
    assert [arm["name"] for arm in task["arms"]] == ["Popularity", "SASRec", "UniSRec", "LSVCR"]
    assert task["protocols"] == [PERIOD, FULL] and task["metrics"] == list(METRICS) and task["notes"] == []
    assert task["primary"] == {"protocol": PERIOD, "metric": "ndcg@10"}
    assert task["slices"] == ["all", "seen_items", "unseen_items", "unseen_users", "history_1-4"]  # none for no_records
    assert len(task["comparisons"]) == 3 * 2 * 4 * 3  # baselines, protocols, slices compared, metrics
    assert {arm["status"] for arm in task["arms"]} == {"done"}


def test_means_costs_and_curves_of_an_arm(folder: Path) -> None:
    arm = _named(aggregate(_study(ARMS), folder)["tasks"]["video"], "SASRec")
    found = arm["quality"][PERIOD]["all"]["ndcg@10"]
    assert list(found["values"]) == ["1", "2", "3"]
    assert found["mean"] == pytest.approx(np.mean(list(found["values"].values())))
    assert found["std"] == pytest.approx(np.std(list(found["values"].values()), ddof=1))
    assert arm["cost"] == {
        "parameters": 1000,
        "seconds_per_epoch": 3.0,
        "seconds_to_best": 1.0,
        "pretraining_seconds": None,
        "alignment_seconds": None,
        "peak_memory_mb": 503,
        "ranked_per_second": 12.0,  # 24 instances in 2 s, under two protocols
    }
    curve = {"seed": 1, "epochs": [0, 1], "loss": [3.0, None], "valid": [0.2, None], "best_epoch": 0}
    assert arm["curves"][0] == curve and arm["alignment"] is None


def test_a_rule_has_one_seed_and_no_epochs(folder: Path) -> None:
    task = aggregate(_study(ARMS), folder)["tasks"]["video"]
    rule = _named(task, "Popularity")
    assert rule["quality"][FULL]["all"]["mrr"]["std"] is None
    assert rule["cost"]["seconds_per_epoch"] is None and rule["curves"] == []
    assert _compared(task, "Popularity")["seeds"] == {"arm": 2, "baseline": 1}


def test_alignment_is_shown_with_its_steps(folder: Path) -> None:
    arm = _named(aggregate(_study(ARMS), folder)["tasks"]["video"], "LSVCR")
    assert arm["alignment"]["steps"] == 20 and arm["alignment"]["held_out"] == {"lm": 3.6}
    assert arm["cost"]["alignment_seconds"] == 60.0


def test_the_difference_is_that_of_the_means(folder: Path) -> None:
    task = aggregate(_study(ARMS), folder)["tasks"]["video"]
    for one in task["comparisons"]:
        arms = [
            _named(task, one[side])["quality"][one["protocol"]][one["slice"]][one["metric"]]["mean"]
            for side in ("arm", "baseline")
        ]
        assert one["mean"] == pytest.approx(arms[0] - arms[1], abs=1e-12)
        assert one["relative"] == pytest.approx(one["mean"] / arms[1])
        assert one["best"] == (one["baseline"] == "UniSRec")
    lone = _compared(task, "SASRec", part="unseen_users")
    assert (lone["users"], lone["low"], lone["p"], lone["p_holm"]) == (1, None, None, None)


def test_holm_is_over_the_baselines(folder: Path) -> None:
    task = aggregate(_study(ARMS), folder)["tasks"]["video"]
    family = [_compared(task, name) for name in ("Popularity", "SASRec", "UniSRec")]
    ordered = sorted(family, key=lambda one: one["p"])
    assert ordered[0]["p_holm"] == pytest.approx(3 * ordered[0]["p"])
    assert ordered[1]["p_holm"] == pytest.approx(max(ordered[0]["p_holm"], 2 * ordered[1]["p"]))


def test_of_two_best_baselines_alike_the_first_is_named(folder: Path) -> None:
    twin = _arm("Twin", "baseline", (1, 2))
    for cell in twin.cells:
        _cell(folder, twin, cell.seed, GAINS["UniSRec"] + cell.seed / 100)
    for arms, first in (((*ARMS, twin), "UniSRec"), ((twin, *ARMS), "Twin")):
        task = aggregate(_study(arms), folder)["tasks"]["video"]
        assert {one["baseline"] for one in task["comparisons"] if one["best"]} == {first}


def test_cells_that_failed_or_are_missing(folder: Path) -> None:
    arms = (*ARMS, _arm("DMT", "baseline"), _arm("MBHT", "baseline"))
    write_json(folder / "cells/tiny.plain.DMT.1.json", {"status": "failed", "reason": "ValueError: no", "cost": {}})
    write_json(folder / "cells/tiny.plain.DMT.2.json", {"status": "failed", "reason": "ValueError: no", "cost": {}})
    (folder / "cells/tiny.plain.UniSRec.2.json").write_text("{")
    (folder / "cells/tiny.plain.SASRec.3.json").unlink()
    content = aggregate(_study(arms), folder)
    _validate(content)
    task = content["tasks"]["video"]
    found = {arm["name"]: (arm["status"], arm["seeds"]) for arm in task["arms"]}
    assert found["DMT"] == ("failed", []) and found["MBHT"] == ("missing", [])
    assert found["SASRec"] == ("partial", [1, 2]) and found["UniSRec"] == ("partial", [1])
    assert _named(task, "DMT")["reason"] == "seeds 1, 2: ValueError: no"
    assert _named(task, "SASRec")["reason"] == "seed 3: not computed"
    assert "cannot be read" in _named(task, "UniSRec")["reason"]
    assert "SASRec: 2 of 3 cells are finished (seed 3: not computed)" in task["notes"] and len(task["notes"]) == 4
    assert _compared(task, "UniSRec")["seeds"] == {"arm": 2, "baseline": 1}
    assert not any(one["baseline"] in ("DMT", "MBHT") for one in task["comparisons"])


def test_arms_whose_tuning_failed_or_has_not_ended(folder: Path) -> None:
    arms = (*ARMS, _arm("DMT", "baseline", (), failed="every trial failed"), _arm("MBHT", "baseline", ()))
    task = aggregate(_study(arms), folder)["tasks"]["video"]
    assert [(arm["status"], arm["reason"]) for arm in map(_named, [task] * 2, ("DMT", "MBHT"))] == [
        ("failed", "every trial failed"),
        ("missing", "not computed yet"),
    ]
    assert task["notes"] == [
        "DMT: no cell is finished (every trial failed)",
        "MBHT: no cell is finished (not computed yet)",
    ]


def test_nothing_computed_yet(tmp_path: Path) -> None:
    content = aggregate(_study(ARMS), tmp_path)
    _validate(content)
    task = content["tasks"]["video"]
    assert task["protocols"] == task["comparisons"] == [] and task["primary"]["protocol"] is None
    assert len(task["notes"]) == 4


@pytest.mark.parametrize(("hash", "rows"), [("other", 24), ("abc", 20)])
def test_other_candidates_or_instances_are_said_and_not_compared(folder: Path, hash: str, rows: int) -> None:
    for cell in ARMS[2].cells:
        _cell(folder, ARMS[2], cell.seed, 0.9, hash, rows)
    content = aggregate(_study(ARMS), folder)
    _validate(content)
    task = content["tasks"]["video"]
    under = [one["protocol"] for one in task["comparisons"] if one["baseline"] == "UniSRec"]
    assert set(under) == ({FULL} if rows == 24 else set())  # all+full draws nothing that could differ
    assert "LSVCR (24 instances of 8 users, candidates abc)" in task["notes"][0]
    assert f"UniSRec ({rows} instances of" in task["notes"][0] and task["notes"][0].endswith(
        f"under {PERIOD}: not compared"
    )
    assert len(task["notes"]) == (1 if rows == 24 else 2)
    assert {one["baseline"] for one in task["comparisons"] if one["best"] and one["protocol"] == PERIOD} == {"SASRec"}


def test_seeds_ranked_against_different_candidates(folder: Path) -> None:
    _cell(folder, ARMS[1], 2, 0.3, hash="other")
    task = aggregate(_study(ARMS), folder)["tasks"]["video"]
    assert task["notes"] == [
        f"the seeds of SASRec were ranked against different candidates under {PERIOD}: not compared"
    ]
    assert {one["protocol"] for one in task["comparisons"] if one["baseline"] == "SASRec"} == {FULL}


def test_instances_that_are_gone_or_of_another_run(folder: Path) -> None:
    files = {seed: folder / f"work/tiny.plain.SASRec.{seed}/SASRec/instances-test.parquet" for seed in (1, 2, 3)}
    files[1].unlink()
    files[2].write_bytes(files[3].read_bytes())
    task = aggregate(_study(ARMS), folder)["tasks"]["video"]
    assert _compared(task, "SASRec")["seeds"] == {"arm": 2, "baseline": 1}
    assert _named(task, "SASRec")["seeds"] == [1, 2, 3]
    assert [note.split(":")[0] for note in task["notes"]] == ["SASRec, seed 1", "SASRec, seed 2"]
    assert "no longer there" in task["notes"][0] and "its JSON differ" in task["notes"][1]
    files[3].write_bytes(b"no Parquet")
    task = aggregate(_study(ARMS), folder)["tasks"]["video"]
    assert "cannot be read" in task["notes"][2] and not any(x["baseline"] == "SASRec" for x in task["comparisons"])
    assert str(folder) not in json.dumps(task)
    files[2].unlink()
    notes = aggregate(_study(ARMS), folder)["tasks"]["video"]["notes"]
    assert notes[0].startswith(
        "SASRec, seeds 1, 2: not in the comparisons, its instances-test.parquet is no longer there"
    )


def test_cells_of_several_machines_or_versions_are_told(folder: Path) -> None:
    def computed(cell: str, threads: int, torch: str) -> None:
        file = folder / f"cells/tiny.plain.{cell}.json"
        environment = {"system": "Linux", "torch_threads": threads, "packages": {"torch": torch, "numpy": "1.26.4"}}
        file.write_text(json.dumps({**json.loads(file.read_text()), "environment": environment}))

    computed("LSVCR.1", 1, "2.13.0")
    computed("SASRec.2", 1, "2.13.0")
    assert not aggregate(_study(ARMS), folder)["tasks"]["video"]["notes"]
    computed("SASRec.2", 2, "2.6.0")
    (note,) = aggregate(_study(ARMS), folder)["tasks"]["video"]["notes"]
    assert note.endswith("do not compare: torch_threads 1 or 2; torch 2.13.0 or 2.6.0")


def test_a_metric_that_is_no_number_is_nowhere(folder: Path) -> None:
    file = folder / "cells/tiny.plain.SASRec.2.json"
    content = json.loads(file.read_text())
    content["phases"]["test"]["protocols"][PERIOD]["metrics"]["ndcg@10"] = float("nan")
    file.write_text(json.dumps(content))
    content = aggregate(_study(ARMS), folder)
    _validate(content)
    task = content["tasks"]["video"]
    assert list(_named(task, "SASRec")["quality"][PERIOD]["all"]["ndcg@10"]["values"]) == ["1", "3"]
    assert _compared(task, "SASRec")["seeds"] == {"arm": 2, "baseline": 2} and "differ" in task["notes"][0]


def test_other_groups_are_compared_with_their_reference(folder: Path) -> None:
    ablations = [_arm("LSVCR w/o records", "ours", setting="no-records", group="ablation")]
    ablations += [_arm("LSVCR w/o ids", "ours", setting="no-ids", group="ablation")]
    steps = [_arm(f"LSVCR {n}", "ours", setting=f"steps-{n}", group="alignment-steps") for n in (0, 500)]
    cold = [_arm("LSVCR cold", "ours", setting="cold", group="cold")]
    for number, arm in enumerate((*ablations, *steps, *cold)):
        for cell in arm.cells:
            _cell(folder, arm, cell.seed, 0.2 + number / 100, hash="cold" if arm.group == "cold" else "abc")
    arms = (*ARMS, *ablations, *steps, *cold)
    references = {"ablation": "plain", "alignment-steps": "steps-0"}
    content = aggregate(_study(arms, references=references), folder)
    _validate(content)
    task = content["tasks"]["video"]
    other = [one for one in task["comparisons"] if one["group"] != "main"]
    found = {(one["group"], one["arm"], one["baseline"]) for one in other}
    assert found == {
        ("ablation", "LSVCR w/o records", "LSVCR"),  # several arms of main are `plain`: ours is meant
        ("ablation", "LSVCR w/o ids", "LSVCR"),
        ("alignment-steps", "LSVCR 500", "LSVCR 0"),
    }
    assert not any(one["best"] for one in other)
    one = _only(other, group="alignment-steps", protocol=PERIOD, metric="mrr@10", slice="all")
    assert one["p_holm"] == one["p"]  # a family of one
    assert task["notes"] == ["group cold is not compared: it has no reference"]
    task = aggregate(_study(arms, references={**references, "cold": "plain"}), folder)["tasks"]["video"]
    assert len(task["notes"]) == 1 and f"not ranked against the same candidates under {PERIOD}" in task["notes"][0]


def test_trials_show_what_was_tuned(folder: Path) -> None:
    done = {
        "status": "done",
        "seed": 1,
        "parameters": {"learning_rate": 0.1, "epochs": 3},
        "training": {"best_valid_score": 0.4},
    }
    write_json(folder / "cells/a.trial.json", done)
    failed = {"status": "failed", "seed": 1, "parameters": {"learning_rate": 9.0}, "reason": "loss is not a number"}
    trials = [Path("cells/a.trial.json"), failed, Path("cells/b.trial.json")]
    arms = (ARMS[0], replace(ARMS[1], trials=trials))
    content = aggregate(_study(arms), folder)
    _validate(content)
    found = _named(content["tasks"]["video"], "SASRec")["trials"]
    assert found[0] == {
        "parameters": {"learning_rate": 0.1},
        "seed": 1,
        "valid_score": 0.4,
        "status": "done",
        "reason": None,
    }
    assert [trial["status"] for trial in found] == ["done", "failed", "missing"]
    arms = (ARMS[0], replace(ARMS[1], trials=trials, tuned=("epochs",)))
    assert _named(aggregate(_study(arms), folder)["tasks"]["video"], "SASRec")["trials"][0]["parameters"] == {
        "epochs": 3
    }


def test_both_tasks_and_a_protocol_of_choice(folder: Path) -> None:
    comments = [_arm("CommentPop", "rule", (1,), task="comment"), _arm("LSVCRComment", "ours", task="comment")]
    for arm in comments:
        for cell in arm.cells:
            _cell(folder, arm, cell.seed, 0.4 + (arm.role == "ours") / 10)
    content = aggregate(_study((*comments, *ARMS), primary={"comment": FULL}), folder)
    _validate(content)
    assert list(content["tasks"]) == ["video", "comment"]
    assert [task["primary"]["protocol"] for task in content["tasks"].values()] == [PERIOD, FULL]


def test_the_same_from_files_written_and_planned_in_another_order(folder: Path, tmp_path: Path) -> None:
    first = aggregate(_study(ARMS), folder)
    for file in sorted((folder / "cells").iterdir(), reverse=True):
        text = file.read_text()
        file.unlink()
        file.write_text(text)
    for file in (folder / "work").rglob("*.parquet"):
        pl.read_parquet(file)[::-1].write_parquet(file)
    (tmp_path / "cells" / "of-another-study.json").write_text("{}")
    turned = [replace(arm, cells=arm.cells[::-1]) for arm in ARMS]
    assert aggregate(_study(turned), folder) == first


def test_a_cell_may_work_elsewhere(folder: Path) -> None:
    arm = _arm("DMT", "baseline", (1,))
    arm = replace(arm, cells=[replace(arm.cells[0], work=Path("work/shared-folder"))])
    _cell(folder, arm, 1, 0.2)
    task = aggregate(_study((*ARMS, arm)), folder)["tasks"]["video"]
    assert math.isclose(_compared(task, "DMT")["mean"], 0.3, abs_tol=0.05)
