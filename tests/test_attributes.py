"""Item attributes: which columns are read for which model, values that are rare, and what is said of missing ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import TINY, Make

from dataset_tools.sample import generate
from dataset_tools.schema import read_atomic
from recbole_lsvcr import pipeline
from recbole_lsvcr.config import LSVCRConfig, load_config
from recbole_lsvcr.errors import CheckpointError, ConfigError

READERS = {"FDSA": "selected_features", "GRU4RecF": "selected_features", "SASRecF": "selected_features"}
READERS |= {"DMT": "selected_features", "S3Rec": "item_attribute"}
Altered = Callable[..., LSVCRConfig]


@pytest.fixture
def altered(tmp_path: Path) -> Altered:
    """A configuration on a copy of the tiny data set whose `.item` has been changed by a function of its table."""

    def make(change: Callable[[pl.DataFrame], pl.DataFrame], **settings: Any) -> LSVCRConfig:
        folder = tmp_path / "data" / "tiny"
        if not folder.exists():
            generate(folder, users=60, videos=50, comments=300)
            change(pl.read_csv(folder / "tiny.item", separator="\t", quote_char=None, infer_schema=False)).write_csv(
                folder / "tiny.item", separator="\t", quote_style="never"
            )
        small = {key: TINY[key] for key in TINY if key not in ("hidden_size", "n_layers", "inner_size")}
        return load_config(
            None, {**small, "data_path": str(folder.parent), "output": str(tmp_path / "run"), **settings}
        )

    return make


def tags_of(folder: Path) -> dict[str, list[str]]:
    rows = read_atomic(folder / "tiny.item", columns=["item_id", "tags"]).rows()
    return {item: (tags or "").split() for item, tags in rows}


@pytest.mark.parametrize("min_videos", [1, 5])
def test_rare_values_are_left_out(tiny_config: Make, tiny_data: Path, min_videos: int) -> None:
    dataset = pipeline.Run(tiny_config(model="FDSA", attribute_min_videos=min_videos)).dataset
    tags = tags_of(tiny_data / "tiny")
    videos = Counter(tag for own in tags.values() for tag in set(own))
    kept = {tag for tag, count in videos.items() if count >= min_videos}
    assert kept < set(videos) or min_videos == 1
    names, table = dataset.field2id_token["tags"], dataset.item_feat["tags"]
    assert names.tolist() == ["[PAD]", *sorted(kept)] and dataset.num("tags") == len(kept) + 1
    for number, item in enumerate(dataset.field2id_token["item_id"][1:], start=1):
        expected = [tag for tag in tags[item] if tag in kept]
        assert [names[one] for one in table[number] if one] == expected
        assert not table[number, len(expected) :].any()  # no gaps where a value was left out
    assert not table[0].any()


def test_a_value_twice_with_a_video_is_counted_once(altered: Altered) -> None:
    def change(items: pl.DataFrame) -> pl.DataFrame:
        return items.with_columns(pl.Series("tags:token_seq", ["a a b", "b c"] + ["c"] * (len(items) - 2)))

    dataset = pipeline.Run(altered(change, model="FDSA", attribute_min_videos=2)).dataset
    assert dataset.field2id_token["tags"].tolist() == ["[PAD]", "b", "c"]


def test_the_number_of_videos_is_part_of_the_run(tiny_config: Make) -> None:
    small = {"model": "FDSA", "hidden_size": 8, "n_layers": 1, "inner_size": 16, "epochs": 1}
    pipeline.finetune(tiny_config(**small))
    with pytest.raises(CheckpointError, match="attribute_min_videos: 1 there, 2 here"):
        pipeline.finetune(tiny_config(**small, attribute_min_videos=2))
    with pytest.raises(ConfigError, match="attribute_min_videos = 0 is not accepted"):
        tiny_config(**small, attribute_min_videos=0)


@pytest.mark.parametrize("model", READERS)
def test_a_data_set_without_tags_is_named_with_what_it_has(altered: Altered, model: str) -> None:
    config = altered(lambda items: items.drop("tags:token_seq"), model=model)
    chosen = f"{READERS[model]}: " + ("author_id" if model == "S3Rec" else r"\[author_id\]")
    optional = r", or selected_features: \[\] to do without" if model == "DMT" else ""
    with pytest.raises(
        ConfigError,
        match=rf"^{model} reads the attribute 'tags' \({READERS[model]}\) of tiny\.item, which is not there; columns "
        rf"of tokens are author_id: set {chosen}{optional}$",
    ):
        pipeline.run(config)
    value = "author_id" if model == "S3Rec" else ["author_id"]
    other = altered(lambda items: items, model=model, **{READERS[model]: value})
    assert pipeline.Run(other).dataset.num("author_id") > 2  # read, though `load_col` does not name it


def test_a_data_set_without_any_attribute(altered: Altered) -> None:
    config = altered(lambda items: items.drop("tags:token_seq", "author_id:token"), model="FDSA")
    with pytest.raises(ConfigError, match="columns of tokens are none: add one to the file, or choose a model"):
        pipeline.run(config)


def test_numbers_are_no_attributes_of_these_models(tiny_config: Make) -> None:
    for model, value in (("FDSA", ["tags", "duration"]), ("DMT", ["duration"]), ("S3Rec", "duration")):
        with pytest.raises(ConfigError, match=rf"'duration' \({READERS[model]}\) of tiny\.item, which holds numbers"):
            pipeline.run(tiny_config(model=model, **{READERS[model]: value}))


@pytest.mark.parametrize("model", ["FDSA", "S3Rec"])
def test_a_column_without_values(altered: Altered, model: str) -> None:
    config = altered(lambda items: items.with_columns(pl.lit("").alias("tags:token_seq")), model=model)
    with pytest.raises(ConfigError, match=r"column 'tags' \(.*\) has no value that 1 videos have; lower attribute_min"):
        pipeline.run(config)


def test_no_attributes_at_all_are_for_models_that_have_others(tiny_config: Make) -> None:
    with pytest.raises(ConfigError, match="selected_features is empty, but SASRecF cannot do without"):
        pipeline.run(tiny_config(model="SASRecF", selected_features=[]))
    with pytest.raises(ConfigError, match=r"selected_features = 'tags' is not accepted; accepted: a list"):
        pipeline.run(tiny_config(model="SASRecF", selected_features="tags"))
    pipeline.Run(tiny_config(model="DMT", selected_features=[])).trainer()


def test_a_video_without_an_author_has_no_attribute_in_pretraining(altered: Altered) -> None:
    def change(items: pl.DataFrame) -> pl.DataFrame:
        author = pl.when(pl.int_range(pl.len()) % 2 == 0).then("author_id:token").otherwise(pl.lit(""))
        return items.with_columns(author.alias("author_id:token"))

    run = pipeline.Run(altered(change, model="S3Rec", item_attribute="author_id"))
    model, table = run.trainer().model, run.dataset.item_feat["author_id"]
    assert table.shape == (len(table), 1) and (table[1:] == 0).any() and (table > 0).any()
    batch = next(iter(run.loaders[0]))
    features, _, positive, *_ = model.reconstruct_pretrain_data(batch["item_id_list"], batch["item_length"])
    assert torch.equal(features.sum(dim=2), (table[positive].squeeze(2) > 0).long())
    at = (table[positive].squeeze(2) > 0).nonzero(as_tuple=True)
    assert torch.equal(features[at].argmax(dim=1), table[positive[at]].squeeze(1) - 1)


def test_a_plain_recbole_program_keeps_recboles_settings() -> None:
    from recbole.config import Config

    import recbole_lsvcr  # noqa: F401
    from recbole_lsvcr.plugin import hidden_argv

    with hidden_argv():
        for model, setting in READERS.items():
            found = Config(model=model, dataset="ml-100k")[setting]
            assert found == (["tags"] if model == "DMT" else "class" if model == "S3Rec" else ["class"])
        assert Config(model="S3Rec", dataset="ml-100k")["train_stage"] == "pretrain"
