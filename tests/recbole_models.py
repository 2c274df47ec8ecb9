"""The names of RecBole's own models."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType


def names(family: ModuleType, base: type) -> list[str]:
    """Those of a package of RecBole's, one a module, that derive from `base`."""
    found = []
    for entry in pkgutil.iter_modules(family.__path__):
        module = importlib.import_module(f"{family.__name__}.{entry.name}")
        for name, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, base) and value.__module__ == module.__name__:
                found.append(name)
    return sorted(found)
