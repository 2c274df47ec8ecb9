"""Time and memory of a conversion: raw files in the shape of KuaiComt, of several sizes, and the plain way with pandas.

    python benchmarks/kuaicomt_raw.py raw/full                                          # SYNTHETIC, 10.7 GB
    python benchmarks/kuaicomt_raw.py raw/tenth --impressions 11969668 --comments 1635290 --comment-interactions 100267
    python benchmarks/conversion.py raw/tenth raw/full --pandas raw/tenth --work converted --output results.json

Each conversion is a process of its own; what is given again and again is its wall time, its processor time and its
largest resident memory. The folders that are made stay in the folder `--work`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl

from dataset_tools.files import write_json

OURS = [sys.executable, "-m", "dataset_tools", "kuaicomt"]
PANDAS = [sys.executable, str(Path(__file__).with_name("kuaicomt_pandas.py"))]


def timed(command: list[str]) -> dict[str, Any]:
    """Seconds and GB of a command that must succeed."""
    began, load = time.monotonic(), os.getloadavg()[0]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
        "load_before": round(load, 1),
    }


def measure(command: list[str], raw: Path, out: Path, options: list[str]) -> dict[str, Any]:
    """One conversion: what it took, what it read and wrote."""
    shutil.rmtree(out, ignore_errors=True)
    found = timed([*command, str(raw), str(out), *options])
    size = sum(path.stat().st_size for path in raw.glob("*.csv"))
    rows = {path.stem: rows_of(path) for path in sorted(raw.glob("*.csv"))}
    return {
        "raw_gb": round(size / 1e9, 2),
        "raw_rows": sum(rows.values()),
        "rows_per_second": round(sum(rows.values()) / found["seconds"]),
        "written": {
            path.suffix[1:]: rows_of(path, "\t") for path in sorted(out.glob(f"{out.name}.*")) if is_table(path)
        },
        **found,
    }


def is_table(path: Path) -> bool:
    """Whether a file of a data set is an atomic file."""
    return path.suffix[1:] in ("inter", "item", "user", "cinter", "comment")


def rows_of(path: Path, separator: str = ",") -> int:
    """Rows of a CSV file with a header, in bounded memory."""
    rows = pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, nargs="+", help="folders of kuaicomt_raw.py")
    parser.add_argument("--pandas", type=Path, help="the folder that pandas converts too")
    parser.add_argument("--work", type=Path, required=True, help="folder for the data sets")
    parser.add_argument("--options", default="", help="further options of the converter, as one text")
    parser.add_argument("--output", type=Path, help="JSON file; what it holds already stays")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": f"{os.cpu_count()} cores", "data": "SYNTHETIC (kuaicomt_raw.py)", "runs": {}}
    for raw in options.raw:
        report["runs"][raw.name] = measure(OURS, raw, options.work / f"{raw.name}-ours", options.options.split())
        sys.stdout.write(f"{raw.name}: {report['runs'][raw.name]}\n")
        if raw == options.pandas:
            plain = measure(PANDAS, raw, options.work / f"{raw.name}-pandas", [])
            report["pandas"] = {"raw": raw.name, **plain}
            for name, key in (
                ("faster", "seconds"),
                ("less_processor", "processor_seconds"),
                ("less_memory", "peak_gb"),
            ):
                report["pandas"][name] = round(plain[key] / report["runs"][raw.name][key], 2)
            sys.stdout.write(f"pandas: {report['pandas']}\n")
        if options.output:
            write_json(options.output, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
