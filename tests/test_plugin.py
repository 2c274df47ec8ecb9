"""RecBole with the plugin: our models are found, its own models run on this stack, nothing unsafe is read."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run, run_recbole
from recbole.utils import get_model, get_trainer
from tiny_recbole import ITEM_COLUMNS, TINY, write_data

from recbole_lsvcr import checkpoint, plugin, recbole_files, registry
from recbole_lsvcr.errors import CheckpointError, ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def room(tmp_path, monkeypatch):
    """Every test in a folder of its own with the data set `tiny`; RecBole does not see pytest's arguments."""
    write_data(tmp_path / "dataset" / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recbole_files, "_trusted", set())
    monkeypatch.delenv(recbole_files.TRUST_VARIABLE, raising=False)
    with plugin.hidden_argv():
        yield tmp_path


@pytest.fixture
def quiet(monkeypatch):
    """What each run does once over and nobody looks at here: TensorBoard's files and a second of measuring the CPU."""
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)


def python(code: str, *, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process that can import the package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)


def trained(model: str, **settings) -> tuple[dict, Path]:
    """Train on `tiny`; the result and the newest checkpoint."""
    result = run_recbole(model=model, dataset="tiny", config_dict={**TINY, **settings})
    return result, max(Path("saved").glob(f"{model}-*.pth"), key=os.path.getmtime)


# ---- the import ----


def test_the_import_is_light_and_works_without_recbole():
    done = python(
        "import sys; sys.modules['recbole'] = None; sys.modules['ray'] = None\n"
        "import recbole_lsvcr\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "import recbole_lsvcr.checkpoint, recbole_lsvcr.model.sr, recbole_lsvcr.encoding, recbole_lsvcr.data.joint\n"
        "assert 'transformers' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_what_was_imported_before_the_plugin_is_patched_too():
    done = python(
        "import torch\n"
        "from recbole.quick_start import load_data_and_model, objective_function\n"
        "import recbole.quick_start, recbole.data, recbole.trainer\n"
        "import recbole_lsvcr\n"
        "from recbole_lsvcr import plugin, recbole_files\n"
        "assert load_data_and_model is recbole.quick_start.load_data_and_model is recbole_files.load_data_and_model\n"
        "assert objective_function is plugin.objective_function\n"
        "assert recbole.trainer.trainer.torch.load is recbole_files.load\n"
        "assert recbole.data.get_dataloader is recbole.data.utils.get_dataloader\n"
        "assert torch.load is torch.serialization.load and torch.save is torch.serialization.save\n"
        "from recbole.utils import get_model\n"
        "assert get_model('LSVCR').__name__ == 'LSVCR'\n"
        "plugin.install(); import sys\n"
        "assert sum(type(finder).__name__ == '_Hook' for finder in sys.meta_path) == 1"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", registry.MODELS)
def test_our_models_their_trainer_data_set_and_loaders_are_found_by_name(name):
    import recbole.data.dataset
    from recbole.data.utils import get_dataloader

    from recbole_lsvcr.data.dataset import JointDataset
    from recbole_lsvcr.data.loader import CommentEvalLoader, JointEvalLoader, JointTrainLoader
    from recbole_lsvcr.trainer import LSVCRTrainer

    model = get_model(name)
    assert model.__name__ == name
    assert get_trainer(model.type, name) is LSVCRTrainer
    assert getattr(recbole.data.dataset, f"{name}Dataset") is JointDataset
    settings = {"model": name, "eval_args": {"mode": {"valid": "full", "test": "full"}}}
    ranked = CommentEvalLoader if "Comment" in name else JointEvalLoader
    assert [get_dataloader(settings, phase) for phase in ("train", "valid", "test")] == [
        JointTrainLoader,
        ranked,
        ranked,
    ]


def test_other_names_are_recboles_or_unknown():
    import recbole.data.dataset
    import recbole.trainer

    assert get_trainer(get_model("SASRec").type, "SASRec") is recbole.trainer.Trainer
    assert not hasattr(recbole.data.dataset, "SASRecDataset")
    with pytest.raises(ImportError):
        from recbole.trainer import NoSuchTrainer  # noqa: F401


def test_importing_recboles_models_leaves_no_anomaly_detection_on():
    done = python(
        "import recbole_lsvcr, torch, recbole.model.sequential_recommender\nassert not torch.is_anomaly_enabled()"
    )
    assert done.returncode == 0, done.stderr


def test_hidden_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "--epochs=7", "--nonsense=1"])
    assert Config(model="BPR", dataset="tiny")["epochs"] == 7
    with plugin.hidden_argv():
        assert Config(model="BPR", dataset="tiny")["epochs"] == 300
    assert sys.argv == ["prog", "--epochs=7", "--nonsense=1"]


