"""YAML as configurations are written: safe, and `1e-3` is a number, as in RecBole's own loader. Needs no RecBole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from recbole_lsvcr.errors import ConfigError


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which `1e-3` is a number; ten times as fast where PyYAML was built with libyaml."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, not YAML in UTF-8, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}; give a YAML file in UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; nothing is an empty one. `where` names the text in messages.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} holds a {type(value).__name__}; a configuration is a mapping of 'key: value' lines")
    return value
