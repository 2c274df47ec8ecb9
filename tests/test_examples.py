"""Every program of `examples/` runs as its docstring says, on a small `lsvcr-sample`."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_tools.sample import generate

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SMALL = [
    "--epochs=1",
    "--text_encoder=hashing",
    "--hidden_size=8",
    "--n_layers=1",
    "--inner_size=16",
    "--text_size=16",
    "--data_path=dataset/",
]

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="not a checkout: no examples")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a small data set of the name that the examples use."""
    folder = tmp_path_factory.mktemp("examples")
    generate(folder / "dataset" / "lsvcr-sample", users=60, videos=50, comments=300)
    return folder


def start(*command: str | Path, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_recbole_program(room: Path) -> None:
    out = start(EXAMPLES / "recbole_program.py", *SMALL, folder=room)
    assert re.search(r"^test: +\{'recall@5': [\d.]+,", out, re.MULTILINE), out
    tree = ast.parse((EXAMPLES / "recbole_program.py").read_text(encoding="utf-8"))
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "recbole_lsvcr"]
    assert not ours, "the example does no more than import the package"


def test_tuning(room: Path) -> None:
    pytest.importorskip("hyperopt", reason="hyperopt is in the extras `tune` and `dev`")
    (room / "few.hyper").write_text("learning_rate choice [0.001,0.01]\n")
    options = ["--params", "few.hyper", "--algo", "bayes", "--max-evals", "2"]
    out = start(EXAMPLES / "tune_lsvcr.py", *options, *SMALL, folder=room)
    assert re.search(r"^best of 2 trials: learning_rate:0\.\d+\nvalid ndcg@10 0\.\d+; test: \{", out, re.MULTILINE), out
    assert (room / "tune_lsvcr.result").read_text().count("Test result") >= 1


def test_the_space_that_is_tuned_is_recboles_form() -> None:
    pytest.importorskip("hyperopt", reason="hyperopt is in the extras `tune` and `dev`")
    from recbole.trainer import HyperTuning

    from recbole_lsvcr.config import known_keys

    space = HyperTuning(lambda *_: {}, params_file=str(EXAMPLES / "tune_lsvcr.hyper")).space
    assert space and set(space) <= known_keys(["LSVCR"])


def test_a_model_of_ones_own(room: Path) -> None:
    text = " ".join((EXAMPLES / "custom_model.py").read_text(encoding="utf-8").split())
    path = "examples.custom_model:MyGRU"
    assert f"--config properties/quickstart.yaml --task video --model={path}" in text
    for name in ("examples", "properties"):
        (room / name).symlink_to(ROOT / name)
    command = [ROOT / "run_lsvcr.py", "--config", "properties/quickstart.yaml", "--task", "video", f"--model={path}"]
    out = start(*command, "--output", "out", "--epochs=1", "--hidden_size=8", folder=room)
    assert re.search(r"^MyGRU on lsvcr-sample \(synthetic data\), test: ", out, re.MULTILINE), out
    assert (room / "out" / "MyGRU" / "best.pth").is_file()
