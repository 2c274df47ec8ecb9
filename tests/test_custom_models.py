"""A model of the user's own, named by its import path: found, given its defaults, checked, kept for other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from conftest import TINY, Make
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataset import SequentialDataset
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_model, get_trainer
from tiny_recbole import TINY as TINY_RECBOLE
from tiny_recbole import write_data

import recbole_lsvcr
from recbole_lsvcr import pipeline, plugin, recbole_files, registry
from recbole_lsvcr.config import load_config, load_configs
from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.trainer import LSVCRTrainer

ROOT = Path(__file__).resolve().parent.parent
MODULE = '''
import torch
from recbole.model.abstract_recommender import GeneralRecommender, SequentialRecommender
from recbole.model.context_aware_recommender.fm import FM
from recbole.model.sequential_recommender import GRU4Rec, SASRec
from recbole_lsvcr.model.comment_base import CommentRecommender
from recbole_lsvcr.model.lsvcr import LSVCR


class MeanOfHistory(SequentialRecommender):
    """The mean of the embeddings of the history."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.items = torch.nn.Embedding(self.n_items, config["my_size"], padding_idx=0)

    def forward(self, interaction):
        return self.items(interaction[self.ITEM_SEQ]).sum(1) / interaction[self.ITEM_SEQ_LEN][:, None]

    def calculate_loss(self, interaction):
        return torch.nn.functional.cross_entropy(self.full_sort_predict(interaction), interaction[self.POS_ITEM_ID])

    def full_sort_predict(self, interaction):
        return self.forward(interaction) @ self.items.weight.T

    def predict(self, interaction):
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None]).squeeze(1)


class Unsaid(SequentialRecommender):
    pass


class OwnSASRec(SASRec):
    pass


class OwnLSVCR(LSVCR):
    pass


class OwnFM(FM):
    pass


