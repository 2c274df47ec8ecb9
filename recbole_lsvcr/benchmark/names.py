"""The model that a person means by a name: RecBole's, ours, or a class of their own; capitals do not matter."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Sequence

from recbole_lsvcr.custom_models import register_model
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import MODELS

_FAMILIES = ("sequential_recommender", "context_aware_recommender")


def resolve(name: str, known: Sequence[str] = ()) -> str:
    """The class name of the model called `name`, registered if it is `module:Class`.

    Args:
        name: `SASRec`, `sasrec`, or `my_package.my_module:MyModel`. known: names to suggest when nothing is found.

    Raises:
        ConfigError: there is no such model.
    """
    if ":" in name:
        return register_model(name)
    for ours in MODELS:
        if ours.lower() == name.lower():
            return ours
    for family in _FAMILIES:
        module = f"recbole.model.{family}.{name.lower()}"
        if name.isidentifier() and importlib.util.find_spec(module) is not None:
            found = vars(importlib.import_module(module))
            if matching := [one for one in found if one.lower() == name.lower() and isinstance(found[one], type)]:
                return matching[0]
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in (*known, *MODELS)], n=1, cutoff=0.6)
    raise ConfigError(
        f"model '{name}' is not known"
        + (f" (did you mean {near[0]}?)" if near else "")
        + f"; accepted: {', '.join(known)}, RecBole's other sequential and context-aware models by their class "
        "names, and your own as module:Class"
    )
