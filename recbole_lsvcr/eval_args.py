"""RecBole's `eval_args`: the split, and what chooses models where nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_lsvcr.data.protocols import Protocol
from recbole_lsvcr.errors import ConfigError

DEFAULT_EVAL_ARGS = {"split": {"time": ["-2d", "-1d"]}, "order": "TO", "group_by": "user", "mode": "uni99"}


def checked_eval_args(value: Any) -> dict[str, Any]:
    """RecBole's `eval_args` with our defaults.

    Raises:
        ConfigError: a key or a value that is not accepted.
    """
    if value is not None and not isinstance(value, dict):
        raise ConfigError(
            f"eval_args = {value!r} is not accepted; accepted: a mapping with the keys {sorted(DEFAULT_EVAL_ARGS)}"
        )
    unknown = set(value or {}) - set(DEFAULT_EVAL_ARGS)
    if unknown:
        raise ConfigError(f"eval_args has unknown keys {sorted(unknown)}; accepted: {sorted(DEFAULT_EVAL_ARGS)}")
    given = {**DEFAULT_EVAL_ARGS, **(value or {})}
    if given["order"] != "TO":
        raise ConfigError(f"eval_args.order = {given['order']!r} is not accepted; accepted: TO (in order of time)")
    by_time = isinstance(given["split"], Mapping) and "time" in given["split"]
    if given["group_by"] != "user" and not (by_time and given["group_by"] in (None, "none")):
        raise ConfigError(
            f"eval_args.group_by = {given['group_by']!r} is not accepted; accepted: user (LS and RS divide what each "
            "user did), and none where the split is by time"
        )
    selection_mode(given)
    return given


def selection_mode(eval_args: Mapping[str, Any]) -> Protocol:
    """The ranking of videos by which `eval_args.mode` would choose models, where `valid_protocol` does not.

    Raises:
        ConfigError: a mode, of either phase, that does not rank.
    """
    mode = eval_args["mode"]
    if not (isinstance(mode, Mapping) and mode and mode.keys() <= {"valid", "test"}):
        return Protocol.of_mode(mode)
    by_phase = {phase: Protocol.of_mode(one) for phase, one in mode.items()}
    return by_phase.get("valid") or by_phase["test"]
