"""A benchmark from its configuration to its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_lsvcr.benchmark.study import Options, Study
from recbole_lsvcr.report import log_to

__all__ = ["Options", "run_benchmark"]


def run_benchmark(given: Mapping[str, Any], options: Options) -> tuple[str, bool]:
    """Compute what is missing, and write `results.json` and the report into the output folder.

    Returns:
        The main tables as text, and whether some cell failed.

    Raises:
        ConfigError, DataError: what in the configuration or the data cannot be used.
        KeyboardInterrupt: it was interrupted; the same command continues.
    """
    with log_to({"output": given.get("output"), "state": given.get("state")}):
        study = Study(given, options)
        study.run()
    failed = [outcome for outcome in study.outcomes.values() if outcome.failed]
    return "", bool(failed)
