"""`AlignmentTrainer`: Hugging Face's trainer around the aligned pair, with batches that can be made again.

Data-parallel training, accumulation, precision and TensorBoard are its own. What is added: every batch and every random
draw is a function of (seed, step), so that a killed run continues exactly; the cached-gradient step; losses logged
apart; checkpoints that appear whole or not at all.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import DistributedType
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from dataset_tools.files import write_json
from recbole_lsvcr.alignment.cached import average_gradients, cached_backward
from recbole_lsvcr.alignment.checkpoint import load_alignment, save_alignment
from recbole_lsvcr.alignment.collate import AlignmentBatch
from recbole_lsvcr.alignment.losses import average_over_processes, largest_over_processes, processes
from recbole_lsvcr.alignment.pair import LLM, AlignedPair, AlignmentLosses
from recbole_lsvcr.errors import AlignmentError, ConfigError

logger = logging.getLogger()

WEIGHTS = "alignment"  # folder within a checkpoint
REMEDY = "give a lower learning_rate or max_grad_norm, or another precision, and the same command"
REMEDIES = ("learning_rate", "max_grad_norm", "precision")  # settings that a run may be continued with otherwise
WHOLE = "whole.json"  # written last: a checkpoint without it was cut short
PREFIX = "checkpoint-"
Collate = Callable[[np.ndarray, int], AlignmentBatch]


class Draws(Dataset[tuple[int, int, int]]):
    """The instances of a whole run, in their order: item k is (k, epoch, row), each epoch shuffled anew.

    An epoch ends with the last step it fills, so that no batch holds instances of two epochs (fewer rows than a step
    has: a step holds whole epochs and the start of another).
    """

    def __init__(self, order: Callable[[int], np.ndarray], rows: int, steps: int, a_step: int) -> None:
        """`order(epoch)` int64[rows]; `a_step`: instances of an optimiser step, all processes together."""
        self.order, self.length = order, steps * a_step
        self.rows = rows - rows % a_step or rows
        self._known: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, k: int) -> tuple[int, int, int]:
        epoch, place = divmod(k, self.rows)
        if self._known[0] != epoch:
            self._known = (epoch, self.order(epoch))
        return k, epoch, int(self._known[1][place])


@dataclass(frozen=True)
class Step:
    """What one process sees of a batch."""

    batch: AlignmentBatch
    rows: np.ndarray  # int64 [B], instances
    draw: int  # number of the batch in the run, the same on every process

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Step:
        """The same on another device."""
        return Step(self.batch.to(device, non_blocking=non_blocking), self.rows, self.draw)


@dataclass(frozen=True)
class StepCollator:
    """Items of `Draws` -> `Step`; an instance's draws depend on the epoch, not on its batch or process."""

    collate: Collate
    a_batch: int  # instances, all processes together

    def __call__(self, items: Sequence[tuple[int, int, int]]) -> Step:
        first, epoch, _ = items[0]
        rows = np.array([row for _, _, row in items], np.int64)
        return Step(self.collate(rows, epoch), rows, first // self.a_batch)


class AlignmentTrainer(Trainer):
    """Trains an `AlignedPair` for `args.max_steps` steps.

    Args:
        pair: the model. arguments: Hugging Face's; `max_steps`, batch size, accumulation, precision and so on.
        order, rows: of the training instances (`Draws`). collate: `(rows, seed) -> AlignmentBatch`.
        held_out: batches that `health` is measured on.
        cached_rows: instructions in memory at a time in the cached-gradient step; 0: the plain step.
        describe: rows of instances in words, for the message when a loss is not finite.
        identity: the description of checkpoints: `base_model`, `base_fingerprint`, and all that a run which continues
        one must have in common with it.

    Raises:
        ConfigError: the cached-gradient step under FSDP or DeepSpeed.
        AlignmentError: in every process, a loss of one that is not finite; the last good checkpoint stays.
    """

    def __init__(
        self,
        pair: AlignedPair,
        arguments: TrainingArguments,
        *,
        order: Callable[[int], np.ndarray],
        rows: int,
        collate: Collate,
        held_out: Sequence[AlignmentBatch] = (),
        cached_rows: int = 0,
        describe: Callable[[np.ndarray], str] = str,
        identity: Mapping[str, Any],
        callbacks: list[Any] | None = None,
    ) -> None:
        a_batch = arguments.per_device_train_batch_size * arguments.world_size
        super().__init__(
            model=pair,
            args=arguments,
            train_dataset=Draws(order, rows, arguments.max_steps, a_batch * arguments.gradient_accumulation_steps),
            data_collator=StepCollator(collate, a_batch),  # type: ignore[arg-type]  # batches are no dictionaries
            callbacks=callbacks,
        )
        self.sharded = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        if self.sharded:
            self._begin_sharded(pair, cached_rows)
        self.held_out, self.cached_rows, self.describe = held_out, cached_rows, describe
        self.identity = dict(identity)
        self.model_accepts_loss_kwargs = False  # the losses are means already: accumulation divides them
        self._sums: dict[str, torch.Tensor] = {}
        self._summed = 0
        self._unproven = False

    def _begin_sharded(self, pair: AlignedPair, cached_rows: int) -> None:
        """Settings of FSDP and DeepSpeed; none of them was run here beyond a step of FSDP 2 on two CPU processes."""
        kind = self.accelerator.distributed_type.value
        if cached_rows:
            raise ConfigError(
                f"cached_rows = {cached_rows} works in one process and with plain data parallelism, not under {kind}: "
                "set cached_rows: 0, or start without the settings of FSDP or DeepSpeed"
            )
        logger.warning(f"{kind} is passed through, untested, and without checkpoints: a killed alignment begins anew")
        pair.equal_passes = True
        self.args.save_strategy = SaveStrategy.NO

    # ---- batches ----------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # the order is in the data set

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        return data_collator

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> None:
        return None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: a step runs several passes of different sizes."""
        return 0

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs.to(self.args.device)

    # ---- a step -----------------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one batch; returns its loss divided by the accumulation steps."""
        model.train()
        step = self._prepare_inputs(inputs)
        seed = (self.args.seed * 1_000_003 + step.draw) * processes() + self.args.process_index
        share = 1.0 / self.current_gradient_accumulation_steps
        if self.cached_rows:
            pair = self.unwrapped
            losses = cached_backward(
                pair,
                step.batch,
                draw=step.draw,
                seed=seed,
                rows_at_once=self.cached_rows,
                scale=share,
                precision=self.accelerator.autocast,  # it wraps `pair.forward` alone, which the cached step goes past
            )
            self._check(losses, step)
            average_gradients(pair)
        else:
            torch.manual_seed(seed % 2**63)
            with self.compute_loss_context_manager():
                losses = model(step.batch, draw=step.draw)
            self._check(losses, step)
            self.accelerator.backward(losses.total * share, **self._scaled_already())
        self._note(losses)
        return losses.total.detach() * share

    def _scaled_already(self) -> dict[str, bool]:
        """DeepSpeed would divide by the accumulation steps once more."""
        is_deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        return {"scale_wrt_gas": False} if is_deepspeed else {}

    def _check(self, losses: AlignmentLosses, step: Step) -> None:
        """Stop, in every process, when the loss of one of them is not finite."""
        broken = not bool(torch.isfinite(losses.total))
        if not self._largest(broken):
            if self.accelerator.sync_gradients:  # the last batch of the step: the weights did for all of it
                self._prove()
            return
        if self.args.should_save:
            remove_checkpoint(self._newest)  # weights that lead here at once are no help
        remedy = self._remedy()
        now, rank = f"step {self.state.global_step}", self.args.process_index
        if not broken:
            raise AlignmentError(
                f"the alignment loss of another process than rank {rank} is not finite at {now}; its message names the "
                f"batch. Training has stopped: {remedy}"
            )
        where = f" in rank {rank}" if processes() > 1 else ""
        parts = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.parts.items())
        raise AlignmentError(
            f"the alignment loss is {losses.total.item()} at {now}{where} ({parts}); the batch holds "
            f"{self.describe(step.rows)}. Training has stopped: {remedy}"
        )

    def _largest(self, value: int) -> int:
        """The largest value of all processes, which wait for one another here."""
        return int(largest_over_processes(torch.tensor([int(value)], device=self.args.device)))

    def _remedy(self) -> str:
        """What to do, by what is there. Called in every process; what the first one finds counts."""
        found = checkpoints(self.folder) if self.args.should_save else []
        kept = self._largest(_step(found[-1]) if found else 0)
        if not kept:
            return f"no checkpoint is left; {REMEDY} starts afresh"
        return f"the last good checkpoint is kept (step {kept}); {REMEDY} goes on from there"

    # ---- what is logged ---------------------------------------------------------------------------------------------

    def _note(self, losses: AlignmentLosses) -> None:
        for name, value in {**losses.parts, **losses.health}.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()
        self._summed += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each loss apart and the health figures, averaged since the last time and over the processes."""
        if "loss" in logs and self._summed:
            means = {name: average_over_processes(total / self._summed) for name, total in self._sums.items()}
            logs = {**logs, **{name: round(float(value), 5) for name, value in means.items()}}
            self._sums, self._summed = {}, 0
        super().log(logs, start_time)

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Losses, health figures and `perplexity` on the held-out batches, each in evaluation mode."""
        pair = self.unwrapped
        training = pair.training
        pair.eval()
        model = self.model_wrapped if self.sharded else pair
        sums: dict[str, float] = {}
        for batch in self.held_out:
            with self.compute_loss_context_manager():
                losses = model(batch.to(self.args.device))
            for name, value in {**losses.parts, **losses.health}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        pair.train(training)
        means = {name: value / len(self.held_out) for name, value in sums.items()}
        if "lm" in means:
            means["perplexity"] = math.exp(min(means["lm"], 80.0))
        return {name: round(value, 5) for name, value in means.items()}

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where checkpoints and events go."""
        return Path(str(self.args.output_dir))

    @property
    def unwrapped(self) -> AlignedPair:
        """The pair without what data-parallel training put around it."""
        return self.accelerator.unwrap_model(self.model)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        self.save_pair(Path(output_dir or self.folder) / WEIGHTS)

    def save_pair(self, folder: Path) -> None:
        """Write adapter, SR model and `contrast_adapter` as a checkpoint of `alignment.checkpoint`. Called in every
        process; the first one writes."""
        pair = self.unwrapped
        # Sharded weights are gathered by all processes together.
        state = self.accelerator.get_state_dict(self.model_wrapped) if self.sharded else pair.state_dict()
        if self.args.should_save:
            small = {name: value for name, value in state.items() if not name.startswith(LLM)}
            adapter = {name.removeprefix(LLM): value for name, value in state.items() if name.startswith(LLM)}
            save_alignment(folder, pair_state=small, peft_model=pair.llm, adapter=adapter, description=self.identity)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        pair = self.unwrapped
        found = load_alignment(
            Path(resume_from_checkpoint) / WEIGHTS,
            pair.llm,
            name=self.identity["base_model"],
            fingerprint=self.identity["base_fingerprint"],
            pair_shapes=pair.small_state(),
            expect=self._decisive(),
        )
        pair.load_small_state(found.pair_state)

    def _decisive(self) -> dict[str, Any]:
        """What of the identity a run and one that continues it must share."""
        settings = self.identity.get("settings")
        if settings is None:
            return self.identity
        return {**self.identity, "settings": {key: settings[key] for key in settings if key not in REMEDIES}}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:  # a learning rate given since then counts
            optimizer, plan, rate = self.optimizer, self.lr_scheduler, self.args.learning_rate
            assert optimizer is not None and plan is not None
            plan.base_lrs = [rate] * len(optimizer.param_groups)
            plan._last_lr = [rate * share(plan.last_epoch) for share in plan.lr_lambdas]
            for group, now in zip(optimizer.param_groups, plan._last_lr, strict=True):
                group["initial_lr"], group["lr"] = rate, now

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        spoilt = [name for name, weight in self.unwrapped.named_parameters() if _is_spoilt(weight)]
        if self._largest(len(spoilt)):
            names = f" ({len(spoilt)} tensors, {spoilt[0]} among them)" if spoilt else ""
            raise AlignmentError(
                f"after step {self.state.global_step} weights are not finite{names}. Training has stopped: "
                f"{self._remedy()}"
            )
        super()._save_checkpoint(model, trial)
        if processes() > 1:
            dist.barrier()  # each process has written its random state
        if self.args.should_save:
            write_json(self._newest / WHOLE, {"step": self.state.global_step})
            self._unproven = True

    @property
    def _newest(self) -> Path:
        """The checkpoint of the step just done."""
        return self.folder / f"{PREFIX}{self.state.global_step}"

    def _prove(self) -> None:
        """The first step after a checkpoint has finite losses: older ones are not needed any more."""
        if self._unproven and self.args.should_save:
            for older in checkpoints(self.folder)[:-1]:
                remove_checkpoint(older)
        self._unproven = False

    def continue_training(self) -> None:
        """Train from the last whole checkpoint of the output folder, or from the start."""
        folder = self.folder
        for cut_short in sorted(folder.glob(f"{PREFIX}*")):
            if self.args.should_save and not (cut_short / WHOLE).exists():
                remove_checkpoint(cut_short)
        found = checkpoints(folder)
        if found:
            logger.info(f"continuing alignment after step {_step(found[-1])}")
        self.train(resume_from_checkpoint=str(found[-1]) if found else None)

    def delete_checkpoints(self) -> None:
        """The result is written, and nothing is left to continue. TensorBoard's events, beside them, stay."""
        for checkpoint in checkpoints(self.folder):
            remove_checkpoint(checkpoint)


def _is_spoilt(weight: torch.Tensor) -> bool:
    return weight.requires_grad and not bool(torch.isfinite(weight).all())


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if (path / WHOLE).exists()]
    return sorted(found, key=_step)


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, if it is there; what says that it is whole goes first, in case of a kill in between."""
    (folder / WHOLE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))
