"""The models that the plugin adds to RecBole, ours and the user's, and where their property files are.

Needs neither RecBole nor PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbole_lsvcr.errors import ConfigError

CONTEXT = "context_aware_recommender"


@dataclass(frozen=True)
class Model:
    """The module of a model, and the package of RecBole in which `get_model` finds it.

    `joint`: our data set, loaders and trainer are used where RecBole chooses them. `defaults`: the YAML files of a
    user's own model, the last one on top.
    """

    module: str
    family: str = "sequential_recommender"
    joint: bool = True
    defaults: tuple[Path, ...] = ()


# The registry: a new model is one new entry.
MODELS: dict[str, Model] = {
    "LSVCR": Model("recbole_lsvcr.model.lsvcr"),
    "SASRecText": Model("recbole_lsvcr.model.sasrec_text"),
    "DMT": Model("recbole_lsvcr.model.dmt"),
    "UniSRec": Model("recbole_lsvcr.model.unisrec"),
    "MBHT": Model("recbole_lsvcr.model.mbht"),
    "Popularity": Model("recbole_lsvcr.model.trivial"),
    "Newest": Model("recbole_lsvcr.model.trivial"),
    "TextSim": Model("recbole_lsvcr.model.trivial"),
    "LSVCRComment": Model("recbole_lsvcr.model.lsvcr_comment", CONTEXT),
    **{
        f"Comment{name}": Model(f"recbole_lsvcr.model.baselines.{name.lower()}", CONTEXT)
        for name in ("DSSM", "GRU", "ATT", "MHA", "ZAM", "TEM")
    },
    "CommentPop": Model("recbole_lsvcr.model.comment_rules", CONTEXT),
    "CommentNewest": Model("recbole_lsvcr.model.comment_rules", CONTEXT),
    "CommentTextSim": Model("recbole_lsvcr.model.comment_rules", CONTEXT),
}
CUSTOM: dict[str, Model] = {}  # the user's own, by `custom_models.register_model`


def joint_model(name: str) -> Model | None:
    """The entry of a model for which our data set, loaders and trainer are used; None for every other name."""
    model = MODELS.get(name) or CUSTOM.get(name)
    return model if model is not None and model.joint else None


def properties_dir() -> Path:
    """The folder of our YAML files: inside the package when it is installed, beside it in a checkout.

    Raises:
        ConfigError: it is in neither place (a broken installation).
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise ConfigError(f"recbole-lsvcr's property files are missing from {package / 'properties'}: install it again")


def model_files(model: str) -> list[Path]:
    """The property files of a model, the last one on top: comment models take `LSVCRComment`'s values unless they have
    their own, since RecBole's defaults for context-aware models are of another task."""
    if model in CUSTOM:
        return list(CUSTOM[model].defaults)
    folder = properties_dir() / "model"
    shared = [folder / "LSVCRComment.yaml"] if model in MODELS and MODELS[model].family == CONTEXT else []
    return [*shared, folder / f"{model}.yaml"]
