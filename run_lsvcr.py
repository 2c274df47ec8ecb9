"""Command line of recbole-lsvcr: `python run_lsvcr.py --config my.yaml` (installed as `lsvcr`)."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

EPILOG = """\
Any other parameter of RecBole or of the model is given as --name=value, for example
  python run_lsvcr.py --config properties/quickstart.yaml --learning_rate=0.003 --topk=[5,10,20]
  python run_lsvcr.py --config my.yaml --model=SASRec --output runs/sasrec
  python run_lsvcr.py --config my.yaml --task comment --model=CommentZAM --output runs/zam
  python run_lsvcr.py --config my.yaml --stage evaluate --protocols=[available+period]
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
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 something the user can mend, 130 interrupted."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    from recbole_lsvcr.errors import LSVCRError

    try:
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

    overrides = parse_overrides(rest)
    overrides |= {
        name: getattr(options, name) for name in ("task", "stage", "output") if getattr(options, name) is not None
    }
    configs = load_configs(options.config, overrides)

    from recbole_lsvcr import pipeline
    from recbole_lsvcr.report import log_to, table

    with log_to(configs[0]):
        reports = pipeline.run_tasks(configs, configs[0]["stage"] or "all")
    for report in reports:
        sys.stdout.write(table(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
