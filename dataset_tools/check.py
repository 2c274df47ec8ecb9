"""Check a data set folder against every rule of the format, and say what is wrong with it, file and line.

Headers and types, width and quoting of every row, UTF-8, normalised texts, ids that RecBole can read, numbers, times,
order, unique and foreign keys, empty titles, the SHA-256 of each file in the meta file. A line that cannot be read is
one violation, and all others are judged. Memory is bounded: files are read in blocks, what needs the whole may use the
disk. Exit status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from tqdm import tqdm

from dataset_tools.atomic_blocks import read_atomic_blocks
from dataset_tools.database import NO_ROOM
from dataset_tools.engine import Engine
from dataset_tools.errors import DataToolError, Violation
from dataset_tools.files import sha256_file
from dataset_tools.problems import Problems
from dataset_tools.rules import lost_id
from dataset_tools.schema import ATOMIC_FILES, SUFFIXES, parse_float, read_header
from dataset_tools.stage import Stage, check_names
from dataset_tools.text import LOST_IDS, normalise

HELP = "validate a data set folder"
EXAMPLE = "lsvcr-data check dataset/mine"

_BLOCK_BYTES = 4 << 20
_OWN = ("_file", "_line", "_row")  # columns that say where a row stands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lsvcr-data check`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the data set's folder; its name is the data set's")
    parser.add_argument(
        "--temp", type=Path, metavar="DIR", help="folder for temporary files (default: the system's, see TMPDIR)"
    )


def run(args: argparse.Namespace) -> int:
    """Print every kind of violation, or that there is none."""
    violations = check(args.folder, temp=args.temp)
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    total = sum(violation.count for violation in violations)
    verdict = f"{total:,} violations of {len(violations)} kinds" if violations else "sound"
    sys.stdout.write(f"{args.folder}: {verdict}\n")
    return 1 if violations else 0


def check(folder: Path, *, temp: Path | None = None) -> list[Violation]:
    """Every kind of violation in a data set folder, per file; empty for a sound one.

    `temp`: where temporary files go, made if need be; some as much as the data set takes, and more for sorting.

    Raises `DataToolError` if `folder` is no folder, or there is no room for temporary files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataToolError(f"{folder} is not a folder; give the folder of a data set")
    name = folder.resolve().name
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in SUFFIXES}
    size = sum(path.stat().st_size for path in paths.values() if path.is_file())
    with _work_folder(temp) as work, Stage(work / "stage", {}) as stage:
        problems = stage.problems
        with tqdm(total=size, desc="checking", unit="B", unit_scale=True, disable=None) as bar:
            for suffix, path in paths.items():
                if path.exists():
                    _read(path, suffix, stage, bar.update)
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


@contextmanager
def _work_folder(temp: Path | None) -> Iterator[Path]:
    """An empty folder in `temp` that vanishes."""
    parent = Path(tempfile.gettempdir()) if temp is None else temp
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="lsvcr-check-", dir=parent) as work:
            yield Path(work)
    except NO_ROOM as error:
        raise DataToolError(
            f"the check stopped: {str(error).splitlines()[0]} (temporary files in {parent}: free space there, or name"
            " another folder with --temp)"
        ) from error


def _read(path: Path, suffix: str, stage: Stage, advance: Callable[[int], object]) -> None:
    """Stage the rows that can be read, if the table has the columns it needs."""
    problems = stage.problems
    file = problems.open_file(path.name)
    known = ATOMIC_FILES[suffix].fields
    try:
        header = read_header(path)
        fits = _check_header(header, suffix, file, problems)
        columns = [name for name in header if name not in _OWN]
        for rows in read_atomic_blocks(
            path, list(header), columns, problems, file, block_bytes=_BLOCK_BYTES, advance=advance
        ):
            _check_values(rows, {name: header[name] for name in columns}, suffix, problems)
            if fits:
                stage.add(suffix, rows.select(name for name in rows.columns if name in known or name in _OWN))
    except DataToolError as error:
        reason = str(error)
        for start in (f"{path}, ", f"{path}: ", f"cannot read {path}: "):
            reason = reason.removeprefix(start)
        problems.add("file that cannot be read", file, None, reason)
        return
    if fits and path.name not in {violation.file for violation in problems.violations()}:
        stage.add_empty(suffix)


def _check_header(header: Mapping[str, str], suffix: str, file: int, problems: Problems) -> bool:
    """Whether the contract's columns are there, with their types."""
    fields = ATOMIC_FILES[suffix].fields
    wrong = [name for name, kind in header.items() if name in fields and fields[name].type != kind]
    for name in wrong:
        problems.add("column of the wrong type", file, 1, f"{name}:{header[name]}, expected {fields[name].type}")
    lacking = [name for name, field in fields.items() if field.required and name not in header]
    for name in lacking:
        problems.add("missing column", file, 1, f"{name}:{fields[name].type}")
    try:
        check_names(suffix, header)
    except DataToolError as error:
        problems.add("column name that cannot be used", file, 1, str(error))
    for name in (name for name in _OWN if name in header):
        problems.add("column name that cannot be used", file, 1, f"{name} is taken")
    return not wrong and not lacking


def _check_values(rows: pl.DataFrame, header: Mapping[str, str], suffix: str, problems: Problems) -> None:
    """Numbers that the contract does not know, ids that may be missing, and texts."""
    for name, kind in header.items():
        if kind == "float" and name not in ATOMIC_FILES[suffix].fields:
            bad = (pl.col(name) != "") & parse_float(name).is_null()
            problems.add_rows(f"malformed number in .{suffix}", rows.filter(bad), [name])
        field = ATOMIC_FILES[suffix].fields.get(name)
        if field is not None and field.type == "token" and not field.required:
            lost = rows.filter(pl.col(name).is_in(list(LOST_IDS)))
            problems.add_rows(lost_id(name, suffix), lost, [name])
        if kind != "float":
            odd = rows.filter(pl.col(name) != normalise(pl.col(name)))
            problems.add_rows(f"{name} that is not normalised (blanks, control characters)", odd, [name])


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
