"""One model for both tasks: `LSVCR` and `LSVCRComment` around the same SR model, their batches alternating."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from recbole.data.interaction import Interaction

from recbole_lsvcr.checkpoint import load_checkpoint
from recbole_lsvcr.data.dataset import CANDIDATES
from recbole_lsvcr.data.loader import EvalLoader, JointTrainLoader
from recbole_lsvcr.trainer import LSVCRTrainer


class BothLoader:
    """The batches of two training loaders, each once an epoch, spread evenly in an order that (seed, epoch) decides."""

    def __init__(self, videos: JointTrainLoader, comments: JointTrainLoader, seed: int) -> None:
        self.loaders = (videos, comments)
        self.dataset, self.shuffle, self.seed, self.epoch = videos.dataset, True, seed, 0

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of `epoch`."""
        self.epoch = epoch
        for loader in self.loaders:
            loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Interaction]:
        sizes = [len(loader) for loader in self.loaders]
        rng = np.random.default_rng([self.seed, self.epoch])
        # Each loader's batches at random places of even stretches of the epoch.
        places = np.concatenate([(np.arange(size) + rng.random(size)) / max(size, 1) for size in sizes])
        batches = [iter(loader) for loader in self.loaders]
        for which in np.repeat([0, 1], sizes)[np.argsort(places, kind="stable")]:
            yield next(batches[which])


class JointTrainer(LSVCRTrainer):
    """Trains one SR model on both tasks; its score is the mean of both validation scores.

    Make it with the video model, then call `join`. Every checkpoint is written twice, as the video model's and as the
    comment model's, so that evaluation and serving know nothing of the joint training, and a run of one task refuses
    the folder of a joint one, and the other way round.
    """

    partner: LSVCRTrainer

    def join(self, partner: LSVCRTrainer, valid: EvalLoader | None) -> None:
        """`partner`: the comment model's trainer, whose SR model is replaced by this one's; `valid`: its validation.

        Raises:
            CheckpointError: the comment model of another run is in its folder.
        """
        if partner.last_file is not None and partner.last_file.exists():
            partner._refuse_other_run(load_checkpoint(partner.last_file))
        partner.model.sr = self.model.sr
        self.partner, self.partner_valid = partner, valid

    def _loss(self, interaction: Interaction) -> Any:
        model = self.partner.model if CANDIDATES in interaction.columns else self.model
        return model.calculate_loss(interaction)

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        self.partner.model.train()
        return super()._train_epoch(train_data, epoch_idx, loss_func or self._loss, show_progress)

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(valid_data, show_progress=show_progress)
        if self.partner_valid is None:
            return score, result
        other, comments = self.partner._valid_epoch(self.partner_valid, show_progress=show_progress)
        return (score + other) / 2, {**result, **{f"comment {name}": value for name, value in comments.items()}}

    def _save_last(self, epoch: int) -> None:
        super()._save_last(epoch)
        self.partner._save_last(epoch)

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        super()._save_checkpoint(epoch, verbose=verbose, **kwargs)
        self.partner._save_checkpoint(epoch, verbose=False)
