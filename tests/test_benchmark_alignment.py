"""Cells of a benchmark that align: what they share in their folders, trained for real (all else is in
`test_benchmark_presets`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, TINY_ALIGNMENT, Make

from recbole_lsvcr.benchmark.cell import SHARED_FOLDERS, Cell, run_cell
from recbole_lsvcr.pipeline import Run


@pytest.fixture(scope="module")
def computed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder of three cells, and each one's content by its setting: `no-reg` is another fine-tuning of the
    alignment of `main`, `no-ssc` another alignment."""
    folder, found = tmp_path_factory.mktemp("aligned"), {}
    settings = {key: value for key, value in TINY.items() if key not in ("dataset", "seed")}
    aligned = {**TINY_ALIGNMENT, "steps": 2, "llm": "corpus"}
    places = {name: str(folder / name) for name in SHARED_FOLDERS} | {"data_path": str(tiny_data)}
    for setting, changes in (
        ("main", {"alignment": aligned}),
        ("no-reg", {"alignment": aligned, "id_text_weight": 0.0}),
        ("no-ssc", {"alignment": {**aligned, "ssc": False}}),
    ):
        parameters = {**settings, "dataset": "tiny", "epochs": 1, **changes}
        cell = Cell("LSVCR", setting, 1, parameters, data="tiny", arm=setting, places=places)
        found[setting] = run_cell(cell, folder / "cells", folder / "work")
    return folder, found


def test_every_cell_is_aligned_and_ranked(computed: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    for setting, cell in computed[1].items():
        assert cell["status"] == "done", f"{setting}: {cell.get('reason')}"
        assert cell["phases"]["test"]["protocols"]["all+full"]["metrics"]["mrr"] > 0
        assert ("ssc" in cell["alignment"]["held_out"]) == (setting != "no-ssc")


def test_one_alignment_serves_what_it_decides_and_one_language_model_all(
    computed: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    folder, found = computed
    names = [entry.name for entry in (folder / "alignments").iterdir() if entry.is_dir()]
    assert len([name for name in names if name.startswith("corpus-")]) == 1 and len(names) == 3
    assert (
        found["main"]["alignment"]["log"] == found["no-reg"]["alignment"]["log"] != found["no-ssc"]["alignment"]["log"]
    )
    assert not list((folder / "work").glob("*/alignment"))
    assert len(list((folder / "stores").iterdir())) == 2


def test_a_job_is_of_the_folders_that_are_named_by_then(tiny_config: Make, tmp_path: Path) -> None:
    run = Run(tiny_config(alignment=TINY_ALIGNMENT))
    assert (run.alignment.folder, run.alignment.corpus) == (run.folder / "alignment", None)
    run.config["alignment_folder"], run.corpus_lm = str(tmp_path / "shared"), tmp_path / "corpus"
    assert (run.alignment.folder, run.alignment.corpus) == (tmp_path / "shared", tmp_path / "corpus")
