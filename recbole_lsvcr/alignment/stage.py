"""The stage `align`: from a joint data set and settings to a folder with the aligned language model and SR weights.

Runs on a machine without RecBole: everything it needs is a data set folder and an `AlignmentConfig`.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from dataset_tools.files import write_json
from recbole_lsvcr.alignment.checkpoint import load_alignment, read_description
from recbole_lsvcr.alignment.collate import AlignmentBatch, AlignmentCollator
from recbole_lsvcr.alignment.config import AlignmentConfig
from recbole_lsvcr.alignment.corpus_lm import CorpusLMConfig, train_corpus_lm
from recbole_lsvcr.alignment.identity import ALIGNED, content, identity, is_finished, refuse_other
from recbole_lsvcr.alignment.instances import AlignmentInstances
from recbole_lsvcr.alignment.load import LoadedLM, add_lora, load_causal_lm
from recbole_lsvcr.alignment.pair import AlignedPair
from recbole_lsvcr.alignment.prompts import Instructions, PromptFamily
from recbole_lsvcr.alignment.states import base_model
from recbole_lsvcr.alignment.trainer import AlignmentTrainer
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.splits import TRAIN, VALID
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder
from recbole_lsvcr.errors import CheckpointError, ConfigError, DataError
from recbole_lsvcr.folders import exclusive
from recbole_lsvcr.model.layers import TextMLP
from recbole_lsvcr.model.sr import SRConfig, SRModel

logger = logging.getLogger()

CORPUS_LM = "language_model"
HEALTH = "health.json"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports of transformers and peft: ours say what matters."""
    from transformers.utils import logging as hf_logging

    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # PEFT and the trainer ask by a name that transformers has renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        hf_logging.set_verbosity(verbosity)


@dataclass(frozen=True)
class AlignmentJob:
    """One alignment: what is aligned, how, and where to.

    Attributes:
        data: the joint data set. config: the settings. sr: the SR model's sizes; `encoder_size` and `n_items` are set
        here. folder: of everything the stage writes. seed: of all randomness. device: `cpu`, `cuda`, `auto`.
        corpus: folder in which the small language model of `llm: corpus` lies, so that alignments can share one; None:
        `folder`.
    """

    data: JointData
    config: AlignmentConfig
    sr: SRConfig
    folder: Path
    seed: int = 2026
    device: str = "auto"
    corpus: Path | None = None

    @property
    def result(self) -> Path:
        """The folder of the finished alignment."""
        return self.folder / ALIGNED

    def identity(self, lm: LoadedLM) -> dict[str, Any]:
        """The description of a checkpoint: what a run that continues it must have in common with it."""
        known = identity(self.data, self.config, self.sr, self.seed)
        return {"base_fingerprint": lm.fingerprint, **known}

    def language_model(self, *, report_it: bool = True) -> LoadedLM:
        """The language model of the settings; `corpus` is trained first, unless it is there already."""
        config = self.config
        source = config.llm
        if source == "corpus":
            place = self.corpus or self.folder
            source = str(place / CORPUS_LM)
            settings = CorpusLMConfig(minutes=config.corpus_minutes, steps=config.corpus_steps, seed=self.seed)
            with nullcontext() if self.corpus is None else exclusive(self.corpus, "small language model"):
                report = train_corpus_lm(self.data, source, settings)
            if report_it:
                logger.info(
                    "language model: %s parameters, perplexity %s on held-out texts (%s untrained), %s tokens/s",
                    f"{report['parameters']:,}",
                    report["perplexity"]["after"],
                    report["perplexity"]["before"],
                    f"{report['tokens_per_second']:,}",
                )
        return load_causal_lm(
            source,
            name=config.llm,
            device=self.device,
            precision=config.precision,
            quantization=config.quantization,
            trust_remote_code=config.trust_remote_code,
            gradient_checkpointing=config.gradient_checkpointing,
            min_context=config.target_tokens + 64,
        )


@_quiet()
def align(job: AlignmentJob) -> dict[str, Any]:
    """Align, or continue aligning; the result lies in `job.result`. Returns the health figures on held-out instances.

    Raises:
        ConfigError, DataError, StoreError: settings, data or a language model that cannot be used.
        CheckpointError: the folder holds an alignment with other settings. AlignmentError: a loss that is not finite.
    """
    arguments = _arguments(job)
    alone = exclusive(job.folder, "alignment") if arguments.process_index == 0 else nullcontext()
    with alone:
        try:
            return _align(job, arguments)
        finally:
            gc.collect()  # accelerate leaves the language model in a cycle, and the next stage loads one too


