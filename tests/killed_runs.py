"""Runs that are stopped: the command line in a process of its own, or a run in this one at each of its checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forks
import pytest

from recbole_lsvcr import trainer

ROOT = Path(__file__).resolve().parents[1]


class Forked:
    """`run_lsvcr.py` with these arguments in a process of its own, forked from one that has imported all it needs."""

    def __init__(self, *arguments: str) -> None:
        handle, self._log = tempfile.mkstemp()
        os.close(handle)
        self._process: Any = forks.context().Process(target=_main, args=(self._log, arguments))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> tuple[int, str]:
        """Exit status (that of a killed process is less than 0), and what was written to standard error."""
        self._process.join()
        error = Path(self._log).read_text(encoding="utf-8")
        Path(self._log).unlink()
        return self._process.exitcode, error


def _main(log: str, arguments: tuple[str, ...]) -> None:
    os.chdir(ROOT)
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.insert(0, str(ROOT))
    import run_lsvcr

    sys.exit(run_lsvcr.main(list(arguments)))


class Started:
    """The same in a process that an interpreter of its own begins, as on a command line."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "run_lsvcr.py"), *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> tuple[int, str]:
        """As `Forked.wait`."""
        _, error = self._process.communicate()
        return self._process.returncode, error


Start = type[Forked] | type[Started]


def kill_when(reached: Callable[[], bool], *arguments: str, start: Start = Forked) -> None:
    """Start the command and kill it as soon as `reached` says so, which it must do before its end."""
    process = start(*arguments)
    deadline = time.monotonic() + 240
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    status, error = process.wait()
    assert reached() and status == -signal.SIGKILL, error


def run_whole(*arguments: str, start: Start = Forked) -> None:
    """Run the command to its end, which must be a good one."""
    status, error = start(*arguments).wait()
    assert status == 0, error


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