# ---- defaults ----


def test_defaults_lie_over_recboles_and_under_the_users(room, monkeypatch):
    ours = room / "ours"
    for name, text in {
        "overall.yaml": "stopping_step: 3\neval_step: 3\nepochs: 3\nweight_decay: 3.0e-3\n",
        "model/SASRec.yaml": "eval_step: 4\nepochs: 4\nweight_decay: 4e-3\n",
        "dataset/tiny.yaml": "epochs: 5\nweight_decay: 5e-3\nseq_separator: ';'\n",
    }.items():
        (ours / name).parent.mkdir(parents=True, exist_ok=True)
        (ours / name).write_text(text)
    Path("dataset/tiny/tiny.yaml").write_text("seq_separator: '|'\nepochs: 6\ntrain_neg_sample_args: ~\n")
    for module in (plugin, registry):
        monkeypatch.setattr(module, "properties_dir", lambda: ours)
    config = Config(model="SASRec", dataset="tiny", config_dict={"weight_decay": 7e-3})
    assert [config[key] for key in ("stopping_step", "eval_step", "epochs")] == [3, 4, 5]
    assert (config["weight_decay"], config["seq_separator"]) == (7e-3, "|")
    # What a data set's folder says of training is not the data set's to say.
    assert Config(model="BPR", dataset="tiny")["train_neg_sample_args"]["distribution"] == "uniform"


@pytest.mark.parametrize("text", ["- a list", "a: [1", "\x00"])
def test_a_property_file_that_is_none_is_named(text):
    Path("dataset/tiny/tiny.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"tiny\.yaml"):
        Config(model="BPR", dataset="tiny")


def test_sequential_models_need_not_be_told_the_obvious():
    config = Config(model="SASRec", dataset="tiny")
    assert config["load_col"]["inter"] == ["user_id", "item_id", "timestamp"]
    assert config["train_neg_sample_args"]["distribution"] == "none"
    said = {"load_col": {"inter": ["user_id", "item_id", "rating"]}, "loss_type": "BPR"}
    config = Config(model="SASRec", dataset="tiny", config_dict=said)
    assert config["load_col"] == said["load_col"]
    assert config["train_neg_sample_args"]["distribution"] == "uniform"
    with pytest.raises(ValueError, match="should be None"):
        Config(model="SASRec", dataset="tiny", config_dict={"train_neg_sample_args": {"distribution": "uniform"}})


# ---- RecBole's own models ----


def test_training_loading_in_a_new_process_and_resuming_agree(quiet):
    result, file = trained("SASRec")
    assert torch.load(file, weights_only=True)["config"]["device"] == "cpu"
    done = python(
        "import json, recbole_lsvcr\n"
        "from recbole.quick_start import load_data_and_model\n"
        "from recbole.utils import get_trainer\n"
        f"config, model, _, _, _, test = load_data_and_model({str(file)!r})\n"
        "trainer = get_trainer(config['MODEL_TYPE'], config['model'])(config, model)\n"
        "print(json.dumps(trainer.evaluate(test, load_best_model=False)))"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict(result["test_result"])

    config = Config(model="SASRec", dataset="tiny", config_dict={**TINY, "epochs": 2})
    train, valid, _ = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    trainer.resume_checkpoint(file)
    assert trainer.start_epoch == 1
    assert trainer.best_valid_score == result["best_valid_score"]
    trainer.fit(train, valid, verbose=False)
    assert list(trainer.train_loss_dict) == [1]


def test_restoring_a_configuration_evaluates_nothing_and_keeps_every_value(monkeypatch):
    config = Config(model="SASRec", dataset="tiny", config_dict={**TINY, "pair": (1, 2), "weight": 1e-30})
    config["note"] = "open('ran', 'w')"  # RecBole's `Config` would evaluate it
    checkpoint.save_checkpoint("a.pth", {"config": config.final_config_dict})
    monkeypatch.setattr(sys, "argv", ["prog", "--epochs=9"])
    restored = recbole_files.restore_config(checkpoint.load_checkpoint("a.pth")["config"])
    assert restored.final_config_dict == config.final_config_dict
    assert restored["device"] == config["device"] and restored["MODEL_TYPE"] is config["MODEL_TYPE"]
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("GRU4Rec", {}),
        ("BERT4Rec", {}),
        ("NARM", {}),
        ("Caser", {}),
        ("FDSA", ITEM_COLUMNS),  # lists a layer among its other parameters
        ("Pop", {}),  # tensors
        ("ItemKNN", {}),  # sparse matrices
        ("EASE", {}),  # arrays
        ("LightGCN", {}),  # a graph, by way of a method that SciPy dropped
        ("BPR", {}),
        ("FM", {**ITEM_COLUMNS, "threshold": {"rating": 3}}),  # a value metric
    ],
)
def test_recboles_models_train_and_come_back(quiet, model, settings):
    result, file = trained(model, **settings)
    config, loaded, _, _, _, test = load_data_and_model(file)
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, loaded)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]


