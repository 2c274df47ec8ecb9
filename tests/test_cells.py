"""Cells: computed once, kept as small JSON, failures kept with their reason."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from forks import context

from recbole_lsvcr import environment
from recbole_lsvcr.benchmark import cell as one
from recbole_lsvcr.benchmark import cells
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.task_run import FinetuneResult


def plan(folder: Path, data: Path, **changes: Any) -> Path:
    base = {"dataset": "tiny", "data_path": str(data), "eval_args": {"split": {"time": [0.7, 0.85]}}, "use_gpu": False}
    file = folder / "plan.yaml"
    content = {
        "base": base,
        "settings": {"short": {"MAX_ITEM_LIST_LENGTH": 4}, "long": {"MAX_ITEM_LIST_LENGTH": 8}},
        "cells": [{"models": ["Popularity"], "settings": ["short"], "seeds": [1]}],
        **changes,
    }
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_plan_is_every_model_setting_and_seed_once(tmp_path: Path) -> None:
    groups = [
        {"models": ["SASRec", "GRU4Rec"], "seeds": [1, 2]},
        {"models": ["SASRec"], "settings": ["short"], "seeds": [1], "with": {"epochs": 1}},
        {"models": ["SASRec"], "settings": ["short"], "seeds": [1]},
    ]
    found = cells.read_plan(plan(tmp_path, tmp_path, cells=groups))
    assert len(found) == 9  # 2 models x 2 settings x 2 seeds, and one with other epochs; the repetition counts once
    assert len({cell.name for cell in found}) == 9
    assert [cell.hash for cell in found] == [cell.hash for cell in cells.read_plan(tmp_path / "plan.yaml")]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cels": []}, "unknown keys"),
        ({"base": {}}, "names no data set"),
        ({"cells": [{"models": ["SASRec"], "settings": ["medium"], "seeds": [1]}]}, "medium"),
        ({"cells": [{"models": ["SASRec"], "seeds": [1], "epochs": 3}]}, "epochs"),
        ({"cells": [{"models": ["SASRec"]}]}, "seeds: "),
        ({"cells": [{"models": "SASRec", "seeds": [1]}]}, "lists of models"),
        ({"cells": [{"models": ["SASRec"], "seeds": 1}]}, "lists of models"),
        ({"cells": ["SASRec"]}, "lists of models"),
        ({"cells": None}, "cells is a list"),
        ({"base": [1]}, "base and settings are mappings"),
        ({"base": None}, "names no data set"),
    ],
)
def test_a_plan_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        cells.read_plan(plan(tmp_path, tmp_path, **changes))


def test_a_finished_cell_is_not_computed_again(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = cells.read_plan(plan(tmp_path, tiny_data))
    first = one.run_cell(cell, tmp_path / "results", tmp_path / "work")
    assert first["status"] == "done"
    assert 0 < first["phases"]["test"]["protocols"]["all+full"]["metrics"]["ndcg@10"] < 1
    monkeypatch.setattr(one, "_compute", lambda *_: pytest.fail("computed again"))
    assert one.run_cell(cell, tmp_path / "results", tmp_path / "work") == first


def test_a_failed_cell_keeps_its_reason_and_the_others_go_on(tmp_path: Path, tiny_data: Path) -> None:
    groups = [
        {"models": ["Caser", "Popularity"], "settings": ["short"], "seeds": [1], "with": {"protocols": ["all+full"]}}
    ]
    wrong, right = cells.read_plan(plan(tmp_path, tiny_data, cells=groups))
    wrong.parameters["n_h"] = "many"  # type: ignore[index]
    results = tmp_path / "results"
    assert one.run_cell(wrong, results, tmp_path / "work")["status"] == "failed"
    kept = json.loads((results / f"{wrong.name}.json").read_text())
    assert kept["reason"] and str(tmp_path) not in json.dumps(kept["trace"])
    assert one.run_cell(right, results, tmp_path / "work")["status"] == "done"


def test_whatever_a_model_raises_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSuchLayer(Exception):
        """Of a model of the user's own."""

    def compute(*_: Any) -> None:
        raise NoSuchLayer("layer 7")

    monkeypatch.setattr(one, "_compute", compute)
    failed = one.run_cell(one.Cell("SASRec", "main", 1, {"dataset": "tiny"}), tmp_path, tmp_path / "work")
    assert (failed["status"], failed["reason"]) == ("failed", "NoSuchLayer: layer 7")