class ByLength(CommentRecommender):
    """Small comment ids first: a rule that learns an offset."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.offset = torch.nn.Parameter(torch.zeros(1))

    def score_candidates(self, interaction, comments):
        return self.offset - comments.float()


class Abstract(CommentRecommender):
    pass


class General(GeneralRecommender):
    pass


class Sasrec(SequentialRecommender):
    pass


class lsvcr(SequentialRecommender):
    pass


class KG(SequentialRecommender):
    pass


def function():
    pass
'''


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A working folder with the user's models; what is registered is forgotten afterwards."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "models.py").write_text(MODULE)
    (tmp_path / "mine" / "MeanOfHistory.yaml").write_text("my_size: 8\nloss_type: CE\nlearning_rate: 0.02\n")
    (tmp_path / "other.py").write_text(MODULE)
    (tmp_path / "needs.py").write_text("import absent_package.part\n")
    (tmp_path / "broken.py").write_text("class A(:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    names = {name.lower() for name in registry.CUSTOM}
    registry.CUSTOM.clear()
    for module in set(sys.modules) - before:
        if module.partition(".")[0] in ("mine", "other", "needs", "broken") or module.rpartition(".")[2] in names:
            del sys.modules[module]


def said(**changes: Any) -> dict[str, Any]:
    return {"dataset": "lsvcr-sample", "output": "out", **changes}


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("mine/models.py:MeanOfHistory", r"is not an import path; accepted: package.module:ClassName"),
        ("mine.models:", "is not an import path"),
        ("mine.models:Mean:More", "is not an import path"),
        ("mine.absent:A", r"there is no module mine\.absent in .* or on Python's path"),
        ("absent.models:A", "there is no module absent in"),
        ("needs:A", "needs the module absent_package, which is not installed"),
        ("broken:A", r"cannot be imported: SyntaxError: .*broken\.py, line 1"),
        ("mine.models:MeanOfhistory", "has no MeanOfhistory; its classes are: MeanOfHistory, Unsaid, OwnSASRec"),
        ("mine.models:General", "is a class of another kind; accepted: a class deriving from"),
        ("mine.models:SequentialRecommender", "is a class of another kind"),
        ("mine.models:function", "is not a class; accepted"),
        ("mine.models:Abstract", r"is abstract \(score_candidates is missing\)"),
        ("mine.models:Sasrec", "the name Sasrec is taken by RecBole"),
        ("mine.models:GRU4Rec", "the name GRU4Rec is taken by RecBole"),
        ("mine.models:KG", "the name KG is taken by RecBole"),
        ("mine.models:lsvcr", "the name lsvcr is taken by recbole-lsvcr"),
    ],
)
def test_what_is_no_model_is_refused_in_one_message(room, path, told):
    before = dict(registry.CUSTOM)  # other tests of this process may have models of their own
    for refuse in (recbole_lsvcr.register_model, lambda path: load_config(None, said(model=path))):
        with pytest.raises(ConfigError, match=told) as caught:
            refuse(path)
        assert f"'{path}'" in str(caught.value) and "\n" not in str(caught.value)
    assert before == registry.CUSTOM


def test_a_name_belongs_to_one_path(room):
    assert recbole_lsvcr.register_model("mine.models:OwnFM") == "OwnFM"
    assert recbole_lsvcr.register_model("mine.models:OwnFM") == "OwnFM"
    with pytest.raises(ConfigError, match=r"the name OwnFM is taken by 'mine\.models:OwnFM'"):
        recbole_lsvcr.register_model("other:OwnFM")


def test_it_is_found_by_name_with_recboles_data_or_ours(room):
    import recbole.data.dataset
    import recbole.trainer

    for name in ("MeanOfHistory", "OwnSASRec", "OwnFM", "OwnLSVCR", "ByLength"):
        recbole_lsvcr.register_model(f"mine.models:{name}")
        model = get_model(name)
        assert model is getattr(sys.modules["mine.models"], name)
        joint = name in ("OwnLSVCR", "ByLength")  # only these want what our data set alone has
        assert get_trainer(model.type, name) is (LSVCRTrainer if joint else recbole.trainer.Trainer)
        assert getattr(recbole.data.dataset, f"{name}Dataset", None) is (JointDataset if joint else None)


def test_a_configuration_keeps_the_path(room, tiny_config: Make):
    (room / "c.yaml").write_text("model: mine.models:MeanOfHistory\ndataset: lsvcr-sample\noutput: out\n")
    config = load_config(room / "c.yaml")
    assert (config["model"], config["custom_model"]) == ("MeanOfHistory", "mine.models:MeanOfHistory")
    assert (config["task"], config["my_size"], config["learning_rate"], config["epochs"]) == ("video", 8, 0.02, 50)
    # Another model is asked for above the file; the path alone names a model; two paths of one model agree.
    assert load_config(room / "c.yaml", {"model": "SASRec"})["custom_model"] is None
    assert load_config(None, said(custom_model="mine.models:OwnFM"))["model"] == "OwnFM"
    assert load_config(None, said(model="OwnFM"))["custom_model"] == "mine.models:OwnFM"
    changed = load_config(None, said(model="SASRec", custom_model="mine.models:MeanOfHistory"))
    assert (changed["model"], changed["custom_model"]) == ("SASRec", None)
    assert [one["custom_model"] for one in load_configs(None, said(task="both"))] == [None, None]


def test_a_resolved_configuration_is_enough_for_another_process(room, tiny_config: Make):
    run = pipeline.Run(tiny_config(model="mine.models:MeanOfHistory", epochs=1, output="out"))
    run.describe()
    resolved = yaml.safe_load(Path("out/MeanOfHistory/config.yaml").read_text())
    kept = {key: resolved[key] for key in ("model", "custom_model", "dataset", "my_size")}
    assert kept["custom_model"] == "mine.models:MeanOfHistory"
    done = python(
        f"""
        from recbole_lsvcr.config import load_config
        config = load_config(None, {{**{kept!r}, "dataset": "lsvcr-sample", "output": "out"}})
        from recbole.utils import get_model
        print(get_model(config["model"]).__module__)
        """,
        room,
    )
    assert done.stdout == "mine.models\n", done.stderr


def test_its_keys_are_known_and_others_are_not(room):
    load_config(None, said(model="mine.models:MeanOfHistory", my_size=16))
    with pytest.raises(ConfigError, match=r"'my_sise' \(did you mean 'my_size'.*keys of a MeanOfHistory.yaml beside"):
        load_config(None, said(model="MeanOfHistory", my_sise=16))
    with pytest.raises(ConfigError, match=r"model 'Unsaid' says neither by .* put loss_type into Unsaid\.yaml"):
        load_config(None, said(model="mine.models:Unsaid"))
    load_config(None, said(model="Unsaid", loss_type="CE"))
    with pytest.raises(ConfigError, match="ranks videos, not comments"):
        load_config(None, said(model="Unsaid", loss_type="CE", task="comment"))


def test_defaults_are_those_of_the_classes_it_derives_from(room):
    config = load_config(None, said(model="mine.models:OwnSASRec", n_layers=3))
    assert (config["n_layers"], config["inner_size"], config["hidden_dropout_prob"]) == (3, 256, 0.5)
    (room / "mine" / "OwnLSVCR.yaml").write_text("temperature: 0.2\nmy_own: 1\n")
    config = load_config(None, said(model="mine.models:OwnLSVCR"))
    assert (config["temperature"], config["text_size"], config["my_own"]) == (0.2, 256, 1)
    config = load_config(None, said(model="mine.models:ByLength"))
    assert (config["task"], config["hidden_size"]) == ("comment", 64)
    (room / "mine" / "OwnFM.yaml").write_text("- none\n")
    with pytest.raises(ConfigError, match=r"OwnFM\.yaml holds a list"):
        load_config(None, said(model="mine.models:OwnFM"))


@pytest.mark.parametrize("name", ["MeanOfHistory", "OwnSASRec", "OwnLSVCR", "OwnFM", "ByLength"])
def test_it_runs_like_any_other(room, tiny_config: Make, name):
    small = {key: TINY[key] for key in ("hidden_size", "n_layers", "inner_size")} if name == "OwnLSVCR" else {}
    report = pipeline.run(tiny_config(model=f"mine.models:{name}", epochs=1, report_phases=["test"], **small))
    assert report is not None and report["model"] == name
    found = report["phases"]["test"]["protocols"]
    assert all(entry["instances"] > 0 and 0 <= entry["metrics"]["ndcg@10"] <= 1 for entry in found.values())


@pytest.fixture
def recbole_room(room, monkeypatch):
    write_data(room / "dataset" / "tiny")
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)
    monkeypatch.setattr(recbole_files, "_trusted", set())
    with plugin.hidden_argv():
        yield room


def test_plain_recbole_programs_have_it_too(recbole_room):
    recbole_lsvcr.register_model("mine.models:MeanOfHistory")
    by_name = run_recbole(model="MeanOfHistory", dataset="tiny", config_dict=dict(TINY_RECBOLE))
    by_path = run_recbole(model="mine.models:MeanOfHistory", dataset="tiny", config_dict=dict(TINY_RECBOLE))
    assert by_name == by_path
    config = Config(dataset="tiny", config_dict={**TINY_RECBOLE, "model": "mine.models:MeanOfHistory"})
    assert (config["model"], config["custom_model"]) == ("MeanOfHistory", "mine.models:MeanOfHistory")
    assert config["my_size"] == 8 and type(create_dataset(config)) is SequentialDataset


def test_a_checkpoint_imports_nothing_by_itself(recbole_room):
    result = run_recbole(model="mine.models:MeanOfHistory", dataset="tiny", config_dict=dict(TINY_RECBOLE))
    (file,) = Path("saved").glob("MeanOfHistory-*.pth")
    registry.CUSTOM.clear()
    with pytest.raises(CheckpointError, match=r"call recbole_lsvcr\.register_model\('mine\.models:MeanOfHistory'\)"):
        load_data_and_model(file)
    done = python(
        f"""
        import json, recbole_lsvcr
        recbole_lsvcr.register_model("mine.models:MeanOfHistory")
        from recbole.quick_start import load_data_and_model
        from recbole.utils import get_trainer
        config, model, _, _, _, test = load_data_and_model({str(file)!r})
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        print(json.dumps(trainer.evaluate(test, load_best_model=False)))
        """,
        recbole_room,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict(result["test_result"])


def test_the_command_line_takes_a_path(room, tiny_data, capsys):
    import run_lsvcr

    file = room / "c.yaml"
    file.write_text(yaml.safe_dump({"dataset": "tiny", "data_path": str(tiny_data), "epochs": 1, "use_gpu": False}))
    arguments = ["--config", str(file), "--model=mine.models:MeanOfHistory", "--output", "out"]
    assert run_lsvcr.main(arguments) == 0
    assert "MeanOfHistory on tiny (synthetic data), test" in capsys.readouterr().out
    assert run_lsvcr.main([*arguments[:2], "--model=mine.models:Absent", "--output", "out"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