def test_s3rec_is_pretrained_and_fine_tuned(quiet):
    pretrain = {"train_stage": "pretrain", "pretrain_epochs": 1, "save_step": 1}
    trained("S3Rec", **ITEM_COLUMNS, **pretrain)
    result, _ = trained("S3Rec", **ITEM_COLUMNS, train_stage="finetune", pre_model_path="saved/S3Rec-tiny-1.pth")
    assert result["test_result"]


def test_ml_100k_from_an_empty_folder(room, quiet):
    """The data set in RecBole's wheel; of its users those with few interactions, to be quick."""
    (room / "empty").mkdir()
    os.chdir(room / "empty")
    result = run_recbole(model="SASRec", dataset="ml-100k", config_dict={**TINY, "user_inter_num_interval": "[0,30]"})
    assert 0 < result["test_result"]["recall@10"] < 1


# ---- pickles ----


def old_checkpoint() -> Path:
    """What stock RecBole writes: weights beside a pickled `Config`."""
    config = Config(model="BPR", dataset="tiny", config_dict=dict(TINY))
    model = get_model("BPR")(config, data_preparation(config, create_dataset(config))[0]._dataset)
    optimizer = torch.optim.Adam(model.parameters())
    state = {"config": config, "epoch": 0, "cur_step": 0, "best_valid_score": 0.5, "state_dict": model.state_dict()}
    torch.save({**state, "other_parameter": {}, "optimizer": optimizer.state_dict()}, "old.pth", pickle_protocol=4)
    return Path("old.pth")