@pytest.mark.parametrize("told", [130, KeyboardInterrupt()])
def test_an_interrupted_cell_has_not_failed(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait(*_: Any) -> int:
        if isinstance(told, BaseException):
            raise told
        return told

    monkeypatch.setattr(one.Processes, "wait", wait)
    folders = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    assert cells.main([str(plan(tmp_path, tmp_path)), *folders]) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("content", ["", '{"status": "do', "[]", "{}", '{"status": "failed"}', None])
def test_a_json_that_is_no_finished_cell_is_computed_again(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "cell.json"
    if content is not None:
        file.write_text(content)
    assert one.finished(file) is None


@pytest.mark.parametrize(("system", "held", "peak"), [("linux", 5 * 2**10, 5), ("darwin", 5 * 2**20, 5)])
def test_the_peak_of_memory_is_in_mb_on_every_system(
    system: str, held: int, peak: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.sys, "platform", system)
    monkeypatch.setattr(environment.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=held))
    monkeypatch.setattr(one, "_compute", lambda *_: {})
    cell = one.Cell("SASRec", "main", 1, {"dataset": "tiny"})
    assert one.run_cell(cell, tmp_path / "results", tmp_path / "work")["cost"]["peak_memory_mb"] == peak
    monkeypatch.setattr(environment, "resource", None)
    assert "peak_memory_mb" not in one.run_cell(cell, tmp_path / "without", tmp_path / "work")["cost"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets the peak of a process")
def test_memory_of_shared_work_is_not_counted_and_that_of_earlier_processes_is() -> None:
    big = np.ones(2**25)  # 256 MB
    held = environment.peak_memory()["peak_memory_mb"]
    del big
    environment.forget_peak_memory()
    assert environment.peak_memory()["peak_memory_mb"] <= held - 200
    history = [{"epoch": 0, "peak_memory_mb": 10}, {"epoch": 1, "peak_memory_mb": 10**6}]
    trained = FinetuneResult(Path("best.pth"), 0.5, history, 1.0)
    assert one._peak_memory(trained) == {"peak_memory_mb": 10**6}


def test_cells_of_changed_data_have_a_text_store_of_their_own(tmp_path: Path, tiny_data: Path) -> None:
    shutil.copytree(tiny_data / "tiny", tmp_path / "data" / "tiny")
    file, stores = tmp_path / "data" / "tiny" / "tiny.inter", tmp_path / "stores"
    settings = {"dataset": "tiny", "eval_args": {"split": {"time": [0.7, 0.85]}}, "text_encoder": "hashing"}
    places = {"data_path": str(tmp_path / "data"), "stores": str(stores), "use_gpu": False}
    for version in ("one", "other"):
        cell = one.Cell("TextSim", "main", 1, {**settings, "protocols": ["all+full"]}, places=places, data=version)
        found = one.run_cell(cell, tmp_path / "results", tmp_path / "work")
        assert found["status"] == "done", found["reason"]
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert len(list(stores.iterdir())) == 2


def test_a_cell_that_is_done_stays_done_whatever_status_its_process_is_said_to_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {"status": "done", "cost": {"seconds": 1.0}}
    cell = one.Cell("SASRec", "main", 1, {"dataset": "tiny"})
    file = cell.file(tmp_path)

    def wait(*_: Any) -> int:
        file.write_text(json.dumps(done))
        return 255

    monkeypatch.setattr(one.Processes, "wait", wait)
    assert one.in_own_process(cell, tmp_path, tmp_path / "work") == done
    assert json.loads(file.read_text()) == done


def _cell_that_lasts(folder: Path) -> None:
    def run_cell(*arguments: Any, **options: Any) -> None:
        (folder / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    one.run_cell = run_cell  # type: ignore[assignment]
    one._in_this_process(None, folder, folder, False, 1, folder / "output.log")  # type: ignore[arg-type]


def _benchmark_of_it(folder: Path) -> None:
    one.Processes().wait(_cell_that_lasts, folder)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system to look for a process in")
def test_a_cell_does_not_outlive_its_benchmark(tmp_path: Path) -> None:
    benchmark = context().Process(target=_benchmark_of_it, args=(tmp_path,))
    benchmark.start()
    pid, deadline = "", time.monotonic() + 60
    while not pid and time.monotonic() < deadline:
        time.sleep(0.05)
        pid = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
    assert _runs(pid)
    benchmark.kill()
    benchmark.join()
    deadline = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)
