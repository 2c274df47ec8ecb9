"""Arms compared instance by instance: the difference, its interval by user, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from recbole_lsvcr.benchmark.cells import Cell, read_plan
from recbole_lsvcr.benchmark.compare import clustered_interval, compare, difference, main
from recbole_lsvcr.errors import EvaluationError


def _instances(
    values: np.ndarray, users: np.ndarray, seed: int = 1, protocol: str = "available+period"
) -> pl.DataFrame:
    n = len(values)
    return pl.DataFrame(
        {
            "seed": [seed] * n,
            "row": np.arange(n),
            "user": [f"u{user}" for user in users],
            "protocol": [protocol] * n,
            "ndcg@10": values,
            "seen_items": np.arange(n) % 2 == 0,
            "unseen_items": np.arange(n) % 2 == 1,
        }
    )


def test_the_interval_is_that_of_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(3)
    users = rng.integers(0, 30, 200)
    values = rng.normal(0.1, 1, 200) + rng.normal(0, 1, 30)[users]
    by_user = [values[users == user] for user in np.unique(users)]
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, len(by_user), len(by_user))
        means.append(np.concatenate([by_user[user] for user in drawn]).mean())
    low, high = clustered_interval(values, users, resamples=4000)
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), atol=0.05)


def test_repeating_a_users_instances_does_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    values, users = rng.normal(size=50), np.arange(50)
    once = clustered_interval(values, users)
    many = clustered_interval(np.tile(values, 20), np.tile(users, 20))
    np.testing.assert_allclose(once, many, atol=1e-12)


def test_seeds_are_averaged_and_shown_apart() -> None:
    users = np.array([0, 0, 1, 2])
    base = [_instances(np.zeros(4), users, seed) for seed in (1, 2, 3)]
    arm = [_instances(np.full(4, value), users, seed) for seed, value in ((1, 0.1), (2, 0.3))]
    found = difference(pl.concat(arm), pl.concat(base))
    assert found.mean == pytest.approx(0.2) and found.low == pytest.approx(0.2) and found.high == pytest.approx(0.2)
    assert found.by_seed == pytest.approx({1: 0.1, 2: 0.3})
    assert (found.instances, found.users) == (4, 3)


def test_one_user_has_a_difference_and_no_interval() -> None:
    users = np.zeros(3, int)
    found = difference(_instances(np.array([0.1, 0.2, 0.6]), users), _instances(np.zeros(3), users))
    assert (found.mean, found.low, found.high, found.users) == (pytest.approx(0.3), None, None, 1)
    assert str(found) == "+0.3000 (one user: no interval)"


@pytest.mark.parametrize("rows", [slice(0, 3), slice(0, 0)])
def test_other_instances_are_refused(rows: slice) -> None:
    base = _instances(np.zeros(4), np.arange(4))
    with pytest.raises(EvaluationError, match="different instances"):
        difference(base[rows], base)
    with pytest.raises(EvaluationError, match=r"no seed in common \(\[2\] and \[1\]\)"):
        difference(base.with_columns(seed=pl.lit(2)), base)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.yaml"
    settings = {"plain": {}, "better": {"x": 1}, "unfinished": {"x": 2}, "elsewhere": {"eval_args": {"split": "LS"}}}
    cells = [{"models": ["LSVCR"], "settings": list(settings), "seeds": [1]}]
    cells += [{"models": ["LSVCR"], "settings": ["later"], "seeds": [2]}]
    settings["later"] = {"x": 3}
    file.write_text(yaml.safe_dump({"base": {"dataset": "tiny"}, "settings": settings, "cells": cells}))
    gains = {"plain": 0.0, "better": 0.25, "elsewhere": 9.0, "later": 0.5}
    for cell in read_plan(file):
        if cell.setting in gains:
            _write(tmp_path / "work", cell, gains[cell.setting])
    return file


def _write(work: Path, cell: Cell, gain: float) -> None:
    folder = work / cell.name / cell.model
    folder.mkdir(parents=True)
    users = np.arange(6) // 2
    other = _instances(np.full(6, 5.0), users, protocol="all+full")
    pl.concat([_instances(np.full(6, gain), users, cell.seed), other]).write_parquet(folder / "instances-test.parquet")


def test_a_plan_is_compared_from_the_command_line(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = plan.parent / "differences.json"
    work = str(plan.parent / "work")
    assert main([str(plan), "--work", work, "--against", "plain", "--output", str(output)]) == 0
    shown, said = capsys.readouterr()
    assert "| better:LSVCR | +0.2500 [+0.2500, +0.2500]" in shown
    assert "unfinished" not in shown and "elsewhere" not in shown
    assert "left out: unfinished:LSVCR: no instances under available+period" in said
    assert "left out: elsewhere:LSVCR: other data or another split" in said
    assert "left out: later:LSVCR: no seed in common ([2], the baseline [1])" in said and "later" not in shown
    kept = json.loads(output.read_text())
    assert len(kept["left_out"]) == 3
    assert kept["arms"]["better:LSVCR"]["unseen_items"]["instances"] == 3


@pytest.mark.parametrize(("against", "said"), [("plan", "names 0 arms"), ("unfinished", "no instances of unfinished")])
def test_what_cannot_be_compared_is_one_message(
    plan: Path, against: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(plan), "--work", str(plan.parent / "work"), "--against", against]) == 2
    assert said in capsys.readouterr().err
    with pytest.raises(EvaluationError):
        compare(read_plan(plan), plan.parent / "work", against)


def test_a_slice_without_instances_is_left_out_alone(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (plan.parent / "work").rglob("*.parquet"):
        pl.read_parquet(file).with_columns(unseen_items=pl.lit(False)).write_parquet(file)
    assert main([str(plan), "--work", str(plan.parent / "work"), "--against", "plain"]) == 0
    shown, said = capsys.readouterr()
    assert "| better:LSVCR | +0.2500 [+0.2500, +0.2500] | +0.2500 [+0.2500, +0.2500] | - | +0.2500 |" in shown
    assert "left out: better:LSVCR, unseen_items: no instance" in said
    command = [str(plan), "--work", str(plan.parent / "work"), "--against", "plain", "--slices", "unseen_items"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "nothing can be compared with plain:LSVCR" in said and "better:LSVCR, unseen_items: no instance" in said


def test_arms_that_ranked_other_candidates_are_not_compared(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in read_plan(plan):
        folder = plan.parent / "work" / cell.name / cell.model
        if folder.is_dir():
            drawn = {"available+period": f"for {cell.setting}", "all+full": None}
            ranked = {protocol: {"candidates_hash": value} for protocol, value in drawn.items()}
            (folder / "metrics.json").write_text(json.dumps({"phases": {"test": {"protocols": ranked}}}))
    command = [str(plan), "--work", str(plan.parent / "work"), "--against", "plain"]
    assert main(command) == 2
    assert "better:LSVCR: other candidates under available+period" in capsys.readouterr().err
    assert main([*command, "--protocol", "all+full"]) == 0  # every video: nothing is drawn


def test_a_metric_that_is_not_there_is_named_with_those_that_are(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = plan.parent / "work"
    assert main([str(plan), "--work", str(work), "--against", "plain", "--metric", "ndcg@7"]) == 2
    assert "plain:LSVCR has no metric ndcg@7 in each of its cells; there are ndcg@10" in capsys.readouterr().err
    for file in work.rglob("*.plain.*/**/*.parquet"):
        pl.read_parquet(file).with_columns(pl.col("ndcg@10").alias("ndcg@7")).write_parquet(file)
    assert main([str(plan), "--work", str(work), "--against", "plain", "--metric", "ndcg@7"]) == 2
    said = capsys.readouterr().err
    assert "nothing can be compared with plain:LSVCR" in said
    assert "better:LSVCR: no metric ndcg@7 in each of its cells" in said


def test_slices_are_chosen_by_name(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(plan), "--work", str(plan.parent / "work"), "--against", "plain", "--slices"]
    assert main([*command, "unseen_items"]) == 0
    assert capsys.readouterr().out.startswith("| arm | unseen_items | by seed |")
    assert main([*command, "all", "no_records"]) == 2
    assert "plain:LSVCR has no slice no_records; there are all, seen_items, unseen_items" in capsys.readouterr().err