def test_an_old_checkpoint_is_refused_and_can_be_made_a_plain_one():
    file = old_checkpoint()
    config = Config(model="BPR", dataset="tiny", config_dict={**TINY, "trusted_pickles": ["old.pth"]})
    _, valid, _ = data_preparation(config, create_dataset(config))
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, get_model("BPR")(config, valid._dataset))
    for read in (
        lambda: load_data_and_model(file),
        lambda: trainer.resume_checkpoint(file),
        lambda: trainer.evaluate(valid, model_file=file),
    ):
        with pytest.raises(CheckpointError, match="README: Old checkpoints"):
            read()
    recipe = re.search(r"### Old checkpoints.*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert recipe is not None
    exec(recipe[1].replace("saved/old.pth", "old.pth").replace("saved/plain.pth", "plain.pth"))
    trainer.resume_checkpoint("plain.pth")
    assert trainer.best_valid_score == 0.5
    assert load_data_and_model("plain.pth")[0]["epochs"] == 1


def test_pickles_are_trusted_by_name_only():
    with pytest.raises(ConfigError, match="trusted_pickles is True: list the caches"):
        Config(model="BPR", dataset="tiny", config_dict={"trusted_pickles": True})


def test_weights_alone_are_no_trainers_checkpoint():
    checkpoint.save_checkpoint("weights.pth", {"state_dict": {"x": torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r"weights\.pth holds no configuration"):
        load_data_and_model("weights.pth")


@pytest.mark.parametrize("kind", ["dataset", "dataloaders"])
def test_caches_are_announced_and_refused_unless_named(kind, caplog, monkeypatch):
    def prepare(**settings):
        config = Config(model="BPR", dataset="tiny", config_dict={**TINY, **settings})
        return data_preparation(config, create_dataset(config))

    with caplog.at_level(logging.WARNING):
        prepare(**{f"save_{kind}": True})
    (file,) = Path("saved").glob("tiny-*.pth")
    assert f"trusted_pickles: ['saved/{file.name}']" in caplog.text
    prepare()  # what this process wrote itself, it may read
    recbole_files._trusted.clear()
    Path("dataset/tiny/tiny.yaml").write_text(f"trusted_pickles: [saved/{file.name}]\n")  # a data set names none
    with pytest.raises(CheckpointError, match=rf"cache saved/{file.name} is a pickle.*delete it"):
        prepare()
    assert len(prepare(trusted_pickles=[f"saved/{file.name}"])[0]) > 0
    recbole_files._trusted.clear()
    monkeypatch.setenv(recbole_files.TRUST_VARIABLE, f"/nowhere.pth:saved/{file.name}")
    assert len(prepare()[0]) > 0


# ---- other processes, first use ----


def test_spawned_processes_have_the_plugin():
    """They get as far as the process group, for which RecBole wants a GPU: they know our defaults and our model."""
    if torch.cuda.device_count() > 1:
        pytest.skip("two GPUs: the processes would train")
    settings = {**TINY, "gpu_id": "0,1", "trusted_pickles": []}
    with pytest.raises(Exception, match=r"(?i)nccl|no gpus|invalid device|cuda") as error:
        run(model="LSVCR", dataset="lsvcr-sample", config_dict=settings, nproc=2, port="29731")
    assert "recbole_lsvcr/plugin.py" in str(error.value)
    assert "init_process_group" in str(error.value)


def test_search_workers_get_a_function_of_the_plugin():
    """Ray hands functions to its workers by module and name, and importing the module brings the plugin."""
    import recbole.quick_start

    function = recbole.quick_start.objective_function
    assert (function.__module__, function.__qualname__) == ("recbole_lsvcr.plugin", "objective_function")


def test_hyper_tuning(quiet):
    pytest.importorskip("hyperopt", reason="hyperopt is in the extras `tune` and `dev`")
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    fixed = {**TINY, "model": "SASRec", "dataset": "tiny", "eval_step": 1}
    Path("fixed.yaml").write_text(json.dumps(fixed))
    choices = {"choice": {"learning_rate": [0.01, 0.001]}}
    search = HyperTuning(objective_function, params_dict=choices, fixed_config_file_list=["fixed.yaml"])
    search.run()
    assert set(search.params2result) == {"learning_rate:0.01", "learning_rate:0.001"}
    assert all("recall@10" in result for result in search.params2result.values())


def test_the_sample_is_generated_on_first_use_for_stock_models(quiet, monkeypatch):
    import dataset_tools.sample

    generate, calls = dataset_tools.sample.generate, []

    def small(folder, **_):
        calls.append(folder)
        generate(folder, users=60, videos=40, comments=200)

    monkeypatch.setattr(dataset_tools.sample, "generate", small)
    first = run_recbole(model="SASRec", dataset="lsvcr-sample", config_dict=dict(TINY))
    again = run_recbole(model="SASRec", dataset="lsvcr-sample", config_dict=dict(TINY))
    assert first == again
    assert calls == [Path("dataset/lsvcr-sample")]


def test_a_sample_that_cannot_be_generated_is_a_data_error(monkeypatch):
    import dataset_tools.sample
    from dataset_tools.errors import DataToolError

    def full_disk(folder, **_):
        raise DataToolError(f"cannot write {folder}: no space")

    monkeypatch.setattr(dataset_tools.sample, "generate", full_disk)
    with pytest.raises(DataError, match="cannot write dataset/lsvcr-sample"):
        create_dataset(Config(model="SASRec", dataset="lsvcr-sample", config_dict=dict(TINY)))


def test_a_download_ends_in_a_data_set(room, monkeypatch):
    """Stock RecBole waits for a process group that a single process has not got."""
    import recbole.data.dataset.dataset as recbole_dataset

    monkeypatch.setattr(recbole_dataset, "decide_download", lambda url: True)
    monkeypatch.setattr(recbole_dataset, "download_url", lambda url, folder: str(room / "ml-1m.zip"))
    monkeypatch.setattr(recbole_dataset, "extract_zip", lambda path, folder: None)
    monkeypatch.setattr(recbole_dataset, "rename_atomic_files", lambda folder, old, new: write_data(room / "got" / new))
    (room / "ml-1m.zip").write_text("")
    config = Config(model="BPR", dataset="ml-1m", config_dict={**TINY, "data_path": "elsewhere"})
    dataset = recbole_dataset.Dataset.__new__(recbole_dataset.Dataset)
    dataset.config, dataset.dataset_name, dataset.dataset_path = config, "ml-1m", "elsewhere/ml-1m"
    dataset.logger = logging.getLogger()
    dataset._download()
    assert (room / "got" / "ml-1m" / "ml-1m.inter").is_file()
