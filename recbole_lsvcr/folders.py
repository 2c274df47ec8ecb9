"""Folders that several processes may use, and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from recbole_lsvcr.errors import ConfigError

try:
    import fcntl
except ImportError:  # not on Windows: there two processes are not kept apart
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger()


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Let one process at a time write `folder`: a second one (another seed of the same study) waits, and finds what the
    first one made. The system lets go of the lock however its process ends. `what` is in the folder, for the log."""
    handle = None if fcntl is None else _lock_file(folder)
    if handle is None:
        yield
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info(f"Another process is using the {what} {folder}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            logger.warning(f"The file system of {folder} has no locks: let one process at a time use the {what}")
        yield


def _lock_file(folder: Path) -> IO[str] | None:
    """The file to lock; None where nothing can be written: what is finished is read from there, too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / ".lock", "w", encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES):
            return None
        raise


@contextmanager
def replaced_folder(folder: str | os.PathLike[str], marker: str) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of `folder` on success and vanishes on any error.

    The old folder is renamed aside, the new one renamed to its name, then the old one removed. Where a process dies in
    between, the next use of this function brings the old one back first.

    Raises:
        ConfigError: `folder` holds something without the file `marker`.
    """
    target = Path(folder).resolve()
    part, former = target.with_name(f".{target.name}.part"), former_folder(target)
    if former.exists():
        if target.exists():
            shutil.rmtree(former)
        else:
            former.rename(target)
    check_replaceable(target, marker)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        for path in part.iterdir():
            path.chmod(0o666 & ~umask)  # safetensors lets only the owner read
            _flush(path)
        _flush(part)
        if target.exists():
            target.rename(former)
        try:
            part.rename(target)
        except OSError:
            if former.exists():
                former.rename(target)
            raise
        _flush(target.parent)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_replaceable(folder: Path, marker: str) -> None:
    """Raise ConfigError for a folder that holds something, but not the file `marker`."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / marker).is_file())):
        raise ConfigError(
            f"{folder} holds something else (it has no {marker}) and is not replaced; give a new folder or an empty one"
        )


def former_folder(folder: Path) -> Path:
    """Where `replaced_folder` keeps the old folder for a moment."""
    return folder.with_name(f".{folder.name}.former")


def _flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
