"""The arms of a benchmark: every baseline of the paper, sizes and settings shared, presets as in its tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from recbole_lsvcr import registry
from recbole_lsvcr.benchmark.arms import Arm, Catalogue
from recbole_lsvcr.benchmark.vocabulary import ABLATION, COLD, STEPS
from recbole_lsvcr.config import load_config
from recbole_lsvcr.custom_models import source_files
from recbole_lsvcr.encoding import encoders
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import properties_dir

TABLE_2 = ["Caser", "GRU4Rec", "BERT4Rec", "SASRec", "NARM", "DMT", "MBHT", "FDSA", "S3Rec", "UniSRec"]
TABLE_3 = ["DSSM", "GRU", "ATT", "MHA", "ZAM", "TEM"]
ALIGNED = {"alignment": {"preset": "cpu-small", "steps": 50}}


def catalogue(*tasks: str, models: Mapping[str, Mapping[str, Any]] | None = None, **given: Any) -> Catalogue:
    return Catalogue(given, models or {}, tasks or ("video",))


def names(arms: list[Arm]) -> list[str]:
    return [arm.name for arm in arms]


def test_all_baselines_of_the_paper_and_the_trivial_ones_are_there() -> None:
    video, comment = catalogue("video").main(None), catalogue("comment").main(None)
    assert set(TABLE_2) <= set(names(video))
    assert {"Popularity", "Newest", "TextSim", "SASRecText", "UniSRec-transductive"} <= set(names(video))
    assert {f"Comment{name}" for name in TABLE_3} <= set(names(comment))
    for arms, ours in ((video, "LSVCR"), (comment, "LSVCRComment")):
        assert names(arms)[-1] == ours and [arm.role for arm in arms].count("ours") == 1
        assert [arm.learns for arm in arms] == [arm.role != "rule" for arm in arms]
    assert len(catalogue("video", "comment").main(None)) == len(video) + len(comment)


def test_names_select_whatever_their_case_and_ours_is_always_there() -> None:
    assert names(catalogue().main(["sasrec", "POPULARITY"])) == ["Popularity", "SASRec", "LSVCR"]
    assert names(catalogue().main(["unisrec"])) == ["UniSRec", "UniSRec-transductive", "LSVCR"]
    assert names(catalogue().main(["UniSRec-transductive"])) == ["UniSRec-transductive", "LSVCR"]
    assert names(catalogue().main(["hgn", "SASRec", "lsvcr"])) == ["SASRec", "HGN", "LSVCR"]
    both = catalogue("video", "comment").main(["gru4rec", "zam", "deepfm"])
    assert names(both) == ["GRU4Rec", "LSVCR", "CommentZAM", "DeepFM", "LSVCRComment"]


def test_what_tells_two_arms_of_a_model_apart_cannot_be_set_for_both() -> None:
    told = "transductive of UniSRec is what tells UniSRec and UniSRec-transductive apart"
    with pytest.raises(ConfigError, match=told):
        catalogue(transductive=True).main(None)
    with pytest.raises(ConfigError, match=told):
        catalogue(models={"UniSRec": {"transductive": True}}).main(["UniSRec-transductive"])
    own = {"name": "mine", "model": "UniSRec"}  # says nothing of it itself
    arms = catalogue(models={"UniSRec": {"transductive": True}}).main([own])
    assert arms[0].parameters["transductive"] is True


def test_every_model_has_vectors_of_one_size_under_its_own_name() -> None:
    sizes = {"embedding_size", "hidden_size"}
    for arm in catalogue("video", "comment", hidden_size=24).main(None):
        assert {arm.parameters[key] for key in sizes & set(arm.parameters)} == ({24} if arm.learns else set())


def test_a_setting_goes_to_every_model_that_has_it_and_to_no_other() -> None:
    arms = {a.name: a.parameters for a in catalogue(hidden_dropout_prob=0.1, epochs=3, id_text_weight=0.5).main(None)}
    assert {arms[name].get("hidden_dropout_prob") for name in ("SASRec", "LSVCR", "MBHT")} == {0.1}
    assert "hidden_dropout_prob" not in arms["GRU4Rec"] and "id_text_weight" not in arms["SASRec"]
    assert arms["LSVCR"]["id_text_weight"] == 0.5
    assert {parameters["epochs"] for parameters in arms.values()} == {3}


def test_models_that_are_not_aligned_do_not_change_with_the_alignment() -> None:
    with_it, without = catalogue(**ALIGNED).main(["sasrec"]), catalogue().main(["sasrec"])
    assert with_it[0].parameters == without[0].parameters
    assert with_it[1].parameters["alignment"] == ALIGNED["alignment"]


def test_settings_of_one_task_are_not_those_of_the_other() -> None:
    given = {"protocols": ["all+full"], "comment_protocols": ["available+full"], "train_negative_num": 5}
    arms = {arm.name: arm.parameters for arm in catalogue("video", "comment", **given).main(["sasrec", "zam"])}
    assert "protocols" in arms["LSVCR"] and "comment_protocols" not in arms["LSVCR"]
    assert "protocols" not in arms["CommentZAM"] and arms["CommentZAM"]["train_negative_num"] == 5


def test_arms_of_the_users_own_and_settings_by_model() -> None:
    own = {"name": "Small SASRec", "model": "sasrec", "n_layers": 1}
    arms = catalogue(models={"SASRec": {"n_heads": 1}}).main(["sasrec", own])
    assert [(a.name, a.setting, a.parameters.get("n_layers"), a.parameters.get("n_heads")) for a in arms[:2]] == [
        ("SASRec", "main", None, 1),
        ("Small SASRec", "small-sasrec", 1, 1),
    ]
    custom = catalogue().main(["examples.custom_model:MyGRU"])[0]
    assert (custom.name, custom.parameters["custom_model"]) == ("MyGRU", "examples.custom_model:MyGRU")
    assert custom.parameters["hidden_size"] == 64


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a model of the user's own, `models_of_mine:Mine`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    file = tmp_path / "models_of_mine.py"
    file.write_text("from recbole.model.sequential_recommender.gru4rec import GRU4Rec\nclass Mine(GRU4Rec): pass\n")
    yield file
    registry.CUSTOM.pop("Mine", None)
    for module in set(sys.modules) - before:
        if module.endswith(("_of_mine", ".mine")):
            del sys.modules[module]


def test_a_model_of_ones_own_trains_as_long_and_reads_as_much_as_the_others(mine: Path) -> None:
    mine.with_name("Mine.yaml").write_text(
        "epochs: 500\nstopping_step: 50\nMAX_ITEM_LIST_LENGTH: 200\ndropout_prob: 0.1\n"
    )
    shared = ("epochs", "stopping_step", "MAX_ITEM_LIST_LENGTH", "train_batch_size", "valid_metric", "topk")
    for given in ({}, {"epochs": 7, "MAX_ITEM_LIST_LENGTH": 9}):
        arms = catalogue(**given, dataset="lsvcr-sample").main(["sasrec", "models_of_mine:Mine"])
        configs = [load_config(None, {**arm.parameters, "model": arm.model, "output": "out"}) for arm in arms]
        assert [arm.model for arm in arms] == ["SASRec", "Mine", "LSVCR"] and configs[1]["dropout_prob"] == 0.1
        assert len({str([config[key] for key in shared]) for config in configs}) == 1


def test_a_changed_model_of_ones_own_is_another(mine: Path) -> None:
    file, defaults = mine, mine.with_name("Mine.yaml")
    defaults.write_text("dropout_prob: 0.1\n")
    assert catalogue().main(["sasrec"])[0].source is None
    arm = catalogue().main(["models_of_mine:Mine"])[0]
    found = [arm.source]
    for changed in (defaults, file):
        changed.write_text(changed.read_text() + "# changed\n")
        found.append(arm.source)
    assert None not in found and len(set(found)) == 3


def test_so_is_one_whose_imports_changed(mine: Path) -> None:
    parts = mine.with_name("parts") / "of_mine.py"
    parts.parent.mkdir()
    base, aside = mine.with_name("base_of_mine.py"), mine.with_name("aside_of_mine.py")
    parts.write_text("SIZE = 1\ndef layer(): pass\n")
    base.write_text("from parts.of_mine import layer\n" + mine.read_text().replace("Mine", "Base"))
    mine.write_text("import base_of_mine\nclass Mine(base_of_mine.Base): pass\n")
    aside.write_text("")
    arm = catalogue().main(["models_of_mine:Mine"])[0]
    found = [arm.source]
    for changed in (base, parts, aside):
        changed.write_text(changed.read_text() + "# changed\n")
        found.append(arm.source)
    assert len(set(found[:3])) == 3 and found[2] == found[3]
    assert {file.name for file in source_files("Mine")} == {mine.name, base.name, parts.name, "GRU4Rec.yaml"}


def test_a_changed_folder_of_a_model_that_reads_text_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"1")
    (tmp_path / "corpus").mkdir()  # is not what `llm: corpus` means
    monkeypatch.chdir(tmp_path)
    encoded = catalogue(text_encoder=str(model)).main(["sasrec", "textsim"])
    aligned = catalogue(text_encoder="minilm", alignment={"preset": "cpu-small", "llm": str(model)}).main(["sasrec"])
    readers = [encoded[0], encoded[2], aligned[1]]
    assert [arm.name for arm in readers] == ["TextSim", "LSVCR", "LSVCR"]
    assert encoded[1].source is aligned[0].source is None
    before = [arm.source for arm in readers]
    (model / "README.md").write_text("says nothing of the weights")
    assert [arm.source for arm in readers] == before and None not in before
    (model / "model.safetensors").write_bytes(b"2")
    assert not set(before) & {arm.source for arm in readers}
    assert {arm.source for arm in catalogue(text_encoder="minilm", **ALIGNED).main(["textsim"])} == {None}


def test_what_auto_stands_for_tells_arms_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for installed in (True, False):
        monkeypatch.setattr(encoders, "_installed", lambda package, installed=installed: installed)
        found.append([arm.source for arm in catalogue().main(["sasrec"])])
    (sasrec, ours), (other_sasrec, other_ours) = found
    assert sasrec is other_sasrec is None and ours != other_ours and None not in (ours, other_ours)


def test_an_alignment_in_a_changed_file_is_another(tmp_path: Path) -> None:
    settings, base, prompts = (tmp_path / name for name in ("mine.yaml", "base.yaml", "prompts.yaml"))
    prompts.write_text((properties_dir() / "prompts" / "en.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    base.write_text(f"preset: cpu-small\nprompts: {prompts}\n")
    settings.write_text(f"preset: {base}\nsteps: 50\n")
    for given in (str(settings), {"preset": str(settings), "ssc": False}):
        other, arm = catalogue(alignment=given).main(["sasrec"])
        found = [arm.source]
        for changed in (settings, base, prompts):
            with changed.open("a", encoding="utf-8") as file:
                file.write("# changed\n")
            found.append(arm.source)
        assert other.source is None and None not in found and len(set(found)) == 4
    assert catalogue(**ALIGNED).main(["sasrec"])[1].source is None
    prompts.unlink()
    with pytest.raises(ConfigError, match="prompts is"):
        _ = arm.source


def test_the_ablation_takes_one_part_away_at_a_time() -> None:
    base = catalogue("video", "comment", **ALIGNED)
    arms = base.ablation(base.main(["lsvcr"]))
    whole = arms[0]
    assert {arm.group for arm in arms} == {ABLATION} and len(arms) == 14
    assert names(arms)[:7] == [
        "LSVCR",
        "w/o SSC",
        "w/o VCC",
        "w/o comment diversification",
        "w/o random positions",
        "w/o alignment",
        "w/o REG",
    ]
    changed = {a.name: {k: v for k, v in a.parameters.items() if whole.parameters.get(k) != v} for a in arms[1:7]}
    assert changed == {
        "w/o SSC": {"alignment": {**ALIGNED["alignment"], "ssc": False}},
        "w/o VCC": {"alignment": {**ALIGNED["alignment"], "vcc": False}},
        "w/o comment diversification": {
            "alignment": {**ALIGNED["alignment"], "diversify_videos": False, "diversify_records": False}
        },
        "w/o random positions": {"alignment": {**ALIGNED["alignment"], "random_positions": False}},
        "w/o alignment": {"alignment": False},
        "w/o REG": {"id_text_weight": 0},
    }
    assert {arm.chosen_with for arm in arms[1:7]} == {"main"}


def test_the_step_curve_and_the_cold_start() -> None:
    base = catalogue(alignment="cpu-small")
    ours = base.main(["lsvcr"])
    steps = base.alignment_steps(ours, (0, 10, 300))
    assert [(a.name, a.group, a.setting, a.parameters["alignment"]) for a in steps] == [
        ("0 steps", STEPS, "no-alignment", False),
        ("10 steps", STEPS, "steps-10", {"preset": "cpu-small", "steps": 10}),
        ("300 steps", STEPS, "main", "cpu-small"),  # the whole model itself: its cells are there
    ]
    cold = base.cold(ours)
    assert [(a.name, a.group, a.chosen_with) for a in cold] == [
        ("UniSRec", COLD, None),
        ("LSVCR", COLD, None),
        ("LSVCR without ids", COLD, None),
    ]
    assert cold[-1].parameters["use_id"] is False and cold[0].parameters["transductive"] is False


@pytest.mark.parametrize("preset", ["ablation", "alignment_steps"])
def test_presets_of_the_alignment_want_one(preset: str) -> None:
    base = catalogue()
    arguments = [base.main(["lsvcr"]), *([(0, 5)] if preset == "alignment_steps" else [])]
    with pytest.raises(ConfigError, match="alignment is off"):
        getattr(base, preset)(*arguments)
