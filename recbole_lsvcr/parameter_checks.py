"""What a parameter is, and the checks of values that several parameters share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recbole_lsvcr.errors import ConfigError

Check = Callable[[Any], bool]

PROTOCOL_FORM = "<all|available>+<full|uniform|popular|period>"
_PROTOCOL = re.compile(r"(all|available)\+(full|(uniform|popular|period)([1-9]\d*)?)")
_COMMENT_PROTOCOL = re.compile(r"available\+(full|uniform([1-9]\d*)?)")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, what it accepts (in words and as a predicate) and what it does."""

    name: str
    accepted: str
    check: Check
    meaning: str = ""
    optional: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether `value` is acceptable."""
        return (self.optional and value is None) or (value is not None and self.check(value))

    def require(self, value: Any) -> None:
        """Refuse what is not acceptable.

        Raises:
            ConfigError: `value` is not.
        """
        if not self.accepts(value):
            raise ConfigError(f"{self.name} = {value!r} is not accepted; accepted: {self.accepted}")


def is_bool(value: Any) -> bool:
    """True or False, and no number."""
    return isinstance(value, bool)


def is_int(value: Any) -> bool:
    """An integer, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """An integer or a fraction, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    """A text that is not empty."""
    return isinstance(value, str) and bool(value)


def is_protocol(value: Any) -> bool:
    """A ranking of videos, in the form `PROTOCOL_FORM`, a sampled one with a number of negatives or without."""
    return isinstance(value, str) and _PROTOCOL.fullmatch(value) is not None


def is_comment_protocol(value: Any) -> bool:
    """A ranking of comments."""
    return isinstance(value, str) and _COMMENT_PROTOCOL.fullmatch(value) is not None


def at_least(minimum: int) -> Check:
    """Integers from `minimum` on."""
    return lambda value: is_int(value) and value >= minimum


def between(low: float, high: float) -> Check:
    """Numbers from `low` to `high`, both included."""
    return lambda value: is_number(value) and low <= value <= high


def one_of(*choices: str) -> Check:
    """These texts."""
    return lambda value: isinstance(value, str) and value in choices


def list_of(check: Check) -> Check:
    """Lists of such values, not empty."""
    return lambda value: isinstance(value, list) and bool(value) and all(check(item) for item in value)
