"""What the RecBole models around an `SRModel` share: its sizes from the configuration, batches from interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from recbole.data.interaction import Interaction

from recbole_lsvcr.data.dataset import JointDataset
from recbole_lsvcr.errors import DataError
from recbole_lsvcr.model.sr import SRConfig, SRModel
from recbole_lsvcr.model.streams import SRBatch

FIELD_NAMES = ("ITEM_ID_FIELD", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD")  # RecBole's names of what `histories` reads


def require_joint(model: object, dataset: Any) -> JointDataset:
    """The data set, if it is the joint one.

    Raises:
        DataError: it is another.
    """
    if not isinstance(dataset, JointDataset):
        raise DataError(
            f"{type(model).__name__} reads the joint data set, but was given a {type(dataset).__name__}; create it "
            "with recbole_lsvcr.data.dataset.JointDataset (run_recbole and run_lsvcr.py do)"
        )
    return dataset


class SRShell:
    """Mixin of the RecBole models that hold an `SRModel` in `self.sr`."""

    reads_text = True
    reads_comments = True
    aligns = True

    @staticmethod
    def sr_config(config: Any, max_positions: int) -> SRConfig:
        """The SR model's sizes as the configuration names them, without ids and for text of width `text_size`."""
        return SRConfig(
            hidden_size=config["hidden_size"],
            text_size=config["text_size"],
            n_layers=config["n_layers"],
            n_heads=config["n_heads"],
            inner_size=config["inner_size"],
            hidden_dropout_prob=config["hidden_dropout_prob"],
            attn_dropout_prob=config["attn_dropout_prob"],
            hidden_act=config["hidden_act"],
            layer_norm_eps=config["layer_norm_eps"],
            initializer_range=config["initializer_range"],
            max_positions=max_positions,
        )

    def make_sr(self, config: Any, dataset: JointDataset) -> SRModel:
        """A new SR model for the data set's text vectors, with ids unless `use_id` is off."""
        use_id = bool(config["use_id"])
        sizes = self.sr_config(config, max(dataset.joint.max_videos, dataset.joint.max_records))
        encoder_size = None if dataset.texts.aligned else dataset.texts.size
        sr = SRModel(replace(sizes, encoder_size=encoder_size, n_items=dataset.joint.n_items if use_id else None))
        if use_id:
            sr.seen.copy_(torch.from_numpy(dataset.seen_items))
        return sr

    def histories(self, config: Mapping[str, str], interaction: Interaction) -> SRBatch:
        """The histories of a batch, without targets; `config` holds `FIELD_NAMES`."""
        videos = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
        return SRBatch(
            video_items=interaction[videos],
            video_comments=interaction["video_comment_list"],
            video_len=interaction[config["ITEM_LIST_LENGTH_FIELD"]],
            record_items=interaction["record_item_list"],
            record_comments=interaction["record_comment_list"],
            record_len=interaction["record_length"],
        )
