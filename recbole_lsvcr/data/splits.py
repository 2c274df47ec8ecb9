"""Train, validation and test: one pair of boundaries in time, RecBole's leave-one-out, or its ratio split."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, TypeGuard
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError

TRAIN, VALID, TEST = 0, 1, 2
PHASES = ("train", "valid", "test")
DAY = 86_400.0
# How many of a user's last instances are left out for validation and for test.
_LEAVE_ONE_OUT = {"valid_and_test": (1, 1), "valid_only": (1, 0), "test_only": (0, 1)}
_ACCEPTED = (
    'accepted are {"time": [a, b]} (Unix seconds, "-2d", ISO dates, or fractions of .inter such as 0.8; optionally with'
    ' "calendar_zone"), {"LS": "valid_and_test" | "valid_only" | "test_only"} and {"RS": [0.8, 0.1, 0.1]}'
)


@dataclass(frozen=True)
class Split:
    """How instances are divided. `time` carries its two boundaries (Unix seconds); `LS` and `RS` divide per user."""

    kind: Literal["time", "LS", "RS"]
    valid_start: float = math.inf  # time: train < valid_start <= valid < test_start <= test
    test_start: float = math.inf
    left_out: tuple[int, int] = (0, 0)  # LS: instances of a user left out for (valid, test)
    ratios: tuple[float, float, float] = (1.0, 0.0, 0.0)  # RS: of (train, valid, test), summing to 1

    @property
    def boundaries(self) -> NDArray[np.float64]:
        """The times that end a comment record, `[2]` for a split by time and `[0]` otherwise."""
        return np.array([self.valid_start, self.test_start] if self.kind == "time" else [], np.float64)

    @property
    def wanted(self) -> tuple[int, ...]:
        """The phases that this split means to fill."""
        if self.kind == "time":
            return TRAIN, VALID, TEST
        shares = self.left_out if self.kind == "LS" else self.ratios[1:]
        return TRAIN, *(phase for phase, share in zip((VALID, TEST), shares, strict=True) if share > 0)

    def phases(self, users: np.ndarray, times: np.ndarray) -> NDArray[np.int8]:
        """The phase of every instance; `users` is non-decreasing and each user's instances are in order of time."""
        if self.kind == "time":
            return (times >= self.valid_start).astype(np.int8) + (times >= self.test_start)
        n = np.bincount(users)  # instances of each user
        valid, test = self._held_out(n)
        counts = np.stack([n - valid - test, valid, test], axis=1)
        return np.repeat(np.tile(np.array([TRAIN, VALID, TEST], np.int8), len(n)), counts.ravel())

    def _held_out(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many validation and test instances RecBole 1.2.1 takes of a user with `n` instances."""
        if self.kind == "LS":
            # The test instance is found first, and one instance always stays in training.
            test = np.minimum(self.left_out[1], np.maximum(n - 1, 0))
            return np.minimum(self.left_out[0], np.maximum(n - 1 - test, 0)), test
        counts = [(ratio * n).astype(np.int64) for ratio in self.ratios]
        counts[TRAIN] = n - counts[VALID] - counts[TEST]
        for phase in (TEST, VALID):
            # As in RecBole's loop, last part first: a part that rounds down to nothing takes one instance while
            # training has one to spare.
            share = self.ratios[phase] * n
            taken = (counts[TRAIN] > 1) & (share > 0) & (share < 1)
            counts[phase] += taken
            counts[TRAIN] -= taken
        return counts[VALID], counts[TEST]


def parse_split(split: Mapping[str, Any], tables: Tables) -> Split:
    """A `Split` from the value of `eval_args.split`; `ConfigError` if it cannot be used or leaves a phase empty.

    `{"time": [a, b]}`: each of the two is a time (Unix seconds, an ISO date, a date), `"-2d"` (2 × 86,400 s before
    the last event of both files; with `calendar_zone` the start of that day on the clock, the last event's own day
    being `-1d`), or a fraction of `.inter` in order of time: the time of the first interaction after it, so that equal
    times stay together. The other ways are RecBole's own, `{"LS": …}` and `{"RS": …}`, per user.
    """
    if not isinstance(split, Mapping):
        raise ConfigError(f"split = {split!r} is not a mapping; {_ACCEPTED}")
    kinds = [key for key in split if key != "calendar_zone"]
    if len(kinds) != 1 or kinds[0] not in ("time", "LS", "RS"):
        raise ConfigError(f"split = {dict(split)!r} does not name one way of splitting; {_ACCEPTED}")
    kind = kinds[0]
    zone = split.get("calendar_zone")
    if zone is not None and kind != "time":
        raise ConfigError(f"split = {dict(split)!r}: calendar_zone belongs to a split by time; {_ACCEPTED}")
    if kind == "LS":
        if not isinstance(split[kind], str) or split[kind] not in _LEAVE_ONE_OUT:
            raise ConfigError(f"split LS = {split[kind]!r} is not known; accepted are {', '.join(_LEAVE_ONE_OUT)}")
        return Split("LS", left_out=_LEAVE_ONE_OUT[split[kind]])
    if kind == "RS":
        return _ratio_split(split[kind])
    return _time_split(split[kind], None if zone is None else _zone(zone), tables)


def _ratio_split(ratios: object) -> Split:
    parts = list(ratios) if isinstance(ratios, Sequence) and not isinstance(ratios, str) else []
    if len(parts) != 3 or not all(_is_number(part) and part >= 0 for part in parts) or not parts[0] > 0:
        raise ConfigError(f"split RS = {ratios!r}: expected three ratios >= 0 for train, valid and test, the first > 0")
    train, valid, test = (part / sum(parts) for part in parts)
    return Split("RS", ratios=(train, valid, test))


def _time_split(bounds: object, zone: ZoneInfo | None, tables: Tables) -> Split:
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        raise ConfigError(f"split time = {bounds!r}: expected two boundaries [valid_start, test_start]; {_ACCEPTED}")
    valid_start, test_start = (_boundary(value, zone, tables) for value in bounds)
    if valid_start > test_start:
        raise ConfigError(
            f"split time = {list(bounds)!r}: validation would start ({_utc(valid_start)}) after test"
            f" ({_utc(test_start)}); give the earlier boundary first"
        )
    found = Split("time", valid_start=valid_start, test_start=test_start)
    starts = np.searchsorted(tables.inter_time, found.boundaries)  # the times are sorted
    counts = np.diff(starts, prepend=0, append=len(tables.inter_time))
    if not counts.all():
        raise ConfigError(
            f"split time = {list(bounds)!r}: no video interaction is left for {PHASES[int(counts.argmin())]};"
            f" validation starts {_utc(valid_start)}, test {_utc(test_start)}, and the data runs from"
            f" {_utc(tables.inter_time[0])} to {_utc(tables.inter_time[-1])}"
        )
    return found


def _boundary(value: object, zone: ZoneInfo | None, tables: Tables) -> float:
    """One boundary in Unix seconds."""
    if isinstance(value, str):
        days = re.fullmatch(r"-(\d+(?:\.\d+)?)d", value.strip())
        if days:
            return _days_before_end(float(days[1]), zone, tables)
        value = _from_text(value.strip())
    if isinstance(value, date):
        start = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        return start.replace(tzinfo=start.tzinfo or zone or UTC).timestamp()
    if not _is_number(value) or value <= 0:
        raise ConfigError(f"split boundary {value!r} is not a time; {_ACCEPTED}")
    if value >= 1:
        return float(value)
    times = tables.inter_time
    # The rounding undoes 0.29 * 100 = 28.999999999999996.
    return float(times[min(math.floor(round(value * len(times), 6)), len(times) - 1)])


def _from_text(text: str) -> object:
    for parse in (float, datetime.fromisoformat):
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def _days_before_end(days: float, zone: ZoneInfo | None, tables: Tables) -> float:
    last = max(float(times[-1]) for times in (tables.inter_time, tables.cinter_time) if len(times))
    if zone is None:
        return last - days * DAY
    if days != int(days) or days < 1:
        raise ConfigError(f'split boundary "-{days:g}d": with calendar_zone, whole days from "-1d" on are accepted')
    first = datetime.fromtimestamp(last, zone).date() - timedelta(days=int(days) - 1)
    return datetime(first.year, first.month, first.day, tzinfo=zone).timestamp()


def _zone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f'calendar_zone = {name!r} is not a known time zone; give a name such as "Asia/Shanghai"'
        ) from error


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _utc(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(float(seconds), UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"
