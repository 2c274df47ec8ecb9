"""Checkpoints: tensors and plain data only, written whole or not at all, read without running any code they hold.

`save_checkpoint` makes NumPy values, sparse matrices and enumerations tensors and plain data before they are written;
`load_checkpoint` turns arrays and matrices back. A file that needs more than that (stock RecBole's own checkpoints are
pickles, which can run any code when they are read) is refused; the README says how a plain one is made of it. This
module does not need RecBole.
"""

from __future__ import annotations

import enum
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from dataset_tools.files import atomic_path
from recbole_lsvcr import __version__
from recbole_lsvcr.errors import CheckpointError

_KIND = "__kind__"  # marks the dictionary that stands for an array or a matrix
_ARCHIVE, _PICKLE = b"PK", b"\x80"  # how a file starts
_PLAIN: tuple[Any, ...] = (bool, int, float, complex, str, bytes)
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error)
_DAMAGE = (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, *_NO_ARCHIVE)


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` to `path`, atomically; `written_by` (this package's version) is added to it.

    Args:
        path: the file; its folder is made. Equal states give equal bytes.
        state: tensors, plain values, NumPy arrays and numbers, SciPy sparse matrices, enumerations, devices, paths
            (the last three become texts), and containers of them.

    Raises:
        CheckpointError: a value of another type (its place in `state` is named); nothing is written.
        OSError: the disk is full or the folder cannot be written; `path` is left as it was.
    """
    packed = pack({"written_by": f"recbole-lsvcr {__version__}", **state}, "state")
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        try:
            torch.save(packed, handle)  # given a name, it would write that into the file
        except RuntimeError as error:
            # When a write fails, torch's writer stumbles over its own clean-up and hides the reason behind that.
            if isinstance(error.__context__, OSError):
                cause = error.__context__
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise


def refuse_other_texts(file: str | os.PathLike[str] | None, state: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise CheckpointError for weights that were trained on other text vectors than this run's (`text` of each)."""
    there, here = state.get("text"), known.get("text")
    if there is None or here is None:
        return
    names = [name for name in there if name in here and there[name] != here[name]]
    if not names:
        return
    told = "; ".join(f"{name} is {str(there[name])[:12]} there, {str(here[name])[:12]} here" for name in names)
    raise CheckpointError(
        f"{file} was trained on other text vectors ({told}); go back to those (text_store, encoder, alignment), or "
        "train into another --output"
    )


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote (or any file that holds a dictionary of tensors and plain data).

    Args:
        path: the file.
        map_location: where the tensors go, as for `torch.load`.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, or a pickle.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: give the path of a .pth file, or train first")
    try:
        state = _read(file, map_location)
    except torch.serialization.pickle.UnpicklingError as error:
        if _starts(file) not in (_ARCHIVE, _PICKLE):
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"the checkpoint {path} is a pickle, which can run any code when it is read, so it was not read: train "
            "again with recbole_lsvcr imported, or, if you wrote it yourself, make a plain one of it (README: Old "
            "checkpoints)"
        ) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}: give a checkpoint (.pth) that a trainer wrote")
    return state


def _read(file: Path, map_location: Any) -> Any:
    if _starts(file) == _ARCHIVE:
        # PyTorch writes a checksum of every tensor but does not compare it: a flipped bit would be a wrong weight.
        with zipfile.ZipFile(file) as archive:
            damaged = [part.filename for part in archive.infolist() if part.compress_size != part.file_size]
            damaged = damaged or [name for name in (archive.testzip(),) if name]
        if damaged:
            raise zipfile.BadZipFile(f"the size or the checksum of its part {damaged[0]} is wrong")
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a remark on pickle protocol 4, RecBole's
        return unpack(torch.load(file, map_location=map_location, weights_only=True))


def _starts(file: Path) -> bytes:
    with file.open("rb") as handle:
        start = handle.read(2)
    return _PICKLE if start.startswith(_PICKLE) else start


def _damaged(path: str | os.PathLike[str], error: Exception) -> CheckpointError:
    reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
    return CheckpointError(
        f"the checkpoint {path} cannot be read ({reason}): it is damaged or no checkpoint at all; copy it again, use "
        "an earlier one, or train again"
    )


def pack(value: Any, where: str) -> Any:
    """`value` as tensors and plain data; `where` names its place in messages.

    Raises:
        CheckpointError: a value of a type that cannot be stored.
    """
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    for plain in _PLAIN:
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, torch.device | torch.dtype | os.PathLike):
        return str(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {_KIND: "array", "data": torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)}
    if sparse.issparse(value):
        return _pack_sparse(value)
    return _pack_container(value, where)


def _pack_sparse(matrix: Any) -> dict[str, Any]:
    entries = matrix.tocoo()
    parts = {"data": entries.data, "row": entries.row, "col": entries.col}
    packed = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}
    kind = "sparse array" if isinstance(matrix, sparse.sparray) else "sparse matrix"
    return {_KIND: kind, "format": matrix.format, "shape": tuple(map(int, matrix.shape)), **packed}


def _pack_container(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {pack(key, f"{where} (a key)"): pack(item, f"{where}[{key!r}]") for key, item in value.items()}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [pack(item, f"{where}[{number}]") for number, item in enumerate(value)]
            return set(items) if kind is frozenset else kind(items)
    raise CheckpointError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint cannot hold: only "
        "tensors, arrays, numbers, texts and containers of them can be stored"
    )


def unpack(value: Any) -> Any:
    """What `pack` made of arrays and matrices, turned back; enumerations, devices and paths stay texts."""
    if type(value) in (list, tuple):
        return type(value)(map(unpack, value))
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind == "array":
        return value["data"].cpu().numpy()
    if kind in ("sparse array", "sparse matrix"):
        build = sparse.coo_array if kind == "sparse array" else sparse.coo_matrix
        data, rows, columns = (value[part].cpu().numpy() for part in ("data", "row", "col"))
        return build((data, (rows, columns)), shape=value["shape"]).asformat(value["format"])
    return {key: unpack(item) for key, item in value.items()}