def _align(job: AlignmentJob, arguments: TrainingArguments) -> dict[str, Any]:
    with arguments.main_process_first(local=False):  # one process makes the small model, the others read it
        lm = job.language_model()
    known = job.identity(lm)
    if is_finished(job.result):
        refuse_other(job.result, known)
        logger.info("alignment in %s is finished", job.result)
        return dict(read_description(job.result).get("health", {}))
    config = job.config
    pair = new_pair(job, lm)
    collate = collator(job, lm)
    training = collate.instances
    if arguments.process_index == 0:
        _say(job, pair, len(training), arguments.world_size)
    trainer = AlignmentTrainer(
        pair,
        arguments,
        order=training.order,
        rows=len(training),
        collate=collate,
        held_out=_held_out(job, lm),
        cached_rows=config.cached_rows,
        describe=lambda rows: _describe(training, rows),
        identity={**known, "processes": arguments.world_size},  # they decide batches and draws
        callbacks=[_Log()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.continue_training()
    health = trainer.health() if trainer.held_out else {}
    trainer.identity["health"] = health
    trainer.save_pair(job.result)
    if trainer.args.should_save:
        write_json(job.folder / HEALTH, {"health": health, "log": trainer.state.log_history})
        trainer.delete_checkpoints()
    if health and arguments.process_index == 0:
        logger.info("held out: %s", _figures(health))
    return health


def collator(job: AlignmentJob, lm: LoadedLM, *, phase: int = TRAIN) -> AlignmentCollator:
    """What makes batches of the alignment's training (0) or held-out (1) instances.

    Raises:
        ConfigError: a prompt family, or a context too short for any instruction. DataError: no instance.
    """
    config = job.config
    return AlignmentCollator(
        AlignmentInstances(job.data, phase=phase, seed=job.seed),
        Instructions(
            lm.tokenizer,
            PromptFamily.load(config.prompts),
            context=lm.context,
            max_tokens=config.instruction_tokens,
            max_target_tokens=config.target_tokens,
            chat_template=config.chat_template,
        ),
        diversify=config.diversification(),
        max_history=min(config.max_history, job.sr.max_positions),
        instruction_history=config.instruction_history,
        padding_side="left",  # targets end together: the language model's head runs over their positions only
        seed=job.seed,
    )


@_quiet()
def aligned_pair(job: AlignmentJob) -> tuple[AlignedPair, LoadedLM]:
    """The finished alignment's pair, in evaluation mode, and the language model as `collator` wants it.

    Raises:
        CheckpointError: the alignment is not there, or belongs to other settings.
    """
    lm = _finished(job)
    pair = new_pair(job, lm)
    shapes = pair.small_state()
    found = load_alignment(job.result, pair.llm, name=lm.name, fingerprint=lm.fingerprint, pair_shapes=shapes)
    pair.load_small_state(found.pair_state)
    return pair.eval(), lm


@_quiet()
def aligned_encoder(
    job: AlignmentJob, *, max_tokens: int = 512, batch_tokens: int | None = None
) -> LanguageModelEncoder:
    """The aligned language model and `text_mlp` as a text encoder: vectors of `text_size` numbers for the store (of H,
    without `text_mlp`, where that goes on learning).

    Raises:
        CheckpointError: the alignment is not there, or belongs to other settings.
    """
    lm = _finished(job)
    found = load_alignment(job.result, lm.model, name=lm.name, fingerprint=lm.fingerprint)
    mlp = TextMLP(encoder_size=lm.hidden_size, text_size=job.sr.text_size)
    prefix = "sr.text_mlp."
    mlp.load_state_dict({n.removeprefix(prefix): v for n, v in found.pair_state.items() if n.startswith(prefix)})
    made = content(job.result)
    return LanguageModelEncoder(
        base_model(found.model),
        lm.tokenizer,
        name=f"aligned {job.config.llm}",
        fingerprint=hashlib.sha256((lm.fingerprint + made).encode()).hexdigest(),
        alignment=made,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        head=_frozen(mlp, lm) if job.config.text_mlp == "frozen" else None,
    )


def _finished(job: AlignmentJob) -> LoadedLM:
    """The language model of a finished alignment."""
    if not is_finished(job.result):
        raise CheckpointError(f"{job.result} holds no finished alignment: run --stage align (or all) first")
    lm = job.language_model(report_it=False)
    refuse_other(job.result, job.identity(lm))
    return lm


def new_pair(job: AlignmentJob, lm: LoadedLM) -> AlignedPair:
    """The pair before its first step: LoRA is put into the language model."""
    torch.manual_seed(job.seed)
    config = job.config
    lora = add_lora(
        lm.model, r=config.lora_r, alpha=config.lora_alpha, dropout=config.lora_dropout, targets=config.lora_targets
    )
    device = next(lora.parameters()).device
    return AlignedPair(
        replace(lm, model=lora),
        SRModel(replace(job.sr, encoder_size=lm.hidden_size, n_items=None)).to(device),
        config.objective(),
        short_text_tokens=config.short_text_tokens,
        batch_tokens=config.text_batch_tokens or None,
        short_text_grad=config.short_text_grad,
        random_positions=config.random_positions,
    ).to(device)


def _frozen(mlp: TextMLP, lm: LoadedLM) -> nn.Module:
    return mlp.to(next(lm.model.parameters()).device).requires_grad_(False).eval()


def _arguments(job: AlignmentJob) -> TrainingArguments:
    config = job.config
    if config.precision == "bfloat16" and job.device != "cpu" and not _has_bfloat16(job.device):
        raise ConfigError(
            "alignment: precision = 'bfloat16' needs a GPU that has it; give float16 or float32, or run on the "
            "processor (use_gpu: False; --device cpu)"
        )
    half = config.precision == "bfloat16" or (config.precision == "auto" and _has_bfloat16(job.device))
    arguments = TrainingArguments(
        output_dir=str(job.folder / "training"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        warmup_steps=max(round(config.warmup * config.steps), 1) if config.warmup else 0,
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=half,
        fp16=config.precision == "float16",
        use_cpu=job.device == "cpu",
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        save_steps=min(config.save_steps, config.steps),
        report_to=["tensorboard"] if _installed_tensorboard() else [],
        disable_tqdm=True,
        seed=job.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=job.device != "cpu" and torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )
    if arguments.n_gpu > 1:  # several GPUs are for torchrun: transformers would wrap the pair in DataParallel
        arguments._n_gpu = 1
    return arguments


def _has_bfloat16(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _installed_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


def _held_out(job: AlignmentJob, lm: LoadedLM) -> list[AlignmentBatch]:
    """Batches of validation instances, the same in every run: of 64 each, whatever the training batch, or one of all
    where there are fewer; what fills no batch is left out."""
    wanted = job.config.eval_instances
    if not wanted:
        return []
    try:
        collate = collator(job, lm, phase=VALID)
    except DataError:
        logger.warning("no validation instance: no held-out figures")
        return []
    rows = collate.instances.order(0)[:wanted]
    size = min(64, len(rows))
    whole = rows[: len(rows) - len(rows) % size]
    return [collate(part, 0) for part in np.split(whole, len(whole) // size)]


def _describe(instances: AlignmentInstances, rows: np.ndarray) -> str:
    """Instances in words: the first users and videos of a batch."""
    inputs = instances.inputs(rows[:3], 1)
    tables = instances.data.tables
    shown = [
        f"{'video' if is_video else 'comment'} instance of user {tables.users[int(user)]!r}, video "
        f"{tables.items[int(item)]!r}"
        for is_video, user, item in zip(inputs.is_video, inputs.user, inputs.item, strict=True)
    ]
    return f"{len(rows)} instances, first {'; '.join(shown)}"


def _say(job: AlignmentJob, pair: AlignedPair, instances: int, processes: int) -> None:
    trained = sum(weight.numel() for weight in pair.parameters() if weight.requires_grad)
    every = sum(weight.numel() for weight in pair.parameters())
    config = job.config
    logger.info(
        "Aligning with %s: %s of %s parameters trained; %s training instances; %s steps of %s%s x %s",
        config.llm,
        f"{trained:,}",
        f"{every:,}",
        f"{instances:,}",
        f"{config.steps:,}",
        "" if processes == 1 else f"{processes} processes x ",
        config.accumulation,
        config.batch_size,
    )


class _Log(TrainerCallback):
    """What the trainer logs, on one line of our log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            shown = {key: logs[key] for key in _SHOWN if key in logs}
            logger.info("step %s/%s  %s", state.global_step, state.max_steps, _figures(shown))


_SHOWN = ("loss", "lm", "sr", "ssc", "vcc", "retrieval", "vcc_accuracy", "cosine_own", "cosine_others", "grad_norm")


def _figures(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {float(value):.3f}" for name, value in values.items())
