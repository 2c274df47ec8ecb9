"""`LSVCRTrainer`: RecBole's trainer on the joint data set, with exact resumption and one ranked list per instance."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from recbole.trainer import Trainer
from recbole.trainer import trainer as recbole_trainer
from recbole.utils import set_color
from torch.utils.tensorboard import SummaryWriter

from recbole_lsvcr.checkpoint import load_checkpoint, refuse_other_texts, save_checkpoint
from recbole_lsvcr.config import plain
from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.data.loader import CommentEvalLoader, EvalLoader, JointEvalLoader
from recbole_lsvcr.data.splits import PHASES
from recbole_lsvcr.environment import peak_memory
from recbole_lsvcr.errors import CheckpointError, EvaluationError
from recbole_lsvcr.evaluation import EvaluationResult, Protocol, evaluate
from recbole_lsvcr.evaluation.collector import needs_items
from recbole_lsvcr.scorer import scorer_of

# Settings that change neither what is learned nor from what: a run may be continued with other values of these.
FREE_TO_CHANGE = frozenset(
    {
        "output",
        "stage",
        "task",
        "protocols",
        "comment_protocols",
        "report_phases",
        "save_instances",
        "show_progress",
        "state",
        "data_path",
        "checkpoint_dir",
        "gpu_id",
        "use_gpu",
        "device",
        "worker",
        "eval_batch_size",
        "pairs_at_once",
        "text_store",
        "alignment_folder",
        "text_batch_tokens",
        "log_wandb",
        "epochs",
        "trust_remote_code",
        "benchmark",
        "seeds",
        "tune",
        "model_settings",
        "pre_model_path",  # known by the weights in it
    }
)


def ranking_settings(config: Any) -> dict[str, Any]:
    """What of a configuration decides how `evaluate` ranks, beside phase and protocols."""
    return {
        "topk": tuple(config["topk"]),
        "seed": int(config["candidate_seed"] or 0),
        "longest": int(config["comment_list_limit"] or 0),
    }


def selection_protocol(config: Any, *, comments: bool, phase: str = "valid") -> Protocol:
    """The protocol of model selection: `valid_protocol` (for comments `comment_valid_protocol`), else RecBole's
    `eval_args.mode` of the phase.

    Raises:
        ConfigError: a mode that does not rank.
    """
    chosen = config["comment_valid_protocol" if comments else "valid_protocol"]
    if chosen:
        return Protocol.parse(chosen, sample_num=config["sample_num"] or 99)
    return Protocol.of_mode(config["eval_args"]["mode"][phase], "available" if comments else "all")


@contextmanager
def _all_in_output(config: Any) -> Iterator[None]:
    """Within it RecBole's `Trainer` makes its folders in the output folder, where there is one, instead of the working
    directory."""
    if not config["output"]:
        yield
        return
    folder = Path(config["output"]) / str(config["model"])
    config["checkpoint_dir"] = str(folder)
    recboles = recbole_trainer.get_tensorboard
    recbole_trainer.get_tensorboard = lambda logger: SummaryWriter(folder / "tensorboard")
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = recboles


class LSVCRTrainer(Trainer):
    """Trains any sequential or context-aware model of RecBole on a `JointDataset`, ranks every instance on its own.

    Against RecBole's `Trainer`: an epoch depends on (seed, epoch) alone and its end is saved whole (`last_file`), so
    that a killed run continues and ends as an undisturbed one; early stopping asks for a strictly better score (method:
    RecBole counts ties as better); scores are not rounded; rankings follow a protocol with stored candidates.
    """

    best_valid_score: float
    best_valid_result: dict[str, float] | None
    last_file: Path | None = None  # set by the pipeline: the checkpoint from which a killed run continues
    candidates_dir: Path | None = None

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        with _all_in_output(config):
            super().__init__(config, model)
        self.history: list[dict[str, Any]] = []
        self.finished = False

    def valid_protocol(self, data: EvalLoader) -> Protocol:
        """The protocol of model selection; see `selection_protocol`."""
        return selection_protocol(self.config, comments=data._dataset.kind == "comment", phase=PHASES[data.phase])

    def fit(
        self,
        train_data: Any,
        valid_data: JointEvalLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train until `epochs` or early stopping; see RecBole's `Trainer.fit` for the arguments and the result.

        Raises:
            EvaluationError: the loss is not a number. CheckpointError: `last_file` belongs to another run.
        """
        if not isinstance(train_data.dataset, JointDataset):
            return super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        self.eval_collector.data_collect(train_data)
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        self.data_identity = {**getattr(self, "data_identity", {}), **train_data.dataset.identity}
        self._continue(verbose)
        for epoch in range(self.start_epoch, self.epochs):
            if self.finished:
                break
            self._run_epoch(epoch, train_data, valid_data, verbose, saved, show_progress, callback_fn)
        if saved and self.start_epoch == 0 and self.epochs == 0:
            self._save_checkpoint(-1, verbose=verbose)
        self.finished = True
        self._save_last(self.epochs - 1 if not self.history else self.history[-1]["epoch"])
        self._add_hparam_to_tensorboard(self.best_valid_score)
        return self.best_valid_score, self.best_valid_result

    def _run_epoch(
        self,
        epoch: int,
        train_data: Any,
        valid_data: JointEvalLoader | None,
        verbose: bool,
        saved: bool,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None,
    ) -> None:
        self._seed(epoch)
        train_data.set_epoch(epoch)
        started = perf_counter()
        losses = self._train_epoch(train_data, epoch, show_progress=show_progress)
        seconds = perf_counter() - started
        steps = max(len(train_data), 1)
        parts = [float(loss) / steps for loss in losses] if isinstance(losses, tuple) else [float(losses) / steps]
        self.train_loss_dict[epoch] = sum(parts)
        entry: dict[str, Any] = {"epoch": epoch, "losses": parts, "train_seconds": round(seconds, 3)}
        self._add_train_loss_to_tensorboard(epoch, tuple(parts))
        improved = valid_data is None or self.eval_step <= 0
        if not improved and (epoch + 1) % self.eval_step == 0:
            improved = self._validate(epoch, valid_data, entry, show_progress)
            if callback_fn:
                callback_fn(epoch, entry["valid_score"])
        self.history.append(entry | peak_memory())
        if verbose:
            self._log_epoch(entry, improved)
        if improved and saved:
            self._save_checkpoint(epoch, verbose=False)
        self._save_last(epoch)

    def _validate(
        self, epoch: int, valid_data: JointEvalLoader | None, entry: dict[str, Any], show_progress: bool
    ) -> bool:
        started = perf_counter()
        score, result = self._valid_epoch(valid_data, show_progress=show_progress)
        entry |= {"valid_score": score, "valid": dict(result), "valid_seconds": round(perf_counter() - started, 3)}
        self.tensorboard.add_scalar("Valid_score", score, epoch)
        better = score > self.best_valid_score if self.valid_metric_bigger else score < self.best_valid_score
        if better:
            self.best_valid_score, self.best_valid_result, self.cur_step = score, result, 0
        else:
            self.cur_step += 1
            self.finished = self.cur_step > self.stopping_step
        return better

    def _log_epoch(self, entry: dict[str, Any], improved: bool) -> None:
        losses = " + ".join(f"{loss:.4f}" for loss in entry["losses"])
        text = set_color(f"epoch {entry['epoch']:>3}", "green") + f"  loss {losses}  [{entry['train_seconds']:.1f} s]"
        if "valid_score" in entry:
            text += (
                f"  valid {self.config['valid_metric']} {entry['valid_score']:.4f}  [{entry['valid_seconds']:.1f} s]"
                + ("  *" if improved else "")
            )
        self.logger.info(text)

    def _seed(self, epoch: int) -> None:
        """Make the epoch's random numbers a function of (seed, epoch), whatever ran before."""
        value = (int(self.config["seed"]) * 1_000_003 + epoch) % 2**31
        random.seed(value)
        np.random.seed(value)  # noqa: NPY002 - RecBole's samplers and transforms draw from the global generators
        torch.manual_seed(value)

    def _check_nan(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise EvaluationError(
                f"the training loss of {self.config['model']} became {loss.item()}; lower learning_rate (now "
                f"{self.learning_rate}) or set clip_grad_norm"
            )

    # ------------------------------------------------------------------ ranking

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> Any:
        """RecBole's metrics of one phase under the protocol of model selection, as `{'recall@5': …}`.

        Raises:
            EvaluationError: a score is NaN or infinite. CheckpointError: the checkpoint cannot be loaded.
        """
        if not isinstance(eval_data, JointEvalLoader | CommentEvalLoader):
            return super().evaluate(eval_data, load_best_model, model_file, show_progress)
        if load_best_model:
            self.data_identity = {**getattr(self, "data_identity", {}), **eval_data._dataset.identity}
            self.load_best(model_file or self.saved_model_file)
        result = self.rank(eval_data, [self.valid_protocol(eval_data)], slices=False, show_progress=show_progress)
        return OrderedDict(result.recbole_metrics(self.config))

    def rank(
        self, data: EvalLoader, protocols: Sequence[Protocol], *, slices: bool = True, show_progress: bool = False
    ) -> EvaluationResult:
        """Rank every instance of a phase under several protocols in one pass of the model."""
        self.model.eval()
        dataset = data._dataset
        keep_items = dataset.kind == "video" and any(map(needs_items, self.config["metrics"]))
        return evaluate(
            scorer_of(self.model, dataset, self.device),
            dataset.joint,
            dataset.kind,
            data.phase,
            protocols,
            candidates_dir=self.candidates_dir,
            batch_size=self.test_batch_size,
            slices=slices,
            top_items=max(self.config["topk"]) if keep_items else 0,
            progress=show_progress,
            **ranking_settings(self.config),
        )

    # ------------------------------------------------------------------ checkpoints

    def _run_settings(self) -> dict[str, Any]:
        return {
            key: plain(value)
            for key, value in sorted(self.config.final_config_dict.items())
            if key not in FREE_TO_CHANGE
        }

    def _other_parameters(self) -> dict[str, Any]:
        """RecBole's extra state of a model; layers among it (FDSA lists one) are in `state_dict` anyway."""
        return {
            key: value for key, value in self.model.other_parameter().items() if not isinstance(value, torch.nn.Module)
        }

    def _save_last(self, epoch: int) -> None:
        if self.last_file is None:
            return
        state = {
            "settings": self._run_settings(),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": dict(self.best_valid_result or {}),
            "finished": self.finished,
            "history": self.history,
            "state_dict": self.model.state_dict(),
            "other_parameter": self._other_parameters(),
            "optimizer": self.optimizer.state_dict(),
            **self.data_identity,
        }
        save_checkpoint(self.last_file, state)

    def _continue(self, verbose: bool) -> None:
        """Take up the run that `last_file` holds, if there is one."""
        if self.last_file is None or not self.last_file.exists():
            return
        state = load_checkpoint(self.last_file, map_location="cpu")  # Adam counts its steps where they were loaded
        self._refuse_other_run(state)
        self.model.load_state_dict(state["state_dict"])
        self.model.load_other_parameter(state["other_parameter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.start_epoch = state["epoch"] + 1
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.best_valid_result = state["best_valid_result"] or None
        self.history = state["history"]
        # More epochs than before may be asked for; early stopping stays decided.
        self.finished = state["finished"] and (self.cur_step > self.stopping_step or self.start_epoch >= self.epochs)
        if verbose:
            self.logger.info(
                f"continuing after epoch {state['epoch']} of {self.last_file}"
                + (" (finished)" if self.finished else "")
            )

    def _refuse_other_run(self, state: dict[str, Any]) -> None:
        if state["data"] != self.data_identity["data"]:
            raise CheckpointError(
                f"{self.last_file} was trained on another data set (its files differ); use another --output, or "
                "remove the folder"
            )
        mine, theirs = self._run_settings(), state["settings"]
        differing = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
        if differing:
            shown = ", ".join(f"{key}: {theirs.get(key)!r} there, {mine.get(key)!r} here" for key in differing[:5])
            raise CheckpointError(
                f"{self.last_file} belongs to a run with other settings ({shown}); use another --output, or "
                "remove the folder"
            )
        refuse_other_texts(self.last_file, state, self.data_identity)
        if state.get("start") != self.data_identity.get("start"):
            raise CheckpointError(
                f"{self.last_file} was fine-tuned from other pre-trained weights; give those, use another --output, or "
                "remove the folder"
            )

    def load_best(self, file: str | Path) -> None:
        """Load a model checkpoint after checking that it is of this model and data set.

        Raises:
            CheckpointError: missing, unsafe or damaged, of another model, of another data set.
        """
        state = load_checkpoint(file, map_location=self.device)
        saved = state.get("config", state.get("settings", {}))
        for key in ("model", "dataset"):
            if key in saved and saved[key] != self.config[key]:
                raise CheckpointError(
                    f"{file} holds {key} '{saved[key]}', but this run is of {key} '{self.config[key]}'; give "
                    f"the checkpoint of this {key}"
                )
        identity = getattr(self, "data_identity", {})
        if "data" in state and "data" in identity and state["data"] != identity["data"]:
            raise CheckpointError(
                f"{file} was trained on another version of data set '{self.config['dataset']}' (its files "
                "differ); train again on this one"
            )
        refuse_other_texts(file, state, identity)
        try:
            self.model.load_state_dict(state["state_dict"])
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{file} does not fit this model: {reason}; use the configuration it was trained with"
            ) from error
        self.model.load_other_parameter(state.get("other_parameter"))

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if not hasattr(self, "data_identity"):
            super()._save_checkpoint(epoch, verbose=verbose, **kwargs)
            return
        state = {
            "config": plain(self.config.final_config_dict),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.model.state_dict(),
            "other_parameter": self._other_parameters(),
            "optimizer": self.optimizer.state_dict(),
            **self.data_identity,
        }
        save_checkpoint(kwargs.pop("saved_model_file", self.saved_model_file), state)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {self.saved_model_file}")
