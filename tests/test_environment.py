"""How the processor calculates while a model is trained or ranked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import context

import run_lsvcr
from recbole_lsvcr.benchmark import cell
from recbole_lsvcr.environment import flushed_denormals

SMALL = torch.full((64,), 2e-38)


def flushed() -> bool:
    return not bool((SMALL / 4).any())


def test_denormals_count_as_zero_inside_only_and_what_was_set_before_stays() -> None:
    assert not flushed()
    with flushed_denormals():
        assert flushed()
        with flushed_denormals():
            assert flushed()
        assert flushed()
    with pytest.raises(KeyError), flushed_denormals():
        raise KeyError
    assert not flushed()


def test_the_command_line_flushes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(run_lsvcr, "_run", lambda options, rest: seen.append(flushed()) or 0)
    assert run_lsvcr.main([]) == 0
    assert seen == [True] and not flushed()


def test_numpy_does_not_warn_of_them() -> None:
    program = (
        "import numpy as np; from recbole_lsvcr.environment import flushed_denormals\n"
        "with flushed_denormals(): print([np.finfo(kind).eps for kind in 'efdg'])"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0 and not found.stderr and found.stdout.startswith("[")


def _cell_process(folder: Path) -> None:
    def run_cell(*arguments: Any, **options: Any) -> None:
        (folder / "seen").write_text(str(flushed()))

    cell.run_cell = run_cell  # type: ignore[assignment]
    cell._in_this_process(None, folder, folder, False, 1, folder / "output.log")  # type: ignore[arg-type]


def test_the_process_of_a_cell_flushes_them(tmp_path: Path) -> None:
    process = context().Process(target=_cell_process, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0 and (tmp_path / "seen").read_text() == "True"
