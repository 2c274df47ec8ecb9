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
from recbole_lsvcr.encoding.store import MANIFEST, TextStore
from recbole_lsvcr.model.sr import SRConfig

# What decides an alignment beside its own settings, the data and the split.
_OF_THE_MODEL = (*(one.name for one in fields(SRConfig)), "MAX_ITEM_LIST_LENGTH", "MAX_RECORD_LIST_LENGTH")
_OF_THE_DATA = ("record_gap", "popular_top")


class Places:
    """The folders of a benchmark's cells. Those that the configuration names (`alignment_folder`, `text_store`) hold
    what it asks for; cells that differ from it in what such a folder depends on have one below the working folder.

    Args:
        given: places of the configuration. settings: its settings of all models. ours: the arm it is about, untuned.
        work: the working folder. seed: of an alignment for all seeds, where there is none yet.

    Raises:
        CheckpointError, StoreError: the alignment or the text store named is damaged.
    """

    def __init__(self, given: Mapping[str, Any], settings: Mapping[str, Any], ours: Arm, work: Path, seed: int) -> None:
        self.given, self.settings, self.ours = given, settings, ours
        self.shared = {name: str(work / name) for name in SHARED_FOLDERS}
        folder, store = given.get("alignment_folder"), given.get("text_store")
        known = seed_of(Path(folder) / ALIGNED) if folder else None
        self.alignment_seed = seed if known is None else known
        there = bool(store) and (Path(str(store)) / MANIFEST).exists()
        self.store_is_aligned = there and bool(TextStore.open(Path(str(store))).manifest.get("aligned", False))

    def of(self, arm: Arm, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The places of an arm's cell with these parameters, tuned ones among them."""
        places = {**self.given, **self.shared}
        aligned = arm.aligns and bool(parameters.get("alignment"))
        in_folder = aligned and bool(self.given.get("alignment_folder")) and self._is_aligned_alike(parameters)
        if not in_folder:
            places.pop("alignment_folder", None)
        if aligned and self.given.get("alignment_folder") and parameters.get("alignment_seed") is None:
            places["alignment_seed"] = self.alignment_seed  # one alignment serves every seed
        fits = in_folder if self.store_is_aligned else not aligned
        if not fits or any(parameters.get(name) != self.settings.get(name) for name in TEXT_SETTINGS):
            places.pop("text_store", None)
        return places

    def _is_aligned_alike(self, parameters: Mapping[str, Any]) -> bool:
        known = self.ours.parameters
        return (
            bool(known.get("alignment"))
            and load_alignment_config(parameters["alignment"]) == load_alignment_config(known["alignment"])
            and all(parameters.get(name) == known.get(name) for name in (*_OF_THE_MODEL, *_OF_THE_DATA))
        )
