"""results.json: read, and refused where it is not what `benchmark.aggregate` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from recbole_lsvcr.errors import EvaluationError

FORMAT = 1
FILE = "results.json"
_REMEDY = "repeat the benchmark's command to write it anew"


@dataclass(frozen=True)
class _Each:
    """A list, or the values of an object, all of one form."""

    kind: type
    form: Any


@dataclass(frozen=True)
class _Maybe:
    """A form, null, or nothing at all."""

    form: Any


@dataclass(frozen=True)
class _NumberOr:
    """A number, null, or a form."""

    form: Any


# An object as its keys' forms (further keys may be there), a type, types, `_Each`, `_Maybe`.
_NUMBER = (int, float, NoneType)  # bool is an int to Python; the report shows it as no number
_PLACE = (int, float, str, NoneType)
# Instances and users stand among a slice's metrics.
_SPREAD = _NumberOr({"values": _Maybe(_Each(dict, _NUMBER))})
_ARM = {
    **dict.fromkeys(("name", "model", "setting", "group", "role", "status"), str),
    "reason": _Maybe(str),
    "chosen": _Maybe(dict),
    "trials": _Each(
        list,
        {"parameters": _Maybe(dict), "seed": _Maybe(_PLACE), "status": _Maybe(str), "reason": _Maybe(str)},
    ),
    "quality": _Each(dict, _Each(dict, _Each(dict, _SPREAD))),
    "cost": dict,
    "curves": _Each(list, {"epochs": _Each(list, (int, float)), "valid": _Each(list, _NUMBER), "best_epoch": _NUMBER}),
    "alignment": _Maybe({"held_out": _Maybe(dict), "steps": _Maybe(_NUMBER), "log": _Maybe(_Each(list, dict))}),
}
_COMPARISON = {
    **dict.fromkeys(("protocol", "metric", "slice", "arm", "baseline"), str),
    "seeds": _Maybe(_Each(dict, _NUMBER)),
}
_TASK = {
    "protocols": _Each(list, str),
    "metrics": _Each(list, str),
    "primary": {"protocol": (str, NoneType), "metric": str},
    "ranked": _Each(dict, _Maybe({"chance": _Maybe(_Each(dict, _NUMBER))})),
    "slices": _Each(list, str),
    "arms": _Each(list, _ARM),
    "comparisons": _Each(list, _COMPARISON),
    "notes": list,
}
_STUDY = {
    "dataset": str,
    "synthetic": bool,
    "seeds": _Maybe(list),
    "command": _Maybe(list),
    "environment": _Maybe(dict),
    "shared": _Maybe(dict),
    "tune": _Maybe({"space": _Maybe(dict)}),
    "tasks": _Each(dict, _TASK),
    "portrait": _Maybe({"warnings": _Maybe(_Each(list, dict))}),
}


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
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{file} is no JSON ({error}); {_REMEDY}") from error
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
    _check(results, _STUDY, name, "")


def _check(value: Any, form: Any, name: str, where: str) -> None:
    if isinstance(form, _Maybe):
        if value is not None:
            _check(value, form.form, name, where)
    elif isinstance(form, _NumberOr):
        if not isinstance(value, _NUMBER):
            _check(value, form.form, name, where)
    elif isinstance(form, _Each):
        _check(value, form.kind, name, where)
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            _check(item, form.form, name, f"{where}.{key}" if isinstance(value, Mapping) else f"{where}[{key}]")
    elif isinstance(form, dict):
        _check(value, dict, name, where)
        for key, inner in form.items():
            if key not in value and not isinstance(inner, _Maybe):
                raise EvaluationError(f"{name}: {where or 'the study'} has no {key}; {_REMEDY}")
            _check(value.get(key), inner, name, f"{where}.{key}" if where else key)
    elif not isinstance(value, form):
        raise EvaluationError(f"{name}: {where} is {value!r:.60}, which it cannot be; {_REMEDY}")
