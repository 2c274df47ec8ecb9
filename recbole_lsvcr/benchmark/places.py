"""Where the cells of a benchmark find, and leave, what several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from recbole_lsvcr.alignment.config import load_alignment_config
from recbole_lsvcr.alignment.identity import ALIGNED, seed_of
from recbole_lsvcr.benchmark.arms import Arm
from recbole_lsvcr.benchmark.cell import SHARED_FOLDERS, TEXT_SETTINGS
from recbole_lsvcr.config import defaults_of
from recbole_lsvcr.encoding.store import MANIFEST, TextStore
from recbole_lsvcr.model.sr import SRConfig

# What decides an alignment (`alignment.identity`) beside its own settings, its seed, the data and the split.
_DECISIVE = (*(one.name for one in fields(SRConfig)), "MAX_ITEM_LIST_LENGTH", "MAX_RECORD_LIST_LENGTH", "record_gap")


class Places:
    """The folders of a benchmark's cells. Those that the configuration names (`alignment_folder`, `text_store`) hold
    what it asks for; cells that differ from it in what such a folder depends on have one below the working folder.

    Args:
        given: places of the configuration. settings: its settings of all models. ours: the arms it is about by task,
            untuned. work: the working folder. seed: of an alignment for all seeds, where there is none yet.

    Raises:
        CheckpointError, StoreError: the alignment or the text store named is damaged.
    """

    def __init__(
        self, given: Mapping[str, Any], settings: Mapping[str, Any], ours: Mapping[str, Arm], work: Path, seed: int
    ) -> None:
        self.given, self.settings, self.ours = given, settings, ours
        self.shared = {name: str(work / name) for name in SHARED_FOLDERS}
        folder, store = given.get("alignment_folder"), given.get("text_store")
        known = seed_of(Path(folder) / ALIGNED) if folder else None
        self.alignment_seed = seed if known is None else known
        there = bool(store) and (Path(str(store)) / MANIFEST).exists()
        self.store_is_aligned = there and "alignment" in TextStore.open(Path(str(store))).manifest
        self._defaults: dict[str, dict[str, Any]] = {}

    def of(self, arm: Arm, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The places of an arm's cell with these parameters, tuned ones among them."""
        places = {**self.given, **self.shared}
        aligned = arm.aligns and bool(parameters.get("alignment"))
        in_folder = aligned and bool(self.given.get("alignment_folder")) and self._is_aligned_alike(arm, parameters)
        if not in_folder:
            places.pop("alignment_folder", None)
        if aligned and self.given.get("alignment_folder") and parameters.get("alignment_seed") is None:
            places["alignment_seed"] = self.alignment_seed  # one alignment serves every seed
        fits = in_folder if self.store_is_aligned else not aligned
        mine, known = self._whole(arm, parameters), self._whole(arm, self.settings)
        if not fits or any(mine[name] != known[name] for name in TEXT_SETTINGS):
            places.pop("text_store", None)
        return places

    def _is_aligned_alike(self, arm: Arm, parameters: Mapping[str, Any]) -> bool:
        ours = self.ours[arm.task]
        mine, known = self._whole(arm, parameters), self._whole(ours, ours.parameters)
        return bool(known["alignment"]) and self._of_an_alignment(mine) == self._of_an_alignment(known)

    def _of_an_alignment(self, whole: Mapping[str, Any]) -> list[Any]:
        seed = self.alignment_seed if whole["alignment_seed"] is None else whole["alignment_seed"]
        return [seed, load_alignment_config(whole["alignment"]), *(whole.get(name) for name in _DECISIVE)]

    def _whole(self, arm: Arm, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters over the defaults of the arm's model."""
        if arm.model not in self._defaults:
            self._defaults[arm.model] = defaults_of(arm.model)
        whole = {**self._defaults[arm.model], **parameters}
        whole["MAX_RECORD_LIST_LENGTH"] = whole["MAX_RECORD_LIST_LENGTH"] or whole["MAX_ITEM_LIST_LENGTH"]
        return whole
