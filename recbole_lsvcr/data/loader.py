"""RecBole data loaders over the joint data set: training batches that repeat exactly, one evaluation list per
instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader

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
