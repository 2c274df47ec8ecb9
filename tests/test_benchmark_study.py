"""A benchmark: tuned alike by validation, computed once, continued after a kill, failures told, the rest computed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import TINY, TINY_ALIGNMENT
from killed_runs import Started, kill_when, run_whole

import run_lsvcr
from recbole_lsvcr import pipeline
from recbole_lsvcr.benchmark import study as study_module
from recbole_lsvcr.benchmark.cell import Processes, Stopped
from recbole_lsvcr.benchmark.run import Options, run_benchmark
from recbole_lsvcr.benchmark.study import Study
from recbole_lsvcr.config import load_config
from recbole_lsvcr.data.protocols import parse_protocols
from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.registry import properties_dir
from recbole_lsvcr.trainer import selection_protocol

BROKEN = {"name": "Broken", "model": "DMT", "attribute_size": 64}  # only the model itself sees it


def settings(data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    small = {key: value for key, value in TINY.items() if key not in ("seed", "learning_rate", "epochs")}
    return {
        **small,
        "data_path": str(data),
        "output": str(output),
        "epochs": 2,
        "valid_protocol": "available+period",
        "seeds": [1, 2],
        "tune": {"budget": 2, "space": {"learning_rate": [0.01, 0.001]}},
        "benchmark": ["popularity", "sasrec", BROKEN],
        **changes,
    }


def quality(folder: Path, *more: str) -> dict[str, Any]:
    """What a table is made of, without what the machine was doing meanwhile."""
    results = json.loads((folder / "results.json").read_text())
    arms = results["tasks"]["video"]["arms"]
    kept = ("name", "status", "reason", "chosen", "trials", "seeds", "quality", *more)
    return {
        "arms": [{key: arm[key] for key in kept} for arm in arms],
        "comparisons": results["tasks"]["video"]["comparisons"],
    }


def cells_of(folder: Path, ending: str = ".json") -> list[Mapping[str, Any]]:
    files = sorted((folder / "cells").glob(f"*{ending}"))
    return [json.loads(file.read_text()) for file in files if ending != ".json" or ".trial" not in file.name]


@pytest.fixture(scope="module")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("benchmark") / "out"
    text, incomplete = run_benchmark(settings(tiny_data, folder), Options(jobs=2))
    assert incomplete and "Broken is failed" in text
    yield folder


def test_every_arm_has_its_row_or_its_reason(finished: Path) -> None:
    arms = {arm["name"]: arm for arm in quality(finished)["arms"]}
    assert {name: (arm["status"], arm["seeds"]) for name, arm in arms.items()} == {
        "Popularity": ("done", [1]),
        "SASRec": ("done", [1, 2]),
        "Broken": ("failed", []),
        "LSVCR": ("done", [1, 2]),
    }
    assert "leaves no column for the id beside 1 attributes" in arms["Broken"]["reason"]
    for arm in (arms["Popularity"], arms["SASRec"], arms["LSVCR"]):
        for protocol in ("all+uniform", "all+full", "available+uniform", "available+period", "available+full"):
            assert 0 < arm["quality"][protocol]["all"]["mrr"]["mean"] < 1
    for name in ("results.json", "results.csv", "results.tex", "report.md", "report.html", "portrait.json"):
        assert (finished / name).stat().st_size


def test_tuning_reads_validation_alone_and_gives_every_model_as_many_trials(finished: Path) -> None:
    trials = cells_of(finished, ".trial.json")
    assert all("phases" not in trial for trial in trials)
    for arm in quality(finished)["arms"]:
        if arm["name"] == "Popularity":
            assert not arm["trials"]
            continue
        assert [trial["parameters"] for trial in arm["trials"]] == [{"learning_rate": 0.01}, {"learning_rate": 0.001}]
        if arm["status"] == "done":
            best = max(arm["trials"], key=lambda trial: trial["valid_score"])
            assert arm["chosen"] == best["parameters"]
            assert all(
                cell["parameters"]["learning_rate"] == best["parameters"]["learning_rate"]
                for cell in cells_of(finished)
                if cell["arm"] == arm["name"]
            )


def test_the_first_seed_goes_on_from_its_trial_and_other_trials_keep_no_weights(finished: Path) -> None:
    for trial in cells_of(finished, ".trial.json"):
        name = f"tiny.{trial['setting']}.{trial['model']}.{trial['seed']}.{trial['hash']}"
        whole = finished / "cells" / f"{name}.json"
        weights = list((finished / "work" / name).glob("**/*.pth"))
        if whole.exists() and trial["status"] == "done":
            assert json.loads(whole.read_text())["training"]["history"] == trial["training"]["history"]
            assert weights
        else:
            assert not weights
        assert (finished / "work" / name / "output.log").exists()


def test_all_arms_rank_the_same_lists_and_read_the_same_histories(finished: Path) -> None:
    cells = [cell for cell in cells_of(finished) if cell["status"] == "done"]
    for protocol in ("all+uniform", "available+period"):
        assert len({cell["phases"]["test"]["protocols"][protocol]["candidates_hash"] for cell in cells}) == 1
    assert len({cell["data"] for cell in cells}) == 1
    assert {cell["parameters"]["hidden_size"] for cell in cells if "hidden_size" in cell["parameters"]} == {8}


def test_nothing_is_computed_twice(finished: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = quality(finished)
    started: list[Any] = []
    monkeypatch.setattr(Processes, "wait", lambda self, target, cell, *rest: started.append(cell.arm) or 0)
    monkeypatch.setattr("recbole_lsvcr.benchmark.run.count", lambda folder: pytest.fail("the data are counted again"))
    run_benchmark(settings(tiny_data, finished), Options(minutes=1e-9))  # no time for anything new
    broken = {"status": "missing", "reason": "not computed yet", "trials": []}
    expected = [arm | broken if arm["name"] == "Broken" else arm for arm in before["arms"]]
    assert not started and quality(finished) == {**before, "arms": expected}
    run_benchmark(settings(tiny_data, finished), Options())
    assert set(started) == {"Broken"}  # what failed is tried again
    assert quality(finished) == before


def test_cells_brought_without_their_working_folder_give_the_same_report(
    finished: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(finished / "cells", folder / "cells")
    own, other = sorted((folder / "cells").glob("*.LSVCR.*.ranks.parquet"))
    monkeypatch.setattr(Processes, "wait", lambda self, target, cell, *rest: 0)
    run_benchmark(settings(tiny_data, folder), Options())
    assert quality(folder) == quality(finished)
    assert quality(folder)["comparisons"]
    instances = list((folder / "work").glob("*/*/instances-test.parquet"))
    assert len(instances) == 5 and not list((folder / "work").glob("*/*/*.pth"))
    for file in instances:
        name = file.relative_to(folder)
        assert pl.read_parquet(file).equals(pl.read_parquet(finished / name)), name
        file.unlink()
    # Ranks of another seed are those of the same instances, but not those of the figures.
    own.write_bytes(other.read_bytes())
    (folder / "portrait.json").write_text("{")
    run_benchmark(settings(tiny_data, folder), Options())
    assert f"{own.name} and the JSON beside it differ" in capsys.readouterr().err
    assert {tuple(one["seeds"].values()) for one in quality(folder)["comparisons"]} == {(1, 1), (1, 2)}
    assert (folder / "portrait.json").read_text() == (finished / "portrait.json").read_text()
    other.write_bytes(b"no Parquet")
    for file in instances:
        file.unlink(missing_ok=True)
    run_benchmark(settings(tiny_data, folder), Options())
    assert f"{other.name} cannot be used" in capsys.readouterr().err and not quality(folder)["comparisons"]


def test_comments_with_several_positives_are_made_again_from_their_ranks(tiny_data: Path, tmp_path: Path) -> None:
    given = settings(tiny_data, tmp_path, task="comment", benchmark=["commentpop"], tune=False, seeds=[1], epochs=1)
    given.pop("valid_protocol")
    run_benchmark(given, Options())
    files = list((tmp_path / "work").glob("*/*/instances-test.parquet"))
    before = {file: pl.read_parquet(file) for file in files}
    assert len(files) == 2 and all((frame["positives"] > 1).any() for frame in before.values())
    shutil.rmtree(tmp_path / "work")
    run_benchmark(given, Options())
    assert all(pl.read_parquet(file).equals(frame) for file, frame in before.items())


def test_a_killed_benchmark_continues_and_ends_with_the_same_table(
    finished: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder, config = tmp_path / "out", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings(tiny_data, folder, benchmark=["popularity"])))
    command = ("--config", str(config), "--benchmark")
    kill_when(lambda: len(list((folder / "cells").glob("*.json"))) >= 2, *command, start=Started)
    assert len(list((folder / "cells").glob("*.json"))) < 5
    run_whole(*command, start=Started)
    expected = [arm for arm in quality(finished)["arms"] if arm["name"] in ("Popularity", "LSVCR")]
    assert quality(folder)["arms"] == expected


def test_changed_data_are_computed_anew_and_a_model_of_ones_own_takes_part(
    finished: Path, tiny_data: Path, tmp_path: Path
) -> None:
    other = tmp_path / "data" / "tiny"
    other.mkdir(parents=True)
    for file in (tiny_data / "tiny").iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    lines = (other / "tiny.inter").read_text().splitlines(keepends=True)
    (other / "tiny.inter").write_text("".join(lines[:-1]))
    folder = tmp_path / "out"
    own = Options(names=("popularity", "examples.custom_model:MyGRU"))
    text, incomplete = run_benchmark(settings(other.parent, folder, tune=False, seeds=[1], epochs=1), own)
    assert not incomplete, text
    assert [(arm["name"], arm["role"]) for arm in quality(folder, "role")["arms"]] == [
        ("Popularity", "rule"),
        ("MyGRU", "baseline"),
        ("LSVCR", "ours"),
    ]
    assert not {file.name for file in (folder / "cells").iterdir()} & {f.name for f in (finished / "cells").iterdir()}


def test_every_arm_has_an_outcome_before_jobs_start_and_variants_take_that_of_ours(
    tiny_data: Path, tmp_path: Path
) -> None:
    named = {"name": "main", "model": "LSVCR", "temperature": 0.2}  # its setting is called as that of ours
    given = settings(tiny_data, tmp_path / "out", benchmark=[named], alignment="cpu-small")
    study = Study(given, Options(steps=(0,)))
    assert list(study.outcomes) == study.arms and len(study.arms) == 3
    assert study._whole(study.presets[0]) is study.outcomes[study.main[-1]]


def test_one_configuration_serves_every_selection_of_its_models(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    changes = {
        "benchmark": ["sasrec", "my_models:Mine", "hgn"],
        "model_settings": {
            "CommentATT": {"trainable_text": "minilm"},
            "Mine": {"size": 3},
            "HGN": {"pooling_type": "max"},
            "UniSRec": {"n_experts": 2},
        },
        "tune": {"space": {"learning_rate": [0.1, 0.01], "MBHT": {"low_rank": [4]}}},
        "pretrain_epochs": 3,
    }
    given = settings(tiny_data, tmp_path / "out", **changes)
    study = Study(given, Options(names=("lsvcr",), cold=True))
    assert [arm.parameters.get("n_experts") for arm in study.presets] == [2, None, None]
    told = "pretrain_epochs, " + ", ".join(f"model_settings of {name}" for name in ("CommentATT", "Mine", "HGN"))
    assert caplog.messages.count(f"no model of this benchmark reads {told}, tune of MBHT") == 1
    of_comments = {**given, "benchmark": ["mbht", "unisrec"], "model_settings": {"FM": {"embedding_size": 9}}}
    del of_comments["pretrain_epochs"]
    assert len(Study(of_comments, Options()).arms) == 4  # FM is of the task that is not run
    short = settings(tiny_data, tmp_path / "out", task="comment", benchmark=["att", "mha"])
    del short["valid_protocol"]
    assert len(Study(short, Options()).main) == 3
    assert len(Study(short, Options(names=("lsvcrcomment",))).main) == 1


def test_metrics_on_which_models_are_compared_are_always_there(tiny_data: Path, tmp_path: Path) -> None:
    for cuts, expected in (([5, 20], [5, 20, 10]), (5, [5, 10]), ([5, 10], [5, 10])):
        study = Study(settings(tiny_data, tmp_path / "out", topk=cuts), Options(names=("lsvcr",)))
        assert study.main[0].parameters["topk"] == expected
    assert "topk" not in Study(settings(tiny_data, tmp_path / "out"), Options(names=("lsvcr",))).main[0].parameters


def test_tuning_leaves_alone_what_makes_an_arm_the_arm_it_is(tiny_data: Path, tmp_path: Path) -> None:
    slow = {"name": "slow", "model": "SASRec", "learning_rate": 0.1}
    changes = {
        "alignment": "cpu-small",
        "model_settings": {"GRU4Rec": {"learning_rate": 0.2}},
        "tune": {"space": {"learning_rate": [0.01, 0.001], "LSVCR": {"id_text_weight": [0.3, 0.5]}}},
    }
    study = Study(
        settings(tiny_data, tmp_path / "out", benchmark=[slow, "gru4rec", "sasrec"], **changes), Options(ablation=True)
    )
    chosen = {"learning_rate": 0.01, "id_text_weight": 0.5}
    arms = {(arm.group, arm.name): arm for arm in study.arms}
    cells = {key: study.cell(arm, chosen, 1).parameters for key, arm in arms.items()}
    assert cells["ablation", "w/o REG"]["id_text_weight"] == 0
    assert cells["ablation", "w/o SSC"]["id_text_weight"] == 0.5
    assert {cells["main", name]["learning_rate"] for name in ("SASRec", "LSVCR")} == {0.01}
    assert (cells["main", "slow"]["learning_rate"], cells["main", "GRU4Rec"]["learning_rate"]) == (0.1, 0.2)
    assert study.space(arms["main", "slow"]) == {} != study.space(arms["main", "SASRec"])
    assert set(study.space(arms["main", "LSVCR"])) == set(chosen)


def test_folders_of_the_configuration_are_for_arms_that_are_as_it_says(tiny_data: Path, tmp_path: Path) -> None:
    changes = {
        "alignment": "cpu-small",
        "alignment_folder": "mine",
        "text_store": "texts",
        "tune": {"space": {"learning_rate": [0.1, 0.01], "LSVCR": {"n_layers": [1, 2]}}},
    }
    other, deep = (
        {"name": "other", "model": "UniSRec", "text_max_tokens": 9},
        {"name": "deep", "model": "LSVCR", "n_layers": 3},
    )
    given = settings(tiny_data, tmp_path / "out", benchmark=["unisrec", other, deep], n_layers=1, **changes)
    study = Study(given, Options(ablation=True, steps=(0, 7)))
    places = {(arm.group, arm.name): study.cell(arm, {"n_layers": 1}, 2).places for arm in study.arms}
    in_folder = {key for key, found in places.items() if found.get("alignment_folder")}
    assert in_folder == {("main", "LSVCR"), ("ablation", "LSVCR"), ("ablation", "w/o REG")}
    # one alignment for all seeds, of those too that are aligned otherwise
    with_seed = {name for (_, name), found in places.items() if found.get("alignment_seed") == 1}
    assert with_seed == {"LSVCR", "deep", "w/o REG", "w/o SSC", "w/o VCC", "7 steps"} | {
        "w/o comment diversification",
        "w/o random positions",
    }
    with_store = {name for (_, name), found in places.items() if found.get("text_store")}
    assert with_store == {"UniSRec", "UniSRec-transductive", "w/o alignment", "0 steps"}
    assert "alignment_folder" not in study.cell(study.main[-1], {"n_layers": 2}, 1).places  # of a trial that changes it
    written_out = {"hidden_dropout_prob": 0.3, "hidden_act": "gelu", "record_gap": 86400, "text_max_tokens": 512}
    assert study.cell(study.main[-1], written_out, 1).places["alignment_folder"] == "mine"  # the defaults
    assert (
        study.cell(study.main[-1], {"popular_top": 9}, 1).places["alignment_folder"] == "mine"
    )  # of fine-tuning alone
    assert "alignment_folder" not in study.cell(study.main[-1], {"record_gap": 9}, 1).places


def test_folders_of_the_configuration_are_for_subclasses_but_not_for_other_seeds(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_lsvcr.py").write_text(
        "from recbole_lsvcr.model.lsvcr import LSVCR\n\n\nclass MyLSVCR(LSVCR):\n    pass\n"
    )
    shutil.copy(properties_dir() / "model" / "LSVCR.yaml", tmp_path / "MyLSVCR.yaml")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["my_lsvcr:MyLSVCR", *({"name": str(n), "model": "LSVCR", "alignment_seed": n} for n in (1, 99))]
    given = settings(tiny_data, tmp_path, benchmark=names, alignment="cpu-small", alignment_folder="mine")
    del given["MAX_ITEM_LIST_LENGTH"]  # which a class of the user's own is told
    study = Study(given, Options())
    found = {arm.name: study.cell(arm, {}, 2).places for arm in study.arms}
    assert {name for name in found if "alignment_folder" in found[name]} == {"MyLSVCR", "LSVCR", "1"}


def test_folders_are_also_for_an_alignment_of_model_settings(tiny_data: Path, tmp_path: Path) -> None:
    changes = {"model_settings": {"LSVCR": {"alignment": "cpu-small"}}, "alignment_folder": "mine"}
    study = Study(settings(tiny_data, tmp_path / "out", **changes), Options(names=("lsvcr",)))
    assert study.cell(study.main[0], {}, 1).places["alignment_folder"] == "mine"
    changes = {"model_settings": {"LSVCRComment": {"alignment": "cpu-small"}}, "alignment_folder": "mine"}
    study = Study(settings(tiny_data, tmp_path / "out", task="both", **changes), Options(names=("popularity",)))
    in_folder = [arm.name for arm in study.main if "alignment_folder" in study.cell(arm, {}, 1).places]
    assert in_folder == ["LSVCRComment"]


def test_seeds_with_alignments_of_their_own_are_not_taken_for_seeds_that_share_one(
    tiny_data: Path, tmp_path: Path
) -> None:
    alone = {"benchmark": ["popularity"], "tune": False, "alignment": {**TINY_ALIGNMENT, "steps": 1}, "epochs": 1}
    given = settings(tiny_data, tmp_path / "out", seeds=[1, 2], **alone)
    Study(given, Options()).run()
    Study(given, Options()).run()
    shared = Study({**given, "alignment_folder": str(tmp_path / "mine")}, Options())
    with pytest.raises(ConfigError, match=r"finished cell of LSVCR, seed 2, .* alignment of seed 2, .* of seed 1; go"):
        shared.run()


@pytest.mark.parametrize("text_mlp", ["frozen", "trained"])
def test_a_text_store_of_an_alignment_is_for_those_that_start_from_it(
    text_mlp: str, tiny_data: Path, tmp_path: Path
) -> None:
    alignment = {**TINY_ALIGNMENT, "steps": 1, "text_mlp": text_mlp}
    run = {**TINY, "model": "LSVCR", "data_path": str(tiny_data), "alignment": alignment}
    single = load_config(None, {**run, "output": str(tmp_path / "out")})
    pipeline.align(single)
    pipeline.encode(single)
    folders = {
        "alignment_folder": str(tmp_path / "out" / "alignment"),
        "text_store": str(tmp_path / "out" / "text_store"),
    }
    kept = {key: value for key, value in run.items() if key not in ("model", "seed", "epochs", "learning_rate")}
    given = settings(tiny_data, tmp_path / "out", benchmark=["unisrec"], seeds=[1, 2], **{**kept, **folders})
    study = Study(given, Options(ablation=True))
    stores = {arm.name for arm in study.arms if study.cell(arm, {}, 1).places.get("text_store")}
    assert stores == {"LSVCR", "w/o REG"}
    assert study.cell(study.main[-1], {}, 2).places["alignment_seed"] == single["seed"]  # that of the alignment
    other = {**given, "text_max_tokens": 9, "n_layers": 1 + int(single["n_layers"])}
    with pytest.raises(CheckpointError, match="n_layers is"):
        Study(other, Options())
    # without the folder it is none of this benchmark's
    del other["alignment_folder"], other["text_store"]
    Study(other, Options())


def test_an_alignment_for_all_seeds_is_of_the_seed_that_is_named_or_of_the_first(
    tiny_data: Path, tmp_path: Path
) -> None:
    for folder, named, expected in (("a", 7, 7), ("a", None, 1), (None, 7, 7), (None, None, None)):
        changes = {"alignment": "cpu-small", "alignment_folder": folder, "alignment_seed": named}
        study = Study(settings(tiny_data, tmp_path / "out", **changes), Options(names=("lsvcr",)))
        cell = study.cell(study.main[0], {}, 2)
        assert {**cell.parameters, **cell.places}.get("alignment_seed") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_every_job_at_once(
    number: signal.Signals, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, told, stop = threading.Event(), [], Processes.stop
    waiting, wait_for = threading.Event(), study_module.wait

    def wait_for_lanes(*arguments: Any, **options: Any) -> Any:
        waiting.set()
        return wait_for(*arguments, **options)

    def wait(self: Processes, *_: Any) -> int:
        if not told:
            told.append(number)
            assert waiting.wait(30)
            os.kill(os.getpid(), number)
        told.append(stopped.wait(30))
        raise Stopped

    monkeypatch.setattr(Processes, "wait", wait)
    monkeypatch.setattr(study_module, "wait", wait_for_lanes)
    monkeypatch.setattr(Processes, "stop", lambda self: (stop(self), stopped.set()))
    study = Study(settings(tiny_data, tmp_path / "out"), Options(names=("sasrec",), jobs=2))
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert told[0] == number and set(told[1:]) == {True}
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize(
    ("second", "told"),
    [({"status": "failed", "reason": "OSError: full"}, "OSError: full"), (None, "nothing was there to validate")],
)
def test_an_arm_without_a_score_says_why(
    second: dict[str, str] | None, told: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unscored = {"status": "done", "training": {"best_valid_score": -math.inf}}
    contents = iter([unscored, second or unscored])
    study = Study(settings(tiny_data, tmp_path / "out"), Options(names=("lsvcr",)))
    monkeypatch.setattr(study, "_run", lambda cell, trial: next(contents))
    outcome = study.outcomes[study.main[0]]
    study._tune(outcome)
    assert outcome.failed is not None and told in outcome.failed


@pytest.mark.parametrize("option", ["--minutes=0", "--minutes=-5", "--minutes=nan", "--minutes=soon", "--jobs=0"])
def test_a_budget_that_is_none_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_lsvcr.main(["--config", "absent.yaml", option])
    name, _, value = option.partition("=")
    assert caught.value.code == 2
    assert f"argument {name}: '{value}' is not a" in capsys.readouterr().err


def test_the_model_of_the_configuration_says_the_task_where_nothing_else_does(tiny_data: Path, tmp_path: Path) -> None:
    for model, task in (("LSVCR", "video"), ("LSVCRComment", "comment")):
        given = settings(tiny_data, tmp_path / "out", benchmark=None, valid_protocol=None, model=model)
        study = Study(given, Options(names=(model,)))
        assert study.tasks == (task,) and [arm.name for arm in study.arms] == [model]


def test_what_chooses_the_models_also_judges_them(tiny_data: Path, tmp_path: Path) -> None:
    given = settings(tiny_data, tmp_path, task="both", benchmark=["popularity", "commentpop"])
    by_phase = {"valid": "full", "test": "uni9"}
    for changes, *expected in (
        ({}, "available+period", "available+uniform"),
        (
            {"eval_args": {**TINY["eval_args"], "mode": "uni50"}, "sample_num": 50},
            "all+uniform50",
            "available+uniform50",
        ),
        ({"eval_args": {**TINY["eval_args"], "mode": by_phase}}, "all+full", "available+full"),
        ({"valid_protocol": "all+full", "comment_valid_protocol": "available+full"}, "all+full", "available+full"),
        ({"protocols": ["all+full"], "comment_protocols": ["available+full"]}, "available+period", "available+uniform"),
    ):
        study = Study({**given, "valid_protocol": None, **changes}, Options())
        chosen, first = {}, {}
        for arm in study.main:
            config = study.configuration(arm)
            chosen[arm.task] = str(selection_protocol(config, comments=arm.task == "comment"))
            protocols = config["comment_protocols" if arm.task == "comment" else "protocols"]
            first[arm.task] = str(parse_protocols(protocols, config["sample_num"])[0])
        assert [chosen["video"], chosen["comment"]] == expected == [first["video"], first["comment"]]


def test_stopping_writes_nothing(tmp_path: Path) -> None:
    processes = Processes()
    processes.stop()
    with pytest.raises(Stopped):
        processes.wait(os.getpid)


@pytest.mark.parametrize(
    ("changes", "arguments", "told"),
    [
        ({}, ["--benchmark", "sasrek"], "did you mean sasrec"),
        ({}, ["--benchmark", ", "], "names no model"),
        ({}, ["--benchmark", "CommentZAM"], "ranks comments"),
        ({"benchmark": ["LightGCN"]}, ["--benchmark"], "LightGCN"),
        ({"benchmark": [{"model": "SASRec"}]}, ["--benchmark"], "name, model"),
        ({"benchmark": [{"name": "A", "model": "SASRec", "hiden": 1}]}, ["--benchmark"], "hiden"),
        ({"benchmark": ["sasrec", {"name": "SASRec", "model": "SASRec"}]}, ["--benchmark"], "twice"),
        ({"model": "SASRec"}, ["--benchmark"], "single run"),
        ({"custom_model": "my_models:Mine"}, ["--benchmark"], "--benchmark my_models:Mine"),
        ({"model": "LSVCRComment", "task": "video"}, ["--benchmark"], "ranks comments, not videos"),
        ({"task": "both", "joint": True}, ["--benchmark"], "single run"),
        ({"report_phases": ["valid"]}, ["--benchmark", "sasrec"], "compares on the test period"),
        ({"seeds": [1, 1]}, ["--benchmark", "sasrec"], "seed twice"),
        ({"seeds": 3}, ["--benchmark", "sasrec"], "seeds = 3"),
        ({"seeds": None, "seed": "one"}, ["--benchmark", "sasrec"], "seed = 'one'"),
        ({"task": "videos"}, ["--benchmark", "sasrec"], "task = 'videos'"),
        ({"hidden_size": "big"}, ["--benchmark", "sasrec"], "hidden_size = 'big'"),
        ({"embedding_size": 32}, ["--benchmark", "gru4rec"], "embedding_size = 32 is the size of some models only"),
        ({"tune": {"budget": "many"}}, ["--benchmark", "sasrec"], "budget"),
        ({"tune": {"space": {"n_heads": [1, 2]}}}, ["--benchmark", "gru4rec"], "GRU4Rec does not read all"),
        (
            {"benchmark": ["sasrec"], "tune": {"space": {"learning_rate": [0.1], "NARM": {"n_layers": [1]}}}},
            ["--benchmark"],
            "tune: NARM is not in this benchmark",
        ),
        (
            {"tune": {"space": {"SASRec": {"n_heads": [1]}}}},
            ["--benchmark", "sasrec"],
            "LSVCR would have nothing to try",
        ),
        ({"tune": {"space": {"learning_rate": [0.01, "x"]}}}, ["--benchmark", "sasrec"], "SASRec: learning_rate = 'x'"),
        (
            {"tune": {"space": {"learning_rate": [0.1], "SASRec": {"n_heads": {"low": 0, "high": 2}}}}},
            ["--benchmark", "sasrec"],
            "tune: SASRec: n_heads = 0 is not accepted",
        ),
        (
            {"benchmark": ["sasrec"], "model_settings": {"NARM": {"n_layers": 1}}},
            ["--benchmark"],
            "model_settings: NARM is not in this benchmark",
        ),
        ({"model_settings": {"Sasrec": {"n_layers": 1}}}, ["--benchmark", "sasrec"], "Sasrec is not in this benchmark"),
        (
            {
                "model_settings": {"SASRec": {"n_heads": 1}},
                "tune": {"space": {"learning_rate": [0.1], "SASRec": {"n_heads": [1]}}},
            },
            ["--benchmark", "sasrec"],
            "n_heads of SASRec is in model_settings and in tune",
        ),
        ({"save_instances": False}, ["--benchmark", "sasrec"], "save_instances = False is for a single run"),
        ({"eval_step": 0}, ["--benchmark", "sasrec"], "eval_step = 0 leaves SASRec without validation"),
        ({"eval_step": 3}, ["--benchmark", "sasrec"], "eval_step = 3 is more than epochs = 2"),
        ({"model_settings": {"SASRec": {"n_layer": 1}}}, ["--benchmark", "sasrec"], "n_layers"),
        ({"model_settings": {"SASRec": {"seed": 3}}}, ["--benchmark", "sasrec"], "SASRec sets seed, which is the same"),
        ({"model_settings": {"SASRec": {"sample_num": 9}}}, ["--benchmark", "sasrec"], "SASRec sets sample_num"),
        (
            {"model_settings": {"SASRec": {"topk": [20]}}},
            ["--benchmark", "sasrec"],
            "SASRec sets topk, which is the same",
        ),
        (
            {"benchmark": [{"name": "A", "model": "SASRec", "dataset": "b"}]},
            ["--benchmark"],
            "benchmark: A sets dataset",
        ),
        ({"tune": {"space": {"seed": [1, 2]}}}, ["--benchmark", "sasrec"], "tune sets seed"),
        ({"model_settings": {"S3Rec": {"train_stage": "pretrain"}}}, ["--benchmark", "s3rec"], "leaves no S3Rec that"),
        ({"learning_rat": 0.1}, ["--benchmark", "sasrec"], "learning_rate"),
        ({"output": None}, ["--benchmark", "sasrec"], "output"),
        ({"dataset": "nothing-here"}, ["--benchmark", "sasrec"], "nothing-here"),
        ({}, ["--benchmark", "sasrec", "--ablation"], "alignment is off"),
        ({}, ["--benchmark", "sasrec", "--alignment-steps", "0,5"], "alignment is off"),
        ({}, ["--jobs", "2"], "--benchmark"),
        ({}, ["--cold"], "--benchmark"),
        ({}, ["--benchmark", "sasrec", "--stage", "align"], "single run"),
    ],
)
def test_what_a_person_can_get_wrong_ends_in_one_message_before_any_work(
    changes: dict[str, Any], arguments: list[str], told: str, tiny_data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = {**settings(tiny_data, tmp_path / "out"), "benchmark": None, **changes}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in given.items() if value is not None}))
    assert run_lsvcr.main(["--config", str(file), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("run_lsvcr.py: error: ") and told in error
    assert not (tmp_path / "out" / "cells").exists()
