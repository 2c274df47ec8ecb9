"""Runs of the command line in processes of their own, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
