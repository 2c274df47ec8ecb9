"""A copy of a data set with something wrong in it, for tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def damaged(sound: Path, parent: Path, damage: Callable[[Path], object]) -> Path:
    """The copy of `sound` in the folder `parent`, under the same name, after `damage` was done to it."""
    folder = Path(shutil.copytree(sound, parent / sound.name))
    damage(folder)
    return folder
