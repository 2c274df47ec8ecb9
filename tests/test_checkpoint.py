"""Checkpoints come back as they were, are whole or absent, and never run code."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from recbole_lsvcr.checkpoint import load_checkpoint, save_checkpoint
from recbole_lsvcr.errors import CheckpointError


class Ran(Exception):
    """Raised by a pickle that got to run its code."""


class Bomb:
    def __reduce__(self):
        return _explode, ()


def _explode():
    raise Ran


def state() -> dict:
    torch.manual_seed(0)
    return {
        "state_dict": OrderedDict(weight=torch.randn(40, 3), steps=torch.tensor(7)),
        "epoch": 3,
        "best": np.float64(0.25),
        "worst": -np.inf,
        "none": None,
        "config": {"topk": [5, 10], "split": {"RS": (0.8, 0.1)}, "flag": np.bool_(True), 7: "seven"},
        "other": {"counts": np.arange(6).reshape(2, 3), "graph": sparse.csr_matrix(np.eye(3)), "number": np.array(2.5)},
    }


@pytest.fixture
def saved(tmp_path) -> Path:
    save_checkpoint(tmp_path / "new" / "a.pth", state())
    return tmp_path / "new" / "a.pth"


def test_everything_comes_back(saved):
    before, after = state(), load_checkpoint(saved)
    assert after["written_by"].startswith("recbole-lsvcr ")
    assert torch.equal(after["state_dict"]["weight"], before["state_dict"]["weight"])
    for key in ("epoch", "best", "worst", "none"):
        assert after[key] == before[key]
    assert after["config"] == before["config"]
    assert np.array_equal(after["other"]["counts"], before["other"]["counts"])
    assert after["other"]["number"].shape == ()
    assert after["other"]["graph"].format == "csr"
    assert np.array_equal(after["other"]["graph"].toarray(), np.eye(3))


def test_equal_states_are_equal_files(saved, tmp_path):
    save_checkpoint(tmp_path / "other_name.pth", state())
    assert (tmp_path / "other_name.pth").read_bytes() == saved.read_bytes()


def test_plain_torch_reads_it(saved):
    assert torch.load(saved, weights_only=True)["epoch"] == 3


@pytest.mark.parametrize("value", [object(), Bomb(), np.array(["a", None]), lambda: 0])
def test_a_value_that_cannot_be_stored_is_named_and_leaves_the_old_file(saved, value):
    old = saved.read_bytes()
    with pytest.raises(CheckpointError, match=r"state\['other'\]\['x'\]\[1\] is a "):
        save_checkpoint(saved, {"other": {"x": [1, value]}})
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_an_interrupted_write_leaves_the_old_file(saved, monkeypatch):
    old = saved.read_bytes()

    def full_disk(value, handle):
        handle.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, state())
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nowhere\.pth"):
        load_checkpoint(tmp_path / "nowhere.pth")


def test_no_damage_passes_for_a_checkpoint(saved):
    """Every cut and flipped byte is an error, or where nothing is stored; torch alone loads wrong weights."""
    whole, weight = saved.read_bytes(), state()["state_dict"]["weight"]
    starts = range(0, len(whole), 41)
    damaged = [whole[:cut] for cut in starts] + [
        whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in starts
    ]
    refused = 0
    for content in damaged:
        saved.write_bytes(content)
        try:
            loaded = load_checkpoint(saved)
        except CheckpointError as error:
            assert "damaged" in str(error)
            refused += 1
        else:
            assert torch.equal(loaded["state_dict"]["weight"], weight)
    assert refused > len(damaged) / 2


@pytest.mark.parametrize("content", [b"", b"text, not a checkpoint", b"PK but no archive", b"user_id:token\tx:float\n"])
def test_another_kind_of_file_is_an_error(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or no checkpoint at all"):
        load_checkpoint(tmp_path / "a.pth")


def test_a_tensor_is_not_a_checkpoint(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_is_refused_without_running(tmp_path, zipped, protocol):
    file = tmp_path / "old.pth"
    torch.save({"config": Bomb()}, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"is a pickle.*make a plain one of it \(README: Old checkpoints\)"):
        load_checkpoint(file)


def test_a_full_disk_is_an_os_error_that_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    save_checkpoint(file, {"weight": torch.ones(3)})
    code = (
        "import resource, sys, torch\n"
        "from recbole_lsvcr.checkpoint import save_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n"
        "    save_checkpoint(sys.argv[1], {'weight': torch.ones(1 << 20)})\n"
        "except OSError as error:\n"
        "    sys.exit(0 if error.filename == sys.argv[1] else 'no file named')\n"
        "sys.exit('nothing raised')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
    assert torch.equal(load_checkpoint(file)["weight"], torch.ones(3))
