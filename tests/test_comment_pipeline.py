"""The comment task from the command line to the report: both tasks in one run, the plugin, and bad input."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY

import run_lsvcr
from recbole_lsvcr import pipeline, plugin
from recbole_lsvcr.checkpoint import load_checkpoint
from recbole_lsvcr.config import load_config, load_configs
from recbole_lsvcr.data.dataset import CANDIDATES
from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.joint_trainer import BothLoader

SMALL = {**TINY, "epochs": 1}


def settings(folder: Path, output: Path, **changes: object) -> dict[str, object]:
    return {**SMALL, "data_path": str(folder), "output": str(output), **changes}


def arguments(values: dict[str, object]) -> list[str]:
    return [f"--{name}={json.dumps(value)}" for name, value in values.items() if name != "output"] + [
        "--output",
        str(values["output"]),
    ]


def test_both_tasks_share_one_store_and_one_report(tiny_data: Path, tmp_path: Path, capsys) -> None:
    values = settings(tiny_data, tmp_path / "run")
    assert run_lsvcr.main(["--task", "both", *arguments(values)]) == 0
    shown = capsys.readouterr().out
    assert "LSVCR on tiny" in shown and "LSVCRComment on tiny" in shown
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert [report[task]["model"] for task in ("video", "comment")] == ["LSVCR", "LSVCRComment"]
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"LSVCR", "LSVCRComment", "text_store"}
    # The second run of the same command has nothing left to do and says the same.
    assert run_lsvcr.main(["--task", "both", *arguments(values)]) == 0
    assert capsys.readouterr().out == shown


def test_a_killed_comment_run_ends_as_an_undisturbed_one(tiny_data: Path, tmp_path: Path) -> None:
    def report(output: str, epochs: list[int]) -> dict:
        for count in epochs:  # a run that stops after an epoch and is given again
            values = settings(tiny_data, tmp_path / output, epochs=count, task="comment")
            found = pipeline.run(load_config(None, values))
        assert found is not None
        return found["phases"]

    assert report("whole", [3]) == report("pieces", [1, 3])


def test_one_model_for_both_tasks_learns_both_and_continues(tiny_data: Path, tmp_path: Path) -> None:
    def reports(output: str, epochs: list[int], **changes: object) -> list[dict]:
        for count in epochs:
            values = settings(tiny_data, tmp_path / output, epochs=count, task="both", joint=True, **changes)
            found = pipeline.run_tasks(load_configs(None, values))
        return [report["phases"] for report in found]

    whole = reports("whole", [3])
    assert whole == reports("pieces", [1, 3])
    states = [load_checkpoint(tmp_path / "whole" / model / "best.pth") for model in ("LSVCR", "LSVCRComment")]
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    assert all(torch.equal(states[1]["state_dict"][name], value) for name, value in states[0]["state_dict"].items())
    fresh = settings(tiny_data, tmp_path / "whole", epochs=3, task="both", joint=True)
    start = pipeline.Run(load_configs(None, fresh)[0]).trainer().model.sr.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(states[0]["state_dict"][f"sr.{name}"], value)}
    assert {"fuse_linear_video.weight", "fuse_linear_comment.weight", "merge.weight"} <= moved


@pytest.mark.parametrize("order", [("comment", "both"), ("both", "comment"), ("video", "both"), ("both", "video")])
def test_joint_and_separate_runs_do_not_share_a_folder(tiny_data: Path, tmp_path: Path, order: tuple) -> None:
    def go(task: str) -> None:
        values = settings(tiny_data, tmp_path / "run", epochs=1, task=task, joint=task == "both")
        pipeline.run_tasks(load_configs(None, values), "encode")
        pipeline.run_tasks(load_configs(None, values), "finetune")

    go(order[0])
    with pytest.raises(CheckpointError, match=r"belongs to a run with other settings \(joint: "):
        go(order[1])


def test_batches_of_both_tasks_are_spread_over_the_epoch(tiny_data: Path, tmp_path: Path) -> None:
    values = settings(tiny_data, tmp_path, train_batch_size=16, task="both")
    videos, comments = (pipeline.Run(config).loaders[0] for config in load_configs(None, values))
    loader = BothLoader(videos, comments, seed=1)

    def kinds(epoch: int) -> list[bool]:
        loader.set_epoch(epoch)
        return [CANDIDATES in batch.columns for batch in loader]

    order = kinds(4)
    assert len(order) == len(loader) == len(videos) + len(comments)
    assert sum(order) == len(comments)
    half = sum(order[: len(order) // 2])
    assert abs(half - len(comments) / 2) <= 2
    assert kinds(4) == order != kinds(5)


def test_the_model_follows_the_task_and_the_task_the_model(tiny_data: Path, tmp_path: Path) -> None:
    values = settings(tiny_data, tmp_path)
    assert load_config(None, {**values, "task": "comment"})["model"] == "LSVCRComment"
    assert load_config(None, {**values, "task": "comment", "model": "LSVCR"})["model"] == "LSVCRComment"
    assert load_config(None, {**values, "model": "CommentZAM"})["task"] == "comment"
    assert load_config(None, values)["task"] == "video"
    both = load_configs(None, {**values, "task": "both", "video_context": False, "train_candidates": "all"})
    assert [(config["task"], config["model"]) for config in both] == [("video", "LSVCR"), ("comment", "LSVCRComment")]
    for name in ("topk", "metrics", "valid_metric", "train_batch_size"):
        fm = load_config(None, {**{k: v for k, v in values.items() if k in ("data_path", "dataset")}, "model": "FM"})
        assert fm[name] == load_config(None, {"data_path": str(tiny_data), "dataset": "tiny", "task": "comment"})[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "video", "model": "FM"}, r"model 'FM' ranks comments, not videos; .* such as LSVCR"),
        ({"task": "comment", "model": "SASRec"}, r"model 'SASRec' ranks videos, not comments; .* such as LSVCRComment"),
        ({"task": "both", "model": "SASRec"}, r"task = both fine-tunes LSVCR and LSVCRComment; leave out model"),
        ({"model": "CommentATT", "trainable_text": True}, r"trainable_text = True is not accepted; accepted: minilm"),
        ({"model": "CommentATT", "trainable_text_tokens": "abc"}, r"trainable_text_tokens = 'abc' is not accepted"),
        ({"task": "comment", "trainable_text": "minilm"}, r"trainable_text = 'minilm' is for the comment baselines"),
        ({"task": "comment", "comment_protocols": ["available+uniform0"]}, r"comment_protocols = .* is not accepted"),
        ({"joint": True}, r"joint = True trains one model on both tasks; give task: both"),
        ({"task": "comments"}, r"task = 'comments' is not accepted; accepted: video, comment, both"),
        ({"task": "comment", "comment_protocols": ["all+uniform"]}, r"comment_protocols = .* accepted: .*available"),
        ({"task": "comment", "train_negatives": "easy"}, r"train_negatives = 'easy' .* uniform, popular, hard"),
        ({"task": "comment", "train_negative_num": 0}, r"train_negative_num = 0 is not accepted"),
        ({"task": "comment", "video_contxt": False}, r"did you mean 'video_context'"),
    ],
)
def test_what_does_not_fit_is_said_at_once(tiny_data: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_configs(None, settings(tiny_data, tmp_path, **changes))


def test_one_configuration_is_of_one_task(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="load them with load_configs"):
        load_config(None, settings(tiny_data, tmp_path, task="both"))


def test_both_tasks_share_the_data_they_have_in_common(tiny_data: Path, tmp_path: Path) -> None:
    video, comment = load_configs(None, settings(tiny_data, tmp_path, task="both"))
    first = pipeline.Run(video).dataset.joint
    assert pipeline.Run(comment, first).dataset.joint is first
    comment["MAX_ITEM_LIST_LENGTH"] = 3
    other = pipeline.Run(comment, first).dataset.joint
    assert other is not first and other.tables is first.tables and other.max_videos == 3


def test_recbole_alone_gets_rankings_per_record_split_by_time(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole.quick_start import load_data_and_model, run_recbole

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)
    small = {name: SMALL[name] for name in SMALL if name not in ("eval_args", "dataset")}
    with plugin.hidden_argv():
        result = run_recbole(
            model="LSVCRComment", dataset="tiny", config_dict={**small, "data_path": str(tiny_data), "state": "ERROR"}
        )
        (file,) = Path("saved").glob("LSVCRComment-*.pth")
        config, model, dataset, *_ = load_data_and_model(file)
    assert set(result["test_result"]) == {f"{name}@{k}" for name in ("recall", "ndcg", "mrr") for k in (5, 10)}
    assert config["eval_args"]["split"] == {"time": ["-2d", "-1d"]}
    assert type(model).__name__ == "LSVCRComment" and dataset.kind == "comment"
    token = dataset.id2token("comment_id", 7)
    assert dataset.token2id("comment_id", token) == 7


# ---- data that cannot be used ----


def variant(source: Path, folder: Path, name: str, change: Callable[[Path], None]) -> Path:
    """A copy of the data set `tiny` under another name, changed."""
    target = folder / name
    shutil.copytree(source / "tiny", target)
    (target / "tiny.meta.json").unlink()
    for path in list(target.iterdir()):
        path.rename(target / path.name.replace("tiny", name))
    change(target)
    return folder


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def unknown_comment(folder: Path) -> None:
    rows = rows_of(folder / "bad.cinter")
    rows[1][1] = "nobody"
    write(folder / "bad.cinter", rows)


def other_video(folder: Path) -> None:
    rows = rows_of(folder / "bad.cinter")
    rows[1][2] = next(row[2] for row in rows[2:] if row[2] != rows[1][2])
    write(folder / "bad.cinter", rows)


def no_rows(folder: Path) -> None:
    write(folder / "bad.cinter", rows_of(folder / "bad.cinter")[:1])


def no_file(folder: Path) -> None:
    (folder / "bad.cinter").unlink()


def equal_times(folder: Path) -> None:
    for suffix in ("inter", "cinter"):
        rows = rows_of(folder / f"bad.{suffix}")
        at = rows[0].index("timestamp:float")
        write(folder / f"bad.{suffix}", [rows[0], *([*row[:at], "1710000000", *row[at + 1 :]] for row in rows[1:])])


def all_early(folder: Path) -> None:
    rows = rows_of(folder / "bad.cinter")
    at = rows[0].index("timestamp:float")
    start = min(row[at] for row in rows[1:])
    write(folder / "bad.cinter", [rows[0], *([*row[:at], start, *row[at + 1 :]] for row in rows[1:])])
    rows = rows_of(folder / "bad.comment")
    at = rows[0].index("timestamp:float")
    write(folder / "bad.comment", [rows[0], *([*row[:at], start, *row[at + 1 :]] for row in rows[1:])])


def single_candidates(folder: Path) -> None:
    rows = rows_of(folder / "bad.comment")
    at = rows[0].index("item_id:token")
    first = {row[at]: row for row in reversed(rows[1:])}
    write(folder / "bad.comment", [rows[0], *first.values()])
    kept = {row[0] for row in first.values()}
    rows = rows_of(folder / "bad.cinter")
    write(folder / "bad.cinter", [rows[0], *(row for row in rows[1:] if row[1] in kept)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown_comment, "comment_id 'nobody' is not in the .comment file (1 such rows)"),
        (other_video, "which is not the comment's in the .comment file"),
        (no_rows, "has no comment interaction: ranking comments needs bad.cinter"),
        (no_file, "has no comment interaction: ranking comments needs bad.cinter"),
        (equal_times, "no video interaction is left for train"),
        (all_early, "comment records, but none that can be ranked is left for valid and test"),
        (single_candidates, "has another comment under its video to be ranked against"),
    ],
)
def test_data_that_cannot_be_ranked_ends_in_one_message(
    tiny_data: Path, tmp_path: Path, capsys, change: Callable[[Path], None], message: str
) -> None:
    folder = variant(tiny_data, tmp_path / "data", "bad", change)
    values = settings(folder, tmp_path / "run", dataset="bad")
    assert run_lsvcr.main(["--task", "comment", *arguments(values)]) == 2
    said = capsys.readouterr()
    assert message in said.err.strip().splitlines()[-1]
    assert said.out == ""
    assert not list((tmp_path / "run").rglob("*.pth"))


def test_both_tasks_are_looked_at_before_any_work(tiny_data: Path, tmp_path: Path, capsys) -> None:
    folder = variant(tiny_data, tmp_path / "data", "bad", no_rows)
    values = settings(folder, tmp_path / "run", dataset="bad")
    assert run_lsvcr.main(["--task", "both", *arguments(values)]) == 2
    assert "has no comment interaction" in capsys.readouterr().err
    assert not (tmp_path / "run" / "text_store").exists()


def test_repeated_interactions_count_once_and_are_said(tiny_data: Path, tmp_path: Path, caplog) -> None:
    def repeat(folder: Path) -> None:
        rows = rows_of(folder / "twice.cinter")
        write(folder / "twice.cinter", [rows[0], rows[1], rows[1], *rows[2:]])

    from recbole_lsvcr.data.tables import Tables

    folder = variant(tiny_data, tmp_path / "data", "twice", repeat)
    with caplog.at_level(logging.WARNING):
        tables = Tables.load(folder / "twice")
    assert "twice.cinter: 1 rows repeat user, comment and time" in caplog.text
    assert tables.cinter_time.tolist() == Tables.load(tiny_data / "tiny").cinter_time.tolist()
