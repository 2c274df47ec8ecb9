"""The parameter of each model that is the length of a video's vector, so that all models of a comparison share it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from recbole.utils import get_model

from recbole_lsvcr.registry import model_files
from recbole_lsvcr.yaml_files import read_yaml

NAMES = ("embedding_size", "hidden_size")  # RecBole's: in models that have both, the second is the size of their states


def size_parameters(model: str, size: int) -> dict[str, int]:
    """The parameter by which the vectors of what a model ranks have `size` numbers.

    Args:
        model: a model's name, RecBole's or ours.
        size: the length; models with attention want a multiple of their `n_heads`.

    Returns:
        `embedding_size` where the model has it, else `hidden_size` (tests/test_every_sequential_model.py looks at the
        tables of all); nothing for a rule, which has no vectors. DIN and DIEN have vectors of this length for a video's
        id and for each of its attributes.

    Raises:
        ValueError: no such model.
    """
    if not getattr(get_model(model), "learns", True):
        return {}
    recbole = Path(str(importlib.util.find_spec("recbole").submodule_search_locations[0]))  # type: ignore[union-attr, index]
    files = [recbole / f"properties/model/{model}.yaml", *model_files(model)]
    has = {key for file in files if file.is_file() for key in read_yaml(file)}
    return {name: size for name in NAMES[: 1 if NAMES[0] in has else 2] if name in has}
