"""RecBole data loaders over the joint data set: training batches that repeat exactly, one evaluation list per
instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader, TrainDataLoader
from recbole.data.interaction import Interaction

from recbole_lsvcr.data.dataset import JointDataset


class JointTrainLoader(TrainDataLoader):
    """RecBole's training loader whose order and random comments depend on (seed, epoch) only, so a resumed epoch
    equals an undisturbed one.
    """

    def __init__(self, config: Any, dataset: JointDataset, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        self._next_epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass over the data that of `epoch` (counted up by itself otherwise)."""
        self._next_epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        self._dataset.set_epoch(self._next_epoch)
        if isinstance(self.generator, torch.Generator):
            self.generator.manual_seed(int(self.config["seed"]) * 1_000_003 + self._next_epoch)
        self._next_epoch += 1
        return super().__iter__()


class JointEvalLoader(FullSortEvalDataLoader):
    """One ranked list per instance, in RecBole's form: `(interaction, None, row [B], target item [B])`.

    RecBole's own `Trainer` can rank its full catalogue with it; `LSVCRTrainer` ranks by the configured protocol
    (stored candidates, available videos).
    """

    def __init__(self, config: Any, dataset: JointDataset, sampler: Any = None, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    @property
    def phase(self) -> int:
        """1 for validation, 2 for test."""
        return int(self._dataset.phase)


class CommentEvalLoader(AbstractDataLoader):
    """The comment instances of a phase, batch by batch, without candidates: `LSVCRTrainer` ranks them by protocol."""

    def __init__(self, config: Any, dataset: JointDataset, sampler: Any = None, shuffle: bool = False) -> None:
        self.sample_size = len(dataset)
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    def _init_batch_size_and_step(self) -> None:
        self.step = self.config["eval_batch_size"]
        self.set_batch_size(self.step)

    @property
    def phase(self) -> int:
        """1 for validation, 2 for test."""
        return int(self._dataset.phase)

    def collate_fn(self, index: Any) -> Interaction:
        """The instances `index` of the phase."""
        return self._dataset[np.asarray(index)]


EvalLoader = JointEvalLoader | CommentEvalLoader


def eval_loader(config: Any, dataset: JointDataset, sampler: Any = None) -> EvalLoader:
    """The loader of a validation or test phase, by what the data set's instances are."""
    return (CommentEvalLoader if dataset.kind == "comment" else JointEvalLoader)(config, dataset, sampler)
