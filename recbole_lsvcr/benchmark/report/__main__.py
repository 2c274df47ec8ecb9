"""`python -m recbole_lsvcr.benchmark.report FOLDER`: the report of FOLDER/results.json, written anew beside it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recbole_lsvcr.benchmark.report import FILES, write_report
from recbole_lsvcr.benchmark.report.read import read_results
from recbole_lsvcr.errors import LSVCRError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; 2 with one message where results.json cannot be used or a file not be written."""
    parser = argparse.ArgumentParser(prog="python -m recbole_lsvcr.benchmark.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the output folder of a benchmark")
    options = parser.parse_args(arguments)
    try:
        write_report(read_results(options.folder), options.folder)
    except (LSVCRError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 2
    sys.stdout.write("".join(f"wrote {options.folder / name}\n" for name in FILES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
