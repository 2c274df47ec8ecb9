"""Command line of recbole-lsvcr: `python run_lsvcr.py --config my.yaml` (installed as `lsvcr`)."""

from __future__ import annotations

import argparse
import errno
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EPILOG = """\
Any other parameter of RecBole or of the model is given as --name=value or --name value, for example
  python run_lsvcr.py --config properties/quickstart.yaml --learning_rate=0.003 --topk=[5,10,20]
  python run_lsvcr.py --config my.yaml --model=SASRec --output runs/sasrec
  python run_lsvcr.py --config my.yaml --task comment --model=CommentZAM --output runs/zam
  python run_lsvcr.py --config my.yaml --stage evaluate --protocols=[available+period]
  python run_lsvcr.py --config my.yaml --task both --benchmark --jobs 2
A run that was stopped continues when the same command is given again.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_lsvcr.py",
        description=(
            "Train and evaluate LSVCR, or any sequential (videos) or context-aware (comments) model of RecBole, on "
            "videos and the comments under them."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML configuration (see properties/quickstart.yaml)")
    parser.add_argument(
        "--task",
        choices=["video", "comment", "both"],
        default=None,
        help="what is ranked (default: what the model ranks, videos without a model); both: one alignment, one text "
        "store, two fine-tunings, one report",
    )
    parser.add_argument(
        "--stage",
        choices=["prepare", "align", "encode", "finetune", "evaluate", "all"],
        default=None,
        help="the stage to run; all (the default) leaves out prepare (files for a machine without RecBole)",
    )
    parser.add_argument("--output", metavar="DIR", default=None, help="folder for everything the run writes")
    benchmark = parser.add_argument_group("benchmark")
    benchmark.add_argument(
        "--benchmark",
        metavar="MODELS",
        nargs="?",
        const="",
        default=None,
        help="compare LSVCR with these models (sasrec,unisrec,my_module:MyModel; none named: all of the task): same "
        "data, split, candidates, sizes and number of trials; writes report.html and others into the output folder",
    )
    benchmark.add_argument(
        "--jobs", type=_count, default=None, metavar="K", help="cells computed at a time (default: 1)"
    )
    benchmark.add_argument(
        "--minutes", type=_minutes, default=None, metavar="M", help="start no further cell after so many minutes"
    )
    benchmark.add_argument("--ablation", action="store_true", help="also LSVCR without each of its parts (Table 4)")
    benchmark.add_argument(
        "--alignment-steps",
        type=_steps,
        default=None,
        metavar="N,N,…",
        help="also alignments of other lengths (Figure 3)",
    )
    benchmark.add_argument(
        "--cold", action="store_true", help="also LSVCR without ids on unseen videos and users (Figure 4)"
    )
    return parser


def _count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _minutes(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return value


def _steps(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, each once."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different numbers of steps, such as 0,500,1000")
    return tuple(int(part) for part in parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 a benchmark with cells that failed or are still missing,
    2 something the user can mend, 130 interrupted."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    from recbole_lsvcr.environment import flushed_denormals
    from recbole_lsvcr.errors import LSVCRError

    try:
        with flushed_denormals():
            return _run(options, rest)
    except LSVCRError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        message = (
            f"{error.strerror}: {error.filename or 'the output folder'}; free space or choose another --output, then "
            "give the same command again"
        )
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command continues where it stopped\n")
        return 130
    sys.stderr.write(f"{parser.prog}: error: {message}\n")
    return 2


def _run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from recbole_lsvcr.config import load_configs, parse_overrides
    from recbole_lsvcr.errors import ConfigError

    overrides = parse_overrides(rest)
    overrides |= {
        name: getattr(options, name) for name in ("task", "stage", "output") if getattr(options, name) is not None
    }
    if options.benchmark is not None:
        return _benchmark(options, overrides)
    alone = [name for name in ("jobs", "minutes", "ablation", "alignment_steps", "cold") if getattr(options, name)]
    if alone:
        raise ConfigError(f"--{alone[0].replace('_', '-')} is for a benchmark; add --benchmark")
    configs = load_configs(options.config, overrides)

    from recbole_lsvcr import pipeline
    from recbole_lsvcr.report import log_to, table

    with log_to(configs[0]):
        reports = pipeline.run_tasks(configs, configs[0]["stage"] or "all")
    for report in reports:
        sys.stdout.write(table(report) + "\n")
    return 0


def _benchmark(options: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Compute the arms, write the report; 1 when some cell failed or is missing, which the report says."""
    from recbole_lsvcr.benchmark.run import Options, run_benchmark
    from recbole_lsvcr.config import read_yaml
    from recbole_lsvcr.errors import ConfigError

    given = {**(read_yaml(Path(options.config)) if options.config else {}), **overrides}
    names = tuple(name.strip() for name in options.benchmark.split(",") if name.strip()) or None
    if options.benchmark and names is None:
        raise ConfigError(f"--benchmark {options.benchmark!r} names no model; give names, or --benchmark alone for all")
    chosen = Options(
        names=names,
        ablation=options.ablation,
        steps=options.alignment_steps or (),
        cold=options.cold,
        jobs=options.jobs or 1,
        minutes=options.minutes,
    )
    text, incomplete = run_benchmark(given, chosen)
    sys.stdout.write(text)
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
