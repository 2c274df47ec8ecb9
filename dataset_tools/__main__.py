"""The command line `lsvcr-data` (also `python -m dataset_tools`): raw logs to data set folders, and their check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from dataset_tools import __version__, check, describe, kuaicomt, microlens, sample, table, youtube
from dataset_tools.errors import DataToolError

COMMANDS: dict[str, ModuleType] = {
    "kuaicomt": kuaicomt,
    "microlens": microlens,
    "youtube": youtube,
    "table": table,
    "sample": sample,
    "check": check,
    "describe": describe,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each module of `COMMANDS` adds its own arguments."""
    parser = argparse.ArgumentParser(
        prog="lsvcr-data",
        description="Turn raw logs into a data set folder of RecBole atomic files (.inter .item .cinter .comment).",
        epilog="`lsvcr-data COMMAND --help` explains each command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 1 when `check` finds violations, 2 on an error (one message on standard error)."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except DataToolError as error:
        sys.stderr.write(f"lsvcr-data {args.command}: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"lsvcr-data {args.command}: {error}\n")
        return 2
    except KeyboardInterrupt as stop:
        said = "; ".join(["interrupted, nothing was written", *getattr(stop, "__notes__", [])])
        sys.stderr.write(f"lsvcr-data {args.command}: {said}\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
