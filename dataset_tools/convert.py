"""The steps from raw rows to a data set that every source shares: rules, repeated pairs, k-core, order.

A source stages its rows block by block, per atomic file and with the contract's column names; numbers may still be
text. Every row says where it comes from in `_file` and `_line` (see `Problems`), rows come in source order. None is
dropped uncounted. Memory is bounded, whatever the number of rows.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from dataset_tools import __version__
from dataset_tools.database import NO_ROOM
from dataset_tools.engine import MEMORY_GB, Engine
from dataset_tools.errors import DataToolError
from dataset_tools.schema import ATOMIC_FILES
from dataset_tools.stage import Stage, identity_of
from dataset_tools.writer import check_target, write_dataset


@dataclass(frozen=True)
class Options:
    """What the user may choose for every source."""

    repeat: Literal["first", "all"] = "first"
    min_user_inter: int = 0
    min_item_inter: int = 0
    on_error: Literal["fail", "skip"] = "fail"


@dataclass(frozen=True)
class Machine:
    """What the conversion may use; nothing that is written depends on it."""

    temp: Path | None = None  # folder for the work folder; None: beside the data set
    memory: float = MEMORY_GB  # gigabytes for sorting and joining, beyond which the disk is used


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command-line arguments of `Options`, and of the folder to write."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; its name becomes the data set's name")
    parser.add_argument(
        "--repeat",
        choices=("first", "all"),
        default="first",
        help="a (user, video) pair that occurs again: keep the first, or all (default: first)",
    )
    parser.add_argument(
        "--min-user-inter",
        type=_count,
        default=0,
        metavar="N",
        help="drop users with fewer video interactions than N; with --min-item-inter a k-core (default: 0, off)",
    )
    parser.add_argument(
        "--min-item-inter",
        type=_count,
        default=0,
        metavar="N",
        help="drop videos with fewer interactions than N (default: 0, off); those with comment interactions only stay",
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="faulty rows: stop and list them all, or drop and count them (default: fail)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write into a folder that holds other files too; they stay, an older data set of that name is replaced",
    )
    parser.add_argument("--temp", type=Path, metavar="DIR", help="folder for temporary files (default: beside OUT)")
    parser.add_argument(
        "--memory",
        type=_gigabytes,
        default=MEMORY_GB,
        metavar="GB",
        help="memory for sorting and joining before the disk is used; reading takes about 1 GB besides (default: "
        f"{MEMORY_GB:g})",
    )


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.25 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of gigabytes (0.25 or more)")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a count (0, 1, 2, …)")
    return int(text)


def options_of(args: argparse.Namespace) -> Options:
    """`Options` from parsed arguments."""
    return Options(args.repeat, args.min_user_inter, args.min_item_inter, args.on_error)


def machine_of(args: argparse.Namespace) -> Machine:
    """`Machine` from parsed arguments."""
    return Machine(args.temp, args.memory)


class Conversion:
    """One data set on its way from raw rows to its folder; made by `conversion`."""

    def __init__(
        self, stage: Stage, options: Options, write: Callable[[Engine, dict[str, int]], None], memory: float
    ) -> None:
        self.stage, self.options = stage, options
        self.problems, self.notes = stage.problems, stage.notes
        self._write, self._memory = write, memory

    @property
    def cascades(self) -> bool:
        """Whether rows go because the row that they refer to went: if faults are dropped."""
        return self.options.on_error == "skip"

    def finish(self, derive: Callable[[Engine], None] | None = None) -> None:
        """Check, filter, order and write what was staged; `derive` makes further tables of it first.

        Raises:
            DataToolError: every fault found, where `on_error` is `fail`; the folder cannot be written.
        """
        for suffix, file in ATOMIC_FILES.items():
            if file.required and derive is None:
                self.stage.add_empty(suffix)
        with (
            Engine(self.stage, memory=self._memory) as engine,
            tqdm(total=5, desc="keys", unit=" steps", disable=None, leave=False) as bar,
        ):
            if derive is not None:
                derive(engine)
            engine.check_keys()
            engine.check_references(cascades=self.cascades)
            self.problems.settle(self.options.on_error)
            _next(bar, "repeated pairs")
            core: dict[str, int] = {}
            chosen = self.options
            if chosen.repeat == "first" or chosen.min_user_inter > 1 or chosen.min_item_inter > 0:
                engine.number_events()
                if chosen.repeat == "first":
                    engine.drop_repeats()
                _next(bar, "k-core")
                core = engine.k_core(chosen.min_user_inter, chosen.min_item_inter)
            if not engine.number("SELECT count(*) FROM inter"):
                raise DataToolError(
                    "no video interaction is left, nothing was written; are the files whole, the positives, days and "
                    "users chosen, and the minimum counts, what they should be?"
                )
            _next(bar, "writing")
            self._write(engine, core)


def _next(bar: tqdm, what: str) -> None:
    bar.set_description(what)
    bar.update()


@contextmanager
def conversion(
    out: Path,
    *,
    source: str,
    files: Sequence[Path],
    options: Options,
    source_options: Mapping[str, Any],
    machine: Machine | None = None,
    overwrite: bool = False,
) -> Iterator[Conversion]:
    """A conversion into the folder `out`, with a work folder that vanishes at the end, but for an interrupted run.

    `source_options` are plain data, `files` the raw files; with the source and the version they decide whether the
    parts of an interrupted run are used again.

    Raises:
        DataToolError: `out` cannot be replaced, or another process is converting into it.
    """
    check_target(out, overwrite=overwrite)
    machine = machine or Machine()
    target = out.resolve()
    parent, name = target.parent, f".{target.name}.converting"
    if machine.temp is not None:  # where another data set may have this name
        parent = machine.temp.resolve()
        name = f".{target.name}.{hashlib.blake2b(str(target).encode(), digest_size=4).hexdigest()}.converting"
    job = {"source": source, "options": source_options, "files": identity_of(files), "version": __version__}

    def write(engine: Engine, core: dict[str, int]) -> None:
        meta = {
            "source": source,
            "raw_files": [Path(file).name for file in engine.problems.files],
            "options": {**source_options, **asdict(options)},
            "dropped": engine.problems.totals(),
            "k_core": core,
            "notes": dict(engine.stage.notes),
        }
        write_dataset(out, {suffix: engine.table(suffix) for suffix in engine.suffixes}, meta=meta, overwrite=overwrite)

    try:
        with Stage(parent / name, job) as stage:
            yield Conversion(stage, options, write, machine.memory)
    except KeyboardInterrupt as stop:
        stop.add_note(f"the same command goes on where it stopped, by {parent / name}")
        raise
    except NO_ROOM as error:
        raise DataToolError(
            f"the conversion stopped, nothing was written: {str(error).splitlines()[0]} (temporary files in {parent}: "
            "free space there, name another folder with --temp, or give more --memory)"
        ) from error
