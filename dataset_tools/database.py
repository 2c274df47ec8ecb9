"""A DuckDB database that keeps to so much memory, spills to a folder of the caller's, and fetches nothing."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

# What a full disk is, or too little memory to go on with the disk.
NO_ROOM = (duckdb.IOException, duckdb.OutOfMemoryException, OSError)


def connect(database: str, *, memory: float, spill: Path) -> duckdb.DuckDBPyConnection:
    """Open a database file, made if need be; beyond `memory` gigabytes it uses files in the folder `spill`."""
    return duckdb.connect(
        database,
        config={
            "memory_limit": f"{memory:g}GB",
            "temp_directory": str(spill),
            "threads": os.cpu_count() or 1,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
