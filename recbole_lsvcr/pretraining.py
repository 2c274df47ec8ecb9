"""Models of RecBole that are pre-trained before they are fine-tuned: stage `finetune` does both, in that order.

Such a model reads `train_stage` (`pretrain` or `finetune`) and `pre_model_path` (the file that fine-tuning starts from)
when it is made; the settings here are left out of a run's own (`train_stage: ~`): the pipeline gives them. Pre-training
is `LSVCRTrainer` on the same training batches, for `pretrain_epochs` epochs and without validation, so it is resumed as
all training is. `<output>/<Model>/pretraining/last.pth` is both what a killed pre-training continues from and what
fine-tuning starts from.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dataset_tools.files import write_json
from recbole_lsvcr.checkpoint import load_checkpoint
from recbole_lsvcr.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from recbole_lsvcr.config import LSVCRConfig
    from recbole_lsvcr.task_run import Run

PRETRAINED = frozenset({"S3Rec"})  # the models that read `train_stage`, `pre_model_path` and `pretrain_epochs`
FOLDER = "pretraining"  # within the model's folder
logger = logging.getLogger()


@dataclass(frozen=True)
class Pretraining:
    """What fine-tuning starts from: a checkpoint, and what making it took.

    `record` has `epochs`, `seconds` and `history` (an entry an epoch, as that of fine-tuning); it is None where the
    user gave the checkpoint (`pre_model_path`).
    """

    checkpoint: Path
    record: dict[str, Any] | None


def check_settings(config: LSVCRConfig) -> None:
    """Refuse settings of pre-training that do not go together; other models have none.

    Raises:
        ConfigError: an unknown `train_stage`, or one that does not go with `pre_model_path`.
    """
    if config["model"] not in PRETRAINED:
        return
    chosen, file = config["train_stage"], config["pre_model_path"]
    if chosen not in (None, "pretrain", "finetune"):
        raise ConfigError(
            f"train_stage = {chosen!r} is not accepted; accepted: pretrain, finetune (from pre_model_path), or nothing "
            "for both"
        )
    if chosen == "pretrain" and file:
        raise ConfigError(
            f"train_stage = pretrain starts afresh, but pre_model_path = {file} is given; leave out one of them"
        )
    if chosen == "finetune" and not file:
        raise ConfigError(
            "train_stage = finetune needs pre_model_path, the checkpoint of a pre-training (as "
            f"<output>/{config['model']}/{FOLDER}/last.pth); leave out train_stage to pre-train first"
        )


def only_pretrains(config: LSVCRConfig) -> bool:
    """Whether the run ends with pre-training (`train_stage: pretrain`)."""
    return config["model"] in PRETRAINED and config["train_stage"] == "pretrain"


def check_stage(config: LSVCRConfig, stage: str) -> None:
    """Refuse to rank with a model that is to be pre-trained only.

    Raises:
        ConfigError: `train_stage` is `pretrain` and the stage is one that ranks.
    """
    if only_pretrains(config) and stage in ("evaluate", "all"):
        raise ConfigError(
            f"train_stage = pretrain leaves no {config['model']} that ranks; give --stage finetune with it, or leave "
            "out train_stage to fine-tune from the pre-training"
        )


def stage_config(config: LSVCRConfig, pretrained: Path | None) -> LSVCRConfig:
    """The configuration that makes the model: for fine-tuning from `pretrained`, or for pre-training (None).

    A model made for pre-training reads no file; it ranks like the other once a checkpoint has been loaded into it.
    """
    if config["model"] not in PRETRAINED:
        return config
    changes: dict[str, Any] = {"train_stage": "finetune", "pre_model_path": str(pretrained)}
    if pretrained is None:
        # `epochs` takes the place of `pretrain_epochs`: a pre-training may be continued with more of them.
        changes = {"train_stage": "pretrain", "pre_model_path": "", "epochs": config["pretrain_epochs"]}
        changes["pretrain_epochs"] = None
    return config.with_values(**changes)


def identity(pretrained: Path | None) -> dict[str, str]:
    """What a fine-tuning that starts from `pretrained` keeps of it: the hash of its weights."""
    if pretrained is None:
        return {}
    digest = hashlib.sha256()
    for name, values in sorted(load_checkpoint(pretrained)["state_dict"].items()):
        digest.update(name.encode())
        digest.update(values.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return {"start": digest.hexdigest()}


def pretrain(run: Run) -> Pretraining | None:
    """Pre-train the model of `run`, or continue; None for a model that is not pre-trained. A `pre_model_path` is
    checked, and nothing is trained.

    Raises:
        CheckpointError: `pre_model_path` is no checkpoint of this model and data set; the folder holds a pre-training
        with other settings, or one that has had more epochs than `pretrain_epochs`, or fewer though fine-tuning began.
    """
    config = run.config
    if config["model"] not in PRETRAINED:
        return None
    if config["pre_model_path"]:
        return Pretraining(_given(run, Path(config["pre_model_path"])), None)
    folder, wanted = run.model_folder / FOLDER, int(config["pretrain_epochs"])
    file = folder / "last.pth"
    _refuse_other_length(file, run.model_folder, wanted)
    trainer = run.trainer()
    trainer.last_file = file
    logger.info("%s: pre-training, %s epochs", config["model"], wanted)
    trainer.fit(run.loaders[0], saved=False, show_progress=run.show_progress)
    seconds = round(sum(entry["train_seconds"] for entry in trainer.history), 3)
    record = {"epochs": len(trainer.history), "seconds": seconds, "history": trainer.history}
    write_json(folder / "history.json", record)
    return Pretraining(file, record)


def _given(run: Run, file: Path) -> Path:
    if "data" not in load_checkpoint(file):
        # Such a file may number the videos in another way, which no comparison of shapes would show.
        raise CheckpointError(
            f"{file} does not say which data it was trained on; give as pre_model_path what this program pre-trained "
            f"(<output>/{run.config['model']}/{FOLDER}/last.pth), or leave it out"
        )
    run.trainer().load_best(file)
    return file


def _refuse_other_length(file: Path, model_folder: Path, wanted: int) -> None:
    begun = (model_folder / "last.pth").exists()
    if begun and not file.exists():
        raise CheckpointError(
            f"{model_folder / 'last.pth'} was fine-tuned from a pre-training that is not in {file}; give the file as "
            f"pre_model_path, use another --output, or remove {model_folder}"
        )
    done = load_checkpoint(file)["epoch"] + 1 if file.exists() else 0
    if done > wanted or (begun and done < wanted):
        since = ", from which fine-tuning has begun" if begun else ""
        raise CheckpointError(
            f"{file} holds {done} epochs of pre-training{since}, but pretrain_epochs is {wanted}; set it to {done}, "
            f"use another --output, or remove {model_folder}"
        )
