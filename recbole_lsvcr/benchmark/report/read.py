"""results.json: read, and refused where it is not what `benchmark.aggregate` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_lsvcr.errors import EvaluationError

FORMAT = 1
FILE = "results.json"
_REMEDY = "repeat the benchmark's command to write it anew"
_STUDY: dict[str, type | tuple[type, ...]] = {"dataset": str, "synthetic": bool, "tasks": Mapping}
_TASK: dict[str, type | tuple[type, ...]] = {
    "protocols": Sequence,
    "metrics": Sequence,
    "primary": Mapping,
    "ranked": Mapping,
    "slices": Sequence,
    "arms": Sequence,
    "comparisons": Sequence,
    "notes": Sequence,
}
_ARM: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "model": str,
    "setting": str,
    "group": str,
    "role": str,
    "status": str,
    "trials": Sequence,
    "quality": Mapping,
    "cost": Mapping,
    "curves": Sequence,
}
_COMPARISON: dict[str, type | tuple[type, ...]] = dict.fromkeys(("protocol", "metric", "slice", "arm", "baseline"), str)


def read_results(folder: Path) -> dict[str, Any]:
    """The content of `folder`/results.json.

    Raises:
        EvaluationError: no such file, no JSON, another format.
    """
    file = folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(
            f"{file} cannot be read ({error.strerror}); give the output folder of a benchmark"
        ) from error
    except ValueError as error:
        raise EvaluationError(
            f"{file} is no JSON ({error}); repeat the benchmark's command to write it anew"
        ) from error
    check(content, str(file))
    return dict(content)


def check(results: Any, name: str = FILE) -> None:
    """Refuse what has not the form of results.json.

    Raises:
        EvaluationError: what is missing or of another kind, and where.
    """
    if not isinstance(results, Mapping) or results.get("format") != FORMAT:
        found = results.get("format") if isinstance(results, Mapping) else type(results).__name__
        raise EvaluationError(f"{name} is not of format {FORMAT} (found: {found!r}); {_REMEDY}")
    _has(results, _STUDY, name, "")
    for task_name, task in results["tasks"].items():
        where = f"tasks.{task_name}"
        _has(task, _TASK, name, where)
        _has(task["primary"], {"protocol": str, "metric": str}, name, f"{where}.primary")
        for place, arm in enumerate(task["arms"]):
            _has(arm, _ARM, name, f"{where}.arms[{place}]")
        for place, one in enumerate(task["comparisons"]):
            _has(one, _COMPARISON, name, f"{where}.comparisons[{place}]")


def _has(value: Any, kinds: Mapping[str, type | tuple[type, ...]], name: str, where: str) -> None:
    if not isinstance(value, Mapping):
        raise EvaluationError(f"{name}: {where} is no object; {_REMEDY}")
    for key, accepted in kinds.items():
        if key not in value:
            raise EvaluationError(f"{name}: {where or 'the study'} has no {key}; {_REMEDY}")
        wrong = isinstance(value[key], str) and accepted is Sequence
        if wrong or not isinstance(value[key], accepted):
            raise EvaluationError(f"{name}: {f'{where}.' if where else ''}{key} is {value[key]!r:.60}; {_REMEDY}")
