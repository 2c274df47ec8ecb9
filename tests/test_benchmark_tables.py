"""The Markdown table of a folder of cells: means and spreads, and what a folder may hold beside finished cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmark_cells import FULL, PERIOD, ranked

from dataset_tools.files import write_json
from recbole_lsvcr.benchmark.tables import main


def _cell(folder: Path, name: str, seed: int, gain: float, **changes: Any) -> dict[str, Any]:
    training = {"best_epoch": 3, "seconds_per_epoch": 10.0 * seed}
    content = {"model": "LSVCR", "setting": "plain", "seed": seed, "status": "done", "training": training}
    content |= {"phases": {"test": ranked(gain, seed)[1]}, **changes}
    write_json(folder / f"{name}.json", content)
    return content


def _lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_seeds_are_averaged_and_chance_stands_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [_cell(tmp_path, f"a.{seed}", seed, 0.3) for seed in (1, 2)]
    assert main([str(tmp_path)]) == 0
    head, _, row, chance = _lines(capsys.readouterr().out)
    one, other = (cell["phases"]["test"]["protocols"][PERIOD]["metrics"]["ndcg@10"] for cell in cells)
    assert head[3:7] == [PERIOD, f"{PERIOD}, unseen", FULL, f"{FULL}, unseen"]
    assert row[:3] == ["plain", "LSVCR", "2"] and row[-2:] == ["3, 3", "15"]
    assert row[3] == f"{(one + other) / 2:.4f} ± {abs(one - other) / 2**0.5:.4f}"
    assert chance[1:] == ["*chance*", "", "0.0500", "", "0.0500", "", "", ""]


def test_cells_of_other_protocols_stand_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = _cell(tmp_path, "a", 1, 0.3)
    protocols = content["phases"]["test"]["protocols"]
    _cell(tmp_path, "b", 1, 0.3, setting="later", phases={"test": {"protocols": {FULL: protocols[FULL]}}})
    _cell(tmp_path, "c", 1, 0.3, setting="sooner", arm="LSVCR-seen")
    assert main([str(tmp_path)]) == 0
    found = _lines(capsys.readouterr().out)[2:]
    assert [row[:2] for row in found if row[1] not in ("LSVCR", "LSVCR-seen")] == [
        ["later", "*chance*"],
        ["plain, sooner", "*chance*"],
    ]
    rows = {row[0]: row for row in found if row[1] == "LSVCR"}
    assert (
        "sooner" not in rows
        and rows["later"][3:5] == ["-", "-"]
        and rows["later"][5:7] == rows["plain"][5:7] != ["-", "-"]
    )


def test_what_is_no_ranked_cell_is_not_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _cell(tmp_path, "a", 1, 0.3, phases={"test": None})
    write_json(tmp_path / "b.trial.json", {"status": "done", "training": {}})
    write_json(tmp_path / "c.json", {"status": "failed", "reason": "no memory"})
    write_json(tmp_path / "differences.json", [1])
    assert main([str(tmp_path)]) == 2
    assert "holds no finished cell" in capsys.readouterr().err
    _cell(tmp_path, "d", 1, 0.3)
    assert main([str(tmp_path)]) == 0
    assert [row[1] for row in _lines(capsys.readouterr().out)[2:]] == ["LSVCR", "*chance*"]


def test_a_metric_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _cell(tmp_path, "a", 1, 0.3)
    assert main([str(tmp_path), "--metric", "ndcg@7"]) == 2
    assert "no cell has a metric ndcg@7; there are recall@10, ndcg@10, mrr@10, mrr" in capsys.readouterr().err


def test_cells_of_one_arm_and_seed_with_other_settings_are_no_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rate in (("a", 0.1), ("b", 0.01)):
        _cell(tmp_path, name, 1, 0.3, parameters={"learning_rate": rate})
    assert main([str(tmp_path)]) == 2
    assert "several cells of plain, LSVCR, seed 1, with other settings" in capsys.readouterr().err
