"""Align and encode on a machine without RecBole, from a prepared folder (`run_lsvcr.py --stage prepare` makes one).

    python -m recbole_lsvcr.alignment runs/mine/prepared --output runs/mine
    torchrun --nproc_per_node 8 -m recbole_lsvcr.alignment runs/mine/prepared --output runs/mine

Writes `alignment` and `text_store` into the output folder; stopped, the same command continues. Copied into the run's
output folder, the two are what `run_lsvcr.py --stage finetune` and `--stage evaluate` go on with.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recbole_lsvcr.alignment.prepared import Prepared, read_prepared
from recbole_lsvcr.errors import AlignmentError, ConfigError, LSVCRError

STAGES = ("align", "encode", "all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when done, 2 when something cannot be used, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m recbole_lsvcr.alignment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prepared", type=Path, help="the prepared folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the alignment and the text store")
    parser.add_argument("--stage", choices=STAGES, default="all", help="default: all")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--llm", help="where the language model lies here, if not where the configuration says")
    options = parser.parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(asctime)s  %(message)s")
    try:
        prepared = read_prepared(options.prepared)
        if options.llm:
            prepared = replace(prepared, config=replace(prepared.config, llm=options.llm))
        run(prepared, options.output, stage=options.stage, device=options.device)
    except (LSVCRError, OSError) as error:
        if first or isinstance(error, AlignmentError):  # which batch it was, its own process knows
            sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command continues where it stopped\n")
        return 130
    return 0


def run(prepared: Prepared, output: Path, *, stage: str = "all", device: str = "auto") -> None:
    """Stage `align`, `encode` or both; of several processes the first one encodes.

    Raises:
        What the stages raise.
    """
    try:
        from recbole_lsvcr.alignment.stage import AlignmentJob, align, aligned_encoder
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"alignment needs the package {error.name}: pip install 'recbole-lsvcr[llm]' (or the package by itself)"
        ) from error
    from recbole_lsvcr.data.texts import ensure_store

    job = AlignmentJob(
        prepared.data, prepared.config, prepared.sr, output / "alignment", seed=prepared.seed, device=device
    )
    if stage in ("align", "all"):
        align(job)
    if stage in ("encode", "all") and os.environ.get("RANK", "0") == "0":
        text = prepared.text
        encoder = aligned_encoder(job, max_tokens=text["text_max_tokens"], batch_tokens=text["text_batch_tokens"])
        ensure_store({**text, "text_store": str(output / "text_store")}, prepared.data, encoder, kinds=prepared.kinds)


if __name__ == "__main__":
    sys.exit(main())
