"""Processes forked from one that has imported what they need: as much their own as any, and seconds sooner there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as torch_processes

# What the server imports before its first fork. `cell.Processes` has the first alone; a test process has one server.
PRELOAD = ["recbole_lsvcr.benchmark.cell", "recbole_lsvcr.alignment.trainer"]


def context() -> Any:
    """Where such processes are made."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def on_two(run: Callable[..., None], *arguments: Any) -> None:
    """`run(rank, *arguments)` in two processes; what is raised in one of them is raised here."""
    context()
    torch_processes.start_processes(run, args=arguments, nprocs=2, start_method="forkserver")
