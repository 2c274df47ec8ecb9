"""Bytes that are not UTF-8."""

from __future__ import annotations

import numpy as np

_TOGETHER = 1 << 16  # bytes decoded together


def utf8_error(data: bytes) -> UnicodeDecodeError | None:
    """What is wrong with `data`, None if nothing is."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error
    return None


def is_utf8(data: bytes) -> bool:
    """Whether `data` can be decoded."""
    return data.isascii() or utf8_error(data) is None


def bad_records(data: bytes, starts: np.ndarray, ends: np.ndarray) -> dict[int, UnicodeDecodeError]:
    """The records of `data`, from `starts[i]` to `ends[i]`, with bytes that are not UTF-8."""
    found: dict[int, UnicodeDecodeError] = {}
    row = len(starts) if data.isascii() else 0
    while row < len(starts):
        begin = int(starts[row])
        after = max(row + 1, int(np.searchsorted(starts, begin + _TOGETHER)))
        error = utf8_error(data[begin : ends[after - 1]])
        if error is None:
            row = after
        else:
            row = int(np.searchsorted(starts, begin + error.start, "right")) - 1
            found[row] = utf8_error(data[starts[row] : ends[row]]) or error
            row += 1
    return found
