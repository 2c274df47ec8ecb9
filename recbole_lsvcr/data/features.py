"""Item attributes (`tags`, category, author …) as RecBole's `item_feat`, for the models that read them (FDSA,
S3Rec, SASRecF).
"""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING

import polars as pl
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from dataset_tools.errors import DataToolError
from dataset_tools.schema import read_atomic, read_header
from recbole_lsvcr.data.ids import PAD
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recbole_lsvcr.data.dataset import JointDataset

MAX_TAGS = 50  # a video with more attributes keeps the first 50: the rest is noise and widens every batch


def item_features(dataset: JointDataset, tables: Tables, fields: list[str]) -> Interaction:
    """The chosen columns of `.item` by item id; row 0 is padding.

    Tokens become ids (0 = none), token sequences `[n_items, width]` 0-padded ids, floats float32 with 0 where empty.

    Raises:
        ConfigError: a column of a type that cannot be an attribute. DataError: the file cannot be read.
    """
    item_ids = torch.arange(len(tables.items))
    columns: dict[str, torch.Tensor] = {dataset.iid_field: item_ids}
    if fields:
        path = tables.folder / f"{tables.name}.item"
        try:
            types = read_header(path)
            if missing := [field for field in fields if field not in types]:
                getLogger().warning("%s has no column %s that load_col asks for; it is left out", path.name, missing)
                fields = [field for field in fields if field in types]
            frame = read_atomic(path, columns=["item_id", *fields])
        except DataToolError as error:
            raise DataError(str(error)) from error
        order = pl.DataFrame({"item_id": tables.items}).join(frame, on="item_id", how="left", maintain_order="left")
        for field in fields:
            columns[field] = _column(dataset, field, types[field], order[field])
    return Interaction(columns)


def _column(dataset: JointDataset, field: str, kind: str, values: pl.Series) -> torch.Tensor:
    if kind == "float":
        dataset.set_field_property(field, FeatureType.FLOAT, FeatureSource.ITEM, 1)
        return torch.from_numpy(values.fill_null(0.0).cast(pl.Float32).to_numpy(writable=True))
    if kind == "token":
        ids, vocabulary = _number(values.fill_null(""))
        _install(dataset, field, vocabulary, FeatureType.TOKEN, 1)
        return torch.from_numpy(ids.to_numpy(writable=True))
    if kind == "token_seq":
        lists = (
            values.fill_null("")
            .str.strip_chars()
            .str.split(" ")
            .list.eval(pl.element().filter(pl.element() != ""))
            .list.head(MAX_TAGS)
        )
        width = max(int(lists.list.len().max() or 0), 1)  # type: ignore[arg-type]
        flat = pl.DataFrame({"row": range(len(lists)), "token": lists}).explode("token").fill_null("")
        ids, vocabulary = _number(flat["token"])
        _install(dataset, field, vocabulary, FeatureType.TOKEN_SEQ, width)
        position = flat.select(pl.int_range(pl.len()).over("row")).to_series()
        table = torch.zeros(len(lists), width, dtype=torch.int64)
        table[
            torch.from_numpy(flat["row"].to_numpy(writable=True)), torch.from_numpy(position.to_numpy(writable=True))
        ] = torch.from_numpy(ids.to_numpy(writable=True))
        return table
    raise ConfigError(f"column '{field}' of type {kind} cannot be an item attribute; accepted: token, token_seq, float")


def _number(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Ids by sorted token, 0 for the empty string; and the vocabulary with `[PAD]` first."""
    known = values.filter(values != "").unique().sort()
    numbers = pl.DataFrame({"token": known, "id": pl.int_range(1, len(known) + 1, eager=True)})
    ids = (
        pl.DataFrame({"token": values}).join(numbers, on="token", how="left", maintain_order="left")["id"].fill_null(0)
    )
    return ids.cast(pl.Int64), pl.concat([pl.Series([PAD], dtype=pl.String), known.cast(pl.String)])


def _install(dataset: JointDataset, field: str, vocabulary: pl.Series, kind: FeatureType, width: int) -> None:
    names = vocabulary.to_numpy()
    dataset.set_field_property(field, kind, FeatureSource.ITEM, width)
    dataset.field2id_token[field] = names
    dataset.field2token_id[field] = {token: number for number, token in enumerate(names.tolist())}
