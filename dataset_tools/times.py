"""Times of raw logs as Unix seconds."""

from __future__ import annotations

import polars as pl

from dataset_tools.errors import DataToolError
from dataset_tools.text import as_number

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}
_ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


def iso_seconds(text: pl.Expr, zone: str = "UTC") -> pl.Expr:
    """ISO 8601 / RFC 3339 times (date, minute or second; with an offset, or on the clock of `zone`) as seconds.

    The result is text, and a value that is no such time stays as it is: the check of numbers then reports it.
    """
    plain = text.str.strip_chars().str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T").str.replace("[Zz]$", "+00:00")
    with_offset = plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
    local = [_on_the_clock(plain.str.to_datetime(form, time_unit="us", strict=False), zone) for form in _ISO]
    return pl.coalesce(*(_as_text(time) for time in (with_offset, *local)), text)


def formatted_seconds(text: pl.Expr, form: str, zone: str = "UTC") -> pl.Expr:
    """As `iso_seconds`, for times written in the strptime format `form` (`%d.%m.%Y %H:%M`)."""
    time = text.str.strip_chars().str.to_datetime(form, time_unit="us", strict=False)
    has_offset = "%z" in form or "%:z" in form or "%#z" in form
    return pl.coalesce(_as_text(time if has_offset else _on_the_clock(time, zone)), text)


def check_format(form: str, zone: str) -> None:
    """Raise `DataToolError` for a strptime format or a time zone that cannot be used."""
    try:
        pl.select(formatted_seconds(pl.lit("x"), form, zone))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataToolError(
            f"time format {form!r} in zone {zone!r}: {str(error).splitlines()[0]}; give s, ms, us, iso or a strptime"
            " format such as %Y-%m-%d, and a zone such as UTC or Asia/Shanghai"
        ) from error


def _on_the_clock(time: pl.Expr, zone: str) -> pl.Expr:
    return time.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")


def _as_text(time: pl.Expr) -> pl.Expr:
    return to_seconds(time).cast(pl.String)


def to_seconds(time: pl.Expr) -> pl.Expr:
    """A Datetime as Float64 seconds; Polars divides by a constant inexactly, so whole seconds are split off first."""
    micro = time.cast(pl.Datetime("us")).dt.timestamp("us")
    return micro.floordiv(1_000_000).cast(pl.Float64) + micro.mod(1_000_000) / 1e6


def epoch_seconds(text: pl.Expr, unit: float) -> pl.Expr:
    """Numbers in text, `unit` to the second, as seconds in text; what is no number stays as it is."""
    number = as_number(text)
    if unit == 1:
        return text
    # Polars divides by a constant inexactly (it multiplies by 1 / unit); by a column it does not.
    return pl.coalesce((number / (pl.lit(unit) + 0 * number)).cast(pl.String), text)
