"""The same weights rank alike in stock RecBole and here; where the two differ in what an instance is, it is said."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from benchmark_scripts import load

from dataset_tools.sample import generate

MODELS = ("SASRec", "GRU4Rec")
SMALL = ["--epochs", "1", "--length", "8", "--batch", "128", "--learning-rate", "0.01"]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # RecBole's trainer writes TensorBoard's files where it is started
    generate(tmp_path / "data" / "tiny", users=60, videos=50, comments=300)
    return tmp_path


def test_the_same_weights_rank_alike_and_a_stopped_check_continues(room: Path, capsys: Any) -> None:
    check = load("stock_check")
    command = ["--dataset", "tiny", "--data-path", "data", "--work", "work", "--output", "out.json", *SMALL]
    assert check.main([*command, "--models", *MODELS, "--seeds", "3"]) == 0
    report = json.loads(Path("out.json").read_text())
    for model in MODELS:
        for phase, found in report["parts"][model]["3"]["same_weights"]["phases"].items():
            assert found["largest_difference"] <= 1e-6, (model, phase)
            assert len(found["stock"]) == 6 and 0 < found["stock"]["ndcg@10"] < 1
            counts = found["instances"]
            assert counts["common"] == report["parts"][model]["3"]["same_weights"]["instances"]["stock"][phase] > 50
            assert (
                counts["other_rank_untied"]
                == counts["other_history"]
                == counts["only_ours"]
                == counts["only_stock"]
                == 0
            )
            assert counts["largest_metric_difference"] <= 1e-6
        assert report["models"][model]["same_weights"]["equal_within_1e-6"]
        assert report["models"][model]["same_training"]["test"]["ndcg@10"]["stock_values"]
    assert str(room) not in Path("out.json").read_text()
    before = {file: file.stat().st_mtime_ns for file in Path("work").rglob("same_*.json")}
    assert len(before) == 4
    capsys.readouterr()
    assert check.main([*command, "--models", *MODELS, "--seeds", "3"]) == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert "metrics differ by" in capsys.readouterr().out


def test_equal_times_are_the_one_difference_and_are_counted(room: Path) -> None:
    """Of two events at the same time RecBole has one in the history of the other."""
    file = room / "data" / "tiny" / "tiny.inter"
    frame = pl.read_csv(file, separator="\t", infer_schema=False)
    user, time = "user_id:token", "timestamp:float"
    last = frame.with_row_index("row").group_by(user, maintain_order=True).agg(pl.col("row").tail(2))
    times = frame[time].to_list()
    for one, other in last["row"].head(5):
        times[one] = times[other]
    frame.with_columns(pl.Series(time, times)).write_csv(file, separator="\t")
    check = load("stock_check")
    given = check.settings(
        argparse.Namespace(dataset="tiny", data_path=room / "data", length=8, epochs=1, batch=128, learning_rate=0.01),
        "SASRec",
        3,
    )
    checked = check.same_weights(given, room / "work")
    found, instances = checked["phases"]["test"]["instances"], checked["instances"]["stock"]["test"]
    assert found["other_history"] == 5 and found["common"] == instances - 5
    assert found["only_stock"] == found["only_ours"] == 0
    assert found["other_rank_untied"] == 0 and found["largest_metric_difference"] <= 1e-6


def test_two_samples_of_seeds() -> None:
    spread = load("stock_check").spread
    found = spread([0.10, 0.12, 0.11], [0.11, 0.12, 0.13])
    assert found["difference"] == pytest.approx(0.01) and found["stock_std"] == pytest.approx(0.01)
    assert found["ranges_overlap"] and 0.2 < found["p_welch"] < 0.4
    assert not spread([0.1, 0.12], [0.2, 0.3])["ranges_overlap"]
    assert spread([0.1, 0.1], [0.1, 0.1])["p_welch"] is None
    assert "stock_std" not in spread([0.1], [0.2])
