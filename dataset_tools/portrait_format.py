"""How the numbers of a portrait are written: shares, counts with their share, times."""

from __future__ import annotations

from datetime import UTC, datetime


def percent(share: float) -> str:
    """A share in per cent; two digits that count where it is small, so that only 0 is shown as 0 and 1 as 100."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.0001:
        return "< 0.01 %"
    if share > 0.999:
        return "> 99.9 %"
    return f"{100 * share:.{1 if share >= 0.01 else 2}f} %"


def of(some: int, whole: int) -> str:
    """A count and its share of the whole."""
    return f"{some:,} ({percent(some / whole)})" if whole else "–"


def utc(seconds: float) -> str:
    """A time in Unix seconds to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def date(seconds: float) -> str:
    """The day of a time in Unix seconds."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
