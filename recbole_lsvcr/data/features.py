"""Item attributes (`tags`, category, author …) as RecBole's `item_feat`, for the models that read them (FDSA,
S3Rec, SASRecF).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, get_model

from dataset_tools.errors import DataToolError
from dataset_tools.schema import read_atomic, read_header
from recbole_lsvcr.data.ids import PAD
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recbole_lsvcr.data.dataset import JointDataset

MAX_TAGS = 50  # a video with more attributes keeps the first 50: the rest is noise and widens every batch
LISTED, ONE = "selected_features", "item_attribute"  # RecBole's settings (and DMT's) that name columns of `.item`
TOKENS = ("token", "token_seq")


@dataclass(frozen=True)
class Attributes:
    """The item attributes of a run: columns of `.item`, and the settings of the model that ask for some of them."""

    fields: list[str]  # all that are read
    asked: dict[str, str]  # column -> setting, of those that the model cannot do without
    single: frozenset[str]  # of these the model wants a list of tokens, where the file has one token
    min_videos: int  # values that fewer videos have are left out

    @classmethod
    def of(cls, config: Any, loaded: Sequence[str]) -> Attributes:
        """Those of a configuration; `loaded`: the columns that `load_col` names.

        Raises:
            ConfigError: a setting that names no columns.
        """
        listed, one = config[LISTED], config[ONE]
        if listed is not None and not (isinstance(listed, list) and all(isinstance(name, str) for name in listed)):
            raise ConfigError(f"{LISTED} = {listed!r} is not accepted; accepted: a list of columns, such as [tags]")
        if listed == [] and not _optional(config):
            raise ConfigError(f"{LISTED} is empty, but {config['model']} cannot do without attributes; name a column")
        asked = {**dict.fromkeys(listed or [], LISTED), **({str(one): ONE} if one else {})}
        # S3Rec takes a single token that is missing (0) for the last one of the vocabulary, but not one in a list.
        single = frozenset(asked) & {str(one)}
        return cls(list(dict.fromkeys([*loaded, *asked])), asked, single, int(config["attribute_min_videos"] or 1))


def item_features(dataset: JointDataset, tables: Tables, loaded: Sequence[str]) -> Interaction:
    """The columns of `.item` that `loaded` (of `load_col`) and the model's settings name, by item id; row 0 is padding.

    Tokens become ids (0 = none), token sequences `[n_items, width]` 0-padded ids, floats float32 with 0 where empty.

    Raises:
        ConfigError: a column of a type that cannot be an attribute, or one the model needs that is missing or empty.
        DataError: the file cannot be read.
    """
    attributes = Attributes.of(dataset.config, loaded)
    fields = attributes.fields
    columns: dict[str, torch.Tensor] = {dataset.iid_field: torch.arange(len(tables.items))}
    if fields:
        path = tables.folder / f"{tables.name}.item"
        try:
            types = read_header(path)
            for field, setting in attributes.asked.items():
                _check_asked(dataset.config, path.name, types, field, setting)
            if missing := [field for field in fields if field not in types]:
                getLogger().warning("%s has no column %s that load_col asks for; it is left out", path.name, missing)
                fields = [field for field in fields if field in types]
            frame = read_atomic(path, columns=["item_id", *fields])
        except DataToolError as error:
            raise DataError(str(error)) from error
        order = pl.DataFrame({"item_id": tables.items}).join(frame, on="item_id", how="left", maintain_order="left")
        for field in fields:
            columns[field] = _column(dataset, field, types[field], order[field], attributes)
            if field in attributes.asked and len(dataset.field2id_token[field]) == 1:
                raise ConfigError(
                    f"{path.name}: column '{field}' ({attributes.asked[field]}) has no value that "
                    f"{attributes.min_videos} videos have; lower attribute_min_videos, or name another column"
                )
    return Interaction(columns)


def _optional(config: Any) -> bool:
    return bool(getattr(get_model(config["model"]), "attributes_optional", False))


def _check_asked(config: Any, file: str, types: Mapping[str, str], field: str, setting: str) -> None:
    """Refuse an attribute that the model is to read and cannot."""
    if types.get(field) in TOKENS:
        return
    others = [name for name, kind in types.items() if kind in TOKENS and name not in ("item_id", "title")]
    choices = []
    if others:
        choices.append(
            f"{setting}: [{', '.join(others)}]" if setting == LISTED else f"{setting}: {' or '.join(others)}"
        )
    if setting == LISTED and _optional(config):
        choices.append(f"{LISTED}: [] to do without")
    what = "which holds numbers there" if field in types else "which is not there"
    raise ConfigError(
        f"{config['model']} reads the attribute '{field}' ({setting}) of {file}, {what}; columns of tokens are "
        f"{', '.join(others) or 'none'}: "
        + (f"set {', or '.join(choices)}" if choices else "add one to the file, or choose a model that reads none")
    )


def _column(dataset: JointDataset, field: str, kind: str, values: pl.Series, attributes: Attributes) -> torch.Tensor:
    if kind == "float":
        dataset.set_field_property(field, FeatureType.FLOAT, FeatureSource.ITEM, 1)
        return torch.from_numpy(values.fill_null(0.0).cast(pl.Float32).to_numpy(writable=True))
    if kind == "token":
        flat = _frequent(
            pl.DataFrame({"row": range(len(values)), "token": values.fill_null("")}), attributes.min_videos
        )
        ids, vocabulary = _number(flat["token"])
        as_list = field in attributes.single
        _install(dataset, field, vocabulary, FeatureType.TOKEN_SEQ if as_list else FeatureType.TOKEN, 1)
        column = torch.from_numpy(ids.to_numpy(writable=True))
        return column.unsqueeze(1) if as_list else column
    if kind == "token_seq":
        lists = values.fill_null("").str.strip_chars().str.split(" ")
        flat = pl.DataFrame({"row": range(len(lists)), "token": lists}).explode("token")
        flat = _frequent(flat, attributes.min_videos).filter(pl.col("token") != "")
        flat = flat.with_columns(pl.int_range(pl.len()).over("row").alias("at")).filter(pl.col("at") < MAX_TAGS)
        width = int(flat["at"].max() or 0) + 1  # type: ignore[arg-type]
        ids, vocabulary = _number(flat["token"])
        _install(dataset, field, vocabulary, FeatureType.TOKEN_SEQ, width)
        table = torch.zeros(len(lists), width, dtype=torch.int64)
        row, at = (torch.from_numpy(flat[name].cast(pl.Int64).to_numpy(writable=True)) for name in ("row", "at"))
        table[row, at] = torch.from_numpy(ids.to_numpy(writable=True))
        return table
    raise ConfigError(f"column '{field}' of type {kind} cannot be an item attribute; accepted: token, token_seq, float")


def _frequent(flat: pl.DataFrame, min_videos: int) -> pl.DataFrame:
    """`flat` (row, token) with the tokens emptied that fewer than `min_videos` videos have, each video once."""
    if min_videos == 1:
        return flat
    enough = pl.col("row").n_unique().over("token") >= min_videos
    return flat.with_columns(pl.when(enough).then("token").otherwise(pl.lit("")).alias("token"))


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
