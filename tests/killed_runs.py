"""Runs that are stopped: the command line in a process of its own, or a run in this one at each of its checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recbole_lsvcr import trainer

ROOT = Path(__file__).resolve().parents[1]


def start(*arguments: str) -> subprocess.Popen[str]:
    """`run_lsvcr.py` with these arguments."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_lsvcr.py"), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when(reached: Callable[[], bool], *arguments: str) -> None:
    """Start the command and kill it as soon as `reached` says so, which it must do before its end."""
    process = start(*arguments)
    deadline = time.monotonic() + 240
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert reached() and process.returncode == -signal.SIGKILL


def run_whole(*arguments: str) -> None:
    """Run the command to its end, which must be a good one."""
    process = start(*arguments)
    _, error = process.communicate()
    assert process.returncode == 0, error


def stopped_at_every_checkpoint(
    run: Callable[[Path], object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Stop `run(output)` just before it writes its first, its second … checkpoint, and run it again to its end.

    Yields:
        the output folder of each such pair; as many as an undisturbed run writes checkpoints.
    """
    save, stops = trainer.save_checkpoint, 0
    while True:
        output, left = folder / f"stopped-{stops}", [stops]

        def stopping(path: Any, state: Any, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            save(path, state)

        monkeypatch.setattr(trainer, "save_checkpoint", stopping)
        try:
            run(output)
            return
        except KeyboardInterrupt:
            monkeypatch.setattr(trainer, "save_checkpoint", save)
            run(output)
            yield output
        stops += 1
