"""`Run`: one model on one data set in one output folder, and the stages of its making."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from recbole.data.utils import create_samplers
from recbole.utils import get_model, get_trainer, init_seed

from dataset_tools.files import atomic_path, write_json
from recbole_lsvcr.alignment.config import AlignmentConfig, load_alignment_config
from recbole_lsvcr.alignment.prepared import TEXT_SETTINGS, Prepared, write_prepared
from recbole_lsvcr.config import LSVCRConfig, output_folder, plain
from recbole_lsvcr.data.dataset import JointDataset, task_of
from recbole_lsvcr.data.instances import Kind
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.loader import EvalLoader, JointTrainLoader, eval_loader
from recbole_lsvcr.data.splits import PHASES
from recbole_lsvcr.data.tables import is_synthetic
from recbole_lsvcr.data.texts import ensure_store
from recbole_lsvcr.encoding import TextStore
from recbole_lsvcr.environment import command, machine
from recbole_lsvcr.errors import CheckpointError, ConfigError
from recbole_lsvcr.evaluation import EvaluationResult, Protocol
from recbole_lsvcr.evaluation.collector import needs_items
from recbole_lsvcr.joint_trainer import BothLoader, JointTrainer
from recbole_lsvcr.pretraining import identity, only_pretrains, pretrain, stage_config
from recbole_lsvcr.trainer import LSVCRTrainer

if TYPE_CHECKING:
    from recbole_lsvcr.alignment.stage import AlignmentJob

ALIGNMENT, PREPARED = "alignment", "prepared"  # folders of stages `align` and `prepare`, within the output folder
logger = logging.getLogger()


@dataclass(frozen=True)
class FinetuneResult:
    """What fine-tuning leaves: the best epoch's checkpoint, its validation score, and the log of every epoch.

    A run that only pre-trains leaves the pre-trained checkpoint, no score (NaN) and no history.
    """

    checkpoint: Path
    best_valid_score: float
    history: list[dict[str, Any]]
    seconds: float
    pretraining: dict[str, Any] | None = None  # epochs, seconds and history of the pre-training, where there was one
    parameters: int | None = None  # trainable ones; None where only the pre-training was asked for


class Run:
    """One model on one data set with one configuration, in one output folder.

    Args:
        config: the configuration.
        other: the joint data of the run's other task, if there is one.

    Raises:
        ConfigError: no output folder is named.
    """

    def __init__(self, config: LSVCRConfig, other: JointData | None = None) -> None:
        self.config = config
        self._other = other
        self.folder = output_folder(config)
        self.candidates_dir = self.folder / "candidates"  # runs that rank the same lists may share one
        self.corpus_lm: Path | None = None  # where alignments that may share it make their small language model
        self.model_class = get_model(config["model"])
        if not getattr(self.model_class, "learns", True):
            config["epochs"] = 0  # a ranking by a rule has nothing to train
        config["reads_comments"] = bool(getattr(self.model_class, "reads_comments", False))

    @property
    def kind(self) -> Kind:
        """What the model ranks."""
        return task_of(self.model_class)

    @property
    def reads_text(self) -> bool:
        """Whether the model needs the text store."""
        hard = self.kind == "comment" and self.config["train_negatives"] == "hard"
        return hard or (bool(getattr(self.model_class, "reads_text", False)) and not self.config["trainable_text"])

    @property
    def model_folder(self) -> Path:
        """Checkpoints and epoch log of this model."""
        return self.folder / str(self.config["model"])

    @cached_property
    def dataset(self) -> JointDataset:
        """The joint data set."""
        return JointDataset(self.config, self._other)

    @cached_property
    def loaders(self) -> tuple[JointTrainLoader, EvalLoader, EvalLoader]:
        """Training, validation and test loaders."""
        parts = self.dataset.build()
        sampler = None  # the comment task draws its negatives itself
        if self.kind == "video":
            sampler, _, _ = create_samplers(self.config, self.dataset, parts)
        train = JointTrainLoader(self.config, parts[0], sampler, shuffle=True)
        return train, eval_loader(self.config, parts[1]), eval_loader(self.config, parts[2])

    @property
    def protocols(self) -> list[Protocol]:
        """The rankings that are reported."""
        wanted = self.config["comment_protocols" if self.kind == "comment" else "protocols"]
        return [Protocol.parse(text, sample_num=self.config["sample_num"]) for text in wanted]

    def trainer(
        self,
        *,
        from_alignment: bool = False,
        pretrained: Path | None = None,
        trainer_class: type[LSVCRTrainer] | None = None,
    ) -> LSVCRTrainer:
        """A new model, initialised from the seed (and the alignment, or the pre-trained checkpoint), and its trainer
        (of `trainer_class`)."""
        train, _, _ = self.loaders
        aligned = self._aligned_weights() if from_alignment else None
        config = stage_config(self.config, pretrained)
        init_seed(config["seed"], config["reproducibility"])
        model = self.model_class(config, train.dataset)
        if aligned is not None:
            model.sr.load_weights(aligned)
        model = model.to(config["device"])
        if trainer_class is None:
            found = get_trainer(config["MODEL_TYPE"], config["model"])
            trainer_class = found if issubclass(found, LSVCRTrainer) else LSVCRTrainer
        trainer = trainer_class(config, model)
        trainer.saved_model_file = str(self.model_folder / "best.pth")
        trainer.last_file = self.model_folder / "last.pth"
        trainer.candidates_dir = self.candidates_dir
        trainer.data_identity = {**self.dataset.identity, **identity(pretrained)}
        return trainer

    def _aligned_weights(self) -> dict[str, torch.Tensor] | None:
        """What fine-tuning starts from; None: it starts afresh, from the text vectors at most."""
        from recbole_lsvcr.alignment.checkpoint import load_sr_weights
        from recbole_lsvcr.alignment.identity import ALIGNED, check_start, check_texts

        if not self.aligned:
            if self.reads_text:
                check_texts(None, self.dataset.texts.alignment)
            return None
        given, folder = self._prepared(), self.alignment_folder / ALIGNED
        check_start(folder, given.data, given.config, given.sr)
        check_texts(folder, self.dataset.texts.alignment)
        return load_sr_weights(folder) if given.config.sr_start == "aligned" else None

    # ------------------------------------------------------------------ stages

    @property
    def aligned(self) -> bool:
        """Whether the model starts from an alignment."""
        return bool(self.config["alignment"]) and getattr(self.model_class, "aligns", False)

    @property
    def alignment_folder(self) -> Path:
        """What stage `align` writes, and the later stages read."""
        return Path(self.config["alignment_folder"] or self.folder / ALIGNMENT)

    @cached_property
    def alignment_config(self) -> AlignmentConfig:
        """The settings of the alignment."""
        return load_alignment_config(self.config["alignment"])

    @property
    def alignment(self) -> AlignmentJob:
        """What stage `align` does, in the folders as they are named now. Needs transformers and peft, as the later
        stages do not."""
        try:
            from recbole_lsvcr.alignment.stage import AlignmentJob
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"alignment needs the package {error.name}: pip install 'recbole-lsvcr[llm]', or set alignment: off"
            ) from error
        given, device = self._prepared(), str(self.config["device"])
        folder, seed = self.alignment_folder, given.seed
        return AlignmentJob(given.data, given.config, given.sr, folder, seed=seed, device=device, corpus=self.corpus_lm)

    def alignment_identity(self) -> dict[str, Any]:
        """What alignments must have in common with this run's to be one and the same, but for the language model."""
        from recbole_lsvcr.alignment.identity import identity

        given = self._prepared()
        return identity(given.data, given.config, given.sr, given.seed)

    def check_alignment(self) -> None:
        """Raise CheckpointError for a finished alignment in the alignment folder that is not this run's."""
        from recbole_lsvcr.alignment.identity import ALIGNED, is_finished, refuse_other

        if self.aligned and is_finished(self.alignment_folder / ALIGNED):
            refuse_other(self.alignment_folder / ALIGNED, self.alignment_identity())

    def _prepared(self) -> Prepared:
        """All that alignment and its text encoder are made of."""
        joint = self.dataset.joint
        return Prepared(
            data=joint,
            config=self.alignment_config,
            sr=self.model_class.sr_config(self.config, max(joint.max_videos, joint.max_records)),
            seed=int(self.config["seed"] if self.config["alignment_seed"] is None else self.config["alignment_seed"]),
            text={name: self.config[name] for name in TEXT_SETTINGS},
        )

    def prepare(self, kinds: tuple[Kind, ...] | None = None) -> Path:
        """Write what stages `align` and `encode` need on a machine without RecBole, with neither transformers nor peft;
        returns the folder. `kinds`: the instances whose texts are to be encoded; None: those of this run.

        Raises:
            ConfigError: nothing is to be aligned.
        """
        if not self.aligned:
            raise ConfigError(
                "stage prepare is for alignment, which is off or not for this model: set alignment to a preset such as "
                "one-gpu-7b"
            )
        folder = self.folder / PREPARED
        write_prepared(folder, replace(self._prepared(), kinds=kinds or (self.kind,)))
        logger.info(
            "prepared %s; where the language model is: python -m recbole_lsvcr.alignment %s --output %s",
            folder,
            PREPARED,
            self.folder.name,
        )
        return folder

    def align(self) -> dict[str, Any] | None:
        """Align the SR model with a language model; returns the held-out figures, None without alignment."""
        if not self.aligned:
            return None
        job = self.alignment  # says what is missing, where the next line would only fail
        from recbole_lsvcr.alignment.stage import align

        return align(job)

    def encode(self) -> TextStore | None:
        """Encode every text an instance can show into the run's text store; nothing for models that read no text."""
        if not self.reads_text:
            return None
        if not self.aligned:
            return ensure_store(self.config, self.dataset.joint, kinds=(self.kind,))
        job = self.alignment
        from recbole_lsvcr.alignment.stage import aligned_encoder

        encoder = aligned_encoder(
            job, max_tokens=self.config["text_max_tokens"], batch_tokens=self.config["text_batch_tokens"]
        )
        return ensure_store(self.config, self.dataset.joint, encoder, kinds=(self.kind,))

    def finetune(self) -> FinetuneResult:
        """Train, or continue training; the best epoch stays in `<output>/<model>/best.pth`. A model that has a
        pre-training is pre-trained first."""
        train, _, _ = self.loaders
        started = time.perf_counter()
        first = pretrain(self)
        if first is None:
            return self._fit(self.trainer(from_alignment=True), train)
        if only_pretrains(self.config):
            return FinetuneResult(first.checkpoint, math.nan, [], time.perf_counter() - started, first.record)
        return self._fit(self.trainer(pretrained=first.checkpoint), train, first.record)

    def finetune_with(self, comments: Run) -> FinetuneResult:
        """Train one model on this run's videos and the other run's comments; both keep it as their `best.pth`."""
        trainer = self.trainer(from_alignment=True, trainer_class=JointTrainer)
        assert isinstance(trainer, JointTrainer)
        _, valid, _ = comments.loaders
        trainer.join(comments.trainer(), valid if len(valid.dataset) else None)
        return self._fit(trainer, BothLoader(self.loaders[0], comments.loaders[0], int(self.config["seed"])))

    def _fit(
        self, trainer: LSVCRTrainer, train: JointTrainLoader | BothLoader, pretraining: dict[str, Any] | None = None
    ) -> FinetuneResult:
        _, valid, _ = self.loaders
        started = time.perf_counter()
        size = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
        logger.info(
            "%s: %s trainable parameters; %s training, %s validation instances",
            self.config["model"],
            f"{size:,}",
            f"{len(self.loaders[0].dataset):,}",
            f"{len(valid.dataset):,}",
        )
        score, _ = trainer.fit(train, valid if len(valid.dataset) else None, show_progress=self.show_progress)
        seconds = time.perf_counter() - started
        log = {"best_valid_score": plain(score), "parameters": size, "epochs": trainer.history}
        write_json(self.model_folder / "history.json", log | ({"pretraining": pretraining} if pretraining else {}))
        return FinetuneResult(Path(trainer.saved_model_file), float(score), trainer.history, seconds, pretraining, size)

    def evaluate(self) -> dict[str, Any]:
        """Rank the phases of `report_phases` under every protocol; writes `metrics.json` and, with `save_instances`,
        the metrics of every instance.

        Raises:
            CheckpointError: the model was not trained in this output folder, or the checkpoint is of another model or
            data set.
        """
        checkpoint = self.model_folder / "best.pth"
        if not checkpoint.exists():
            raise CheckpointError(
                f"{checkpoint} does not exist: run --stage finetune (or all) with this configuration first"
            )
        loaders = dict(zip(PHASES[1:], self.loaders[1:], strict=True))
        trainer = self.trainer()
        trainer.load_best(checkpoint)
        results: dict[str, EvaluationResult] = {}
        seconds = {}
        for phase in self.config["report_phases"]:
            if not len(loaders[phase].dataset):
                logger.warning(
                    "no %s instance under split %s: nothing to report", phase, self.config["eval_args"]["split"]
                )
                continue
            started = time.perf_counter()
            results[phase] = trainer.rank(loaders[phase], self.protocols, show_progress=self.show_progress)
            seconds[phase] = round(time.perf_counter() - started, 3)
        return self._write(results, seconds)

    def _write(self, results: dict[str, EvaluationResult], seconds: dict[str, float]) -> dict[str, Any]:
        report = {
            "model": self.config["model"],
            "task": self.kind,
            "dataset": self.config["dataset"],
            "synthetic": is_synthetic(self.dataset.joint.tables.folder),
            "seed": self.config["seed"],
            "split": plain(self.config["eval_args"]["split"]),
            "phases": {phase: self._summary(result) for phase, result in results.items()},
            "evaluation_seconds": seconds,
        }
        if self.config["save_instances"]:
            for phase, result in results.items():
                result.write_instances(self.model_folder / f"instances-{phase}.parquet", seed=self.config["seed"])
        write_json(self.model_folder / "metrics.json", report)
        return report

    def _summary(self, result: EvaluationResult) -> dict[str, Any]:
        """`result.summary()`; under each protocol `recbole_metrics`, where `metrics` names others than it has. Those of
        the ranked videos themselves (ItemCoverage …) are of whole rankings only."""
        summary = result.summary()
        wanted = [name for name in self.config["metrics"] if name.lower() not in ("recall", "ndcg", "mrr")]
        for protocol, lists in result.lists.items():
            names = [name for name in wanted if lists.protocol.is_full or not needs_items(name)]
            if names and len(lists.positions):
                config = self.config.with_values(metrics=names)
                summary["protocols"][protocol]["recbole_metrics"] = result.recbole_metrics(config, protocol)
        return summary

    @property
    def show_progress(self) -> bool:
        """Whether a progress bar is wanted, and somebody there to see it."""
        return bool(self.config["show_progress"]) and sys.stderr.isatty()

    def describe(self) -> None:
        """Write the resolved configuration and the environment into the output folder."""
        with atomic_path(self.model_folder / "config.yaml") as temporary:
            values = {key: plain(value) for key, value in sorted(self.config.final_config_dict.items())}
            temporary.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=True), encoding="utf-8")
        write_json(self.model_folder / "environment.json", {**machine(), "command": command()})
