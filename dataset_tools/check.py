"""Check a data set folder against every rule of the format, and say what is wrong with it, file and line.

Headers and types, width and quoting of every row, UTF-8, normalised texts, ids that RecBole can read, numbers, times,
order, unique and foreign keys, empty titles, the SHA-256 of each file in the meta file. Exit status 1 if anything is
wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from tqdm import tqdm

from dataset_tools.engine import Engine
from dataset_tools.errors import DataToolError, Violation
from dataset_tools.files import sha256_file
from dataset_tools.problems import Problems
from dataset_tools.schema import ATOMIC_FILES, SUFFIXES, parse_float, read_fields, read_header
from dataset_tools.stage import Stage
from dataset_tools.text import normalise

HELP = "validate a data set folder"
EXAMPLE = "lsvcr-data check dataset/mine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data check`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the data set's folder; its name is the data set's")


def run(args: argparse.Namespace) -> int:
    """Print every kind of violation, or that there is none."""
    violations = check(args.folder)
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    total = sum(violation.count for violation in violations)
    verdict = f"{total:,} violations of {len(violations)} kinds" if violations else "sound"
    sys.stdout.write(f"{args.folder}: {verdict}\n")
    return 1 if violations else 0


def check(folder: Path) -> list[Violation]:
    """Every kind of violation in a data set folder, per file; empty for a sound one.

    Raises `DataToolError` if `folder` is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataToolError(f"{folder} is not a folder; give the folder of a data set")
    name = folder.resolve().name
    with tempfile.TemporaryDirectory(prefix="lsvcr-check-") as work, Stage(Path(work) / "stage", {}) as stage:
        problems = stage.problems
        for suffix in tqdm(SUFFIXES, desc="checking", unit=" files", disable=None):
            path = folder / f"{name}.{suffix}"
            if path.exists():
                _read(path, suffix, stage)
            elif ATOMIC_FILES[suffix].required:
                problems.add("missing file", problems.open_file(path.name), None)
        with Engine(stage) as engine:
            engine.check_keys()
            engine.check_references(cascades=False)
            for suffix in sorted({"inter", "cinter"} & set(engine.suffixes), reverse=True):
                early = f"SELECT _row FROM {suffix} QUALIFY timestamp < lag(timestamp) OVER (ORDER BY _row)"
                engine.fault(suffix, early, f".{suffix} is not in the order of time", ["timestamp"])
    _check_settings(folder / f"{name}.yaml", folder, problems)
    _check_meta(folder / f"{name}.meta.json", folder, problems)
    return problems.violations()


def _read(path: Path, suffix: str, stage: Stage) -> None:
    """Stage the table if it can be read and has the columns it needs."""
    problems = stage.problems
    file = problems.open_file(path.name)
    fields = ATOMIC_FILES[suffix].fields
    try:
        header = read_header(path)
        table = read_fields(path, list(header))
    except DataToolError as error:
        problems.add("file that cannot be read", file, None, str(error).partition(": ")[2] or str(error))
        return
    with open(path, "rb") as handle:
        handle.seek(-1, 2)
        if handle.read(1) != b"\n":
            problems.add("last line without line break (is the file cut short?)", file, table.height + 1)
    wrong = [name for name, kind in header.items() if name in fields and fields[name].type != kind]
    for name in wrong:
        problems.add("column of the wrong type", file, 1, f"{name}:{header[name]}, expected {fields[name].type}")
    lacking = [name for name, field in fields.items() if field.required and name not in header]
    for name in lacking:
        problems.add("missing column", file, 1, f"{name}:{fields[name].type}")
    table = table.with_columns(_file=pl.lit(file, pl.UInt32), _line=pl.int_range(2, pl.len() + 2))
    for name, kind in header.items():
        if kind == "float" and name not in fields:
            bad = (pl.col(name) != "") & parse_float(name).is_null()
            problems.add_rows(f"malformed number in .{suffix}", table.filter(bad), [name])
        if kind != "float":
            odd = table.filter(pl.col(name) != normalise(pl.col(name)))
            problems.add_rows(f"{name} that is not normalised (blanks, control characters)", odd, [name])
    if not wrong and not lacking:
        stage.add(suffix, table)


def _check_settings(path: Path, folder: Path, problems: Problems) -> None:
    file = problems.open_file(path.name)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        columns = {str(suffix): [str(name) for name in names] for suffix, names in settings["load_col"].items()}
    except FileNotFoundError:
        problems.add("missing file", file, None, "stock RecBole needs it")
        return
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problems.add("RecBole settings without load_col", file, None, " ".join(str(error).split()))
        return
    for suffix, names in columns.items():
        try:
            header = read_header(folder / f"{path.stem}.{suffix}")
        except (DataToolError, ValueError):  # ValueError: a name with NUL
            header = {}
        for name in names:
            if name not in header:
                problems.add("load_col names a column that is not there", file, None, f"{suffix}: {name}")


def _check_meta(path: Path, folder: Path, problems: Problems) -> None:
    file = problems.open_file(path.name)
    try:
        meta: Any = json.loads(path.read_text(encoding="utf-8"))
        hashes = {str(name): value for name, value in dict(meta["files"]).items()}
    except FileNotFoundError:
        problems.add("missing file", file, None, "where the data come from is not known")
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problems.add("meta file without the SHA-256 of the files", file, None, str(error))
        return
    inside = {entry.name for entry in folder.iterdir() if entry.is_file()}
    there = {f"{folder.resolve().name}.{suffix}" for suffix in SUFFIXES} & inside
    for name in sorted(there | set(hashes)):
        if name not in inside:
            problems.add("file of the meta file that is missing", file, None, name)
        elif name not in hashes:
            problems.add("file that the meta file does not know", file, None, name)
        elif sha256_file(folder / name) != hashes[name]:
            problems.add("file that was changed since it was written (SHA-256)", file, None, name)
