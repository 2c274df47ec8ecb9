"""One process at a time in a folder that several may use: a text store, an alignment."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there two processes are not kept apart
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger()


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Let one process at a time write `folder`: a second one (another seed of the same study) waits, and finds what the
    first one made. The system lets go of the lock however its process ends. `what` is in the folder, for the log."""
    if fcntl is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        yield  # what is finished is read from where nothing can be written, too
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info(f"Another process is using the {what} {folder}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
