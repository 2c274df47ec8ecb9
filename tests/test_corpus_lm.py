"""The offline language model: made of the training period's texts alone, the same each time, and it learns them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recbole_lsvcr.alignment.collate import AlignmentCollator
from recbole_lsvcr.alignment.corpus import _mixed, held_out_texts, history_rows, packed_batches, tokens, training_texts
from recbole_lsvcr.alignment.corpus_lm import (
    CorpusLMConfig,
    _new_tokenizer,
    main,
    train_corpus_lm,
)
from recbole_lsvcr.alignment.instances import AlignmentInstances
from recbole_lsvcr.alignment.load import add_lora, load_causal_lm
from recbole_lsvcr.alignment.perplexity import perplexity
from recbole_lsvcr.alignment.prompts import Instructions, PromptFamily
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.encoding import load_encoder
from recbole_lsvcr.errors import ConfigError, DataError

transformers = pytest.importorskip("transformers", reason="the language model needs transformers")

START, DAY, DAYS = 1.6e9, 86_400.0, 20
BOUNDARY = START + 15 * DAY
SMALL = CorpusLMConfig(vocab_size=300, hidden_size=32, layers=1, context=128, block=16, batch=4, steps=12)
END = 1  # the id of the token that ends a text
WORDS = ["red", "green", "blue", "brown", "black", "white"]


def planted(*, posted: bool = True) -> Tables:
    """One video and two comments a day, of six words; `marker` stands in every text from after the boundary.

    Users interact with each comment on the day after; without `posted` nobody knows when comments were posted.
    """
    items, comments, inter, cinter = {}, {}, [], []
    for day in range(DAYS):
        time, late = START + day * DAY, "marker" if START + day * DAY >= BOUNDARY else "early"
        items[f"v{day}"] = {"title": f"{late} title {WORDS[day % 6]} {day}", "upload_time": time}
        for n in range(2):
            row = {"item_id": f"v{day}", "content": f"{late} comment {' '.join(WORDS)} {day} {n}"}
            comments[f"c{day}.{n}"] = row | ({"timestamp": time} if posted else {})
            cinter.append((f"u{n}", f"c{day}.{n}", time + DAY / 4))
        inter += [(f"u{n}", f"v{day}", time + DAY / 8) for n in range(2)]
    items["unseen"] = {"title": "marker of a video that nobody watched, of unknown age"}
    comments["late"] = {"item_id": "v0", "content": "marker under an early video", "timestamp": BOUNDARY}
    return Tables.from_arrays(inter=inter, cinter=cinter, items=items, comments=comments, name="planted")


def by_time(tables: Tables) -> JointData:
    return JointData(tables, split={"time": [BOUNDARY, BOUNDARY + 2 * DAY]})


@pytest.fixture(scope="module")
def data() -> JointData:
    return by_time(planted())


# --- which texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("posted", [True, False])
def test_split_by_time_no_text_from_after_the_boundary_is_read(posted):
    texts = training_texts(by_time(planted(posted=posted)))
    assert not texts["text"].str.contains("marker").any()
    assert texts.height == 15 + 30 and int(texts["is_title"].sum()) == 15


def test_what_was_interacted_with_was_there_whatever_its_posting_time_says():
    tables = Tables.from_arrays(
        inter=[("u", item, START + n) for n, item in enumerate("vwx")]
        + [("u", "v", BOUNDARY + n * DAY) for n in (0, 1)],
        cinter=[("u", "wrong clock", START + DAY)],
        items={"v": {"title": "a", "upload_time": BOUNDARY}, "w": {"title": "b"}, "x": {"title": "  "}},
        comments={
            "wrong clock": {"item_id": "v", "content": "c", "timestamp": BOUNDARY + DAY},
            "twice": {"item_id": "w", "content": "b", "timestamp": START},
            "unknown": {"item_id": "w", "content": "d"},
        },
    )
    texts = training_texts(JointData(tables, split={"time": [BOUNDARY, BOUNDARY + DAY]}))
    assert texts["text"].to_list() == ["a", "b", "c"]
    assert texts["is_title"].to_list() == [True, True, False] and texts["item"].to_list() == [1, 2, 1]


def test_split_per_user_only_texts_of_training_interactions_are_read():
    tables = planted()
    texts = training_texts(JointData(tables, split={"LS": "valid_and_test"}))["text"].to_list()
    assert not [text for text in texts if {"18", "19"} & set(text.split())]
    assert f"marker comment {' '.join(WORDS)} 17 1" in texts and "marker title brown 15" in texts
    assert "marker under an early video" not in texts and len(texts) == 18 + 36


def test_too_few_texts_are_one_message():
    tables = Tables.from_arrays(inter=[("u", "v", START + i) for i in range(8)], items={"v": {"title": "one"}})
    with pytest.raises(DataError, match="'arrays' has 1 training texts, too few"):
        training_texts(JointData(tables, split={"LS": "valid_and_test"}))


def test_texts_are_packed_whole_and_video_by_video_in_a_new_order_each_epoch(data):
    texts, held_out = held_out_texts(training_texts(data), np.random.default_rng(0))
    assert held_out.len() == 1 and texts.height == 44 and held_out[0] not in texts["text"].to_list()
    tokenizer = word_tokenizer(texts["text"])
    batches = packed_batches(texts, tokenizer, block=2000, batch=1, rng=np.random.default_rng(0))
    stream = next(batches).ravel()  # one block holds several epochs, so that their order can be seen
    assert stream.shape == (2000,) and stream.dtype == np.int64
    packed = [tokenizer.decode(row[:-1]) for row in np.split(stream, np.flatnonzero(stream == END) + 1)]
    first, second = packed[:44], packed[44:88]
    assert sorted(first) == sorted(second) == sorted(texts["text"]) and first != second
    video = dict(texts.select("text", "item").iter_rows())
    of = [video[text] for text in first]
    assert sum(a != b for a, b in itertools.pairwise(of)) == len(set(of)) - 1
    assert all("title" in first[of.index(video[text])] for text in first if "title" in text)


def test_blocks_are_whole_batches_and_lose_no_token(data):
    texts = training_texts(data)
    tokenizer = word_tokenizer(texts["text"])
    counts = np.bincount([token for row in tokens(tokenizer, texts["text"].to_list()) for token in row])
    batches = packed_batches(texts, tokenizer, block=7, batch=3, rng=np.random.default_rng(0))
    epochs = 40
    drawn = [next(batches) for _ in range(epochs * counts.sum() // 21)]
    assert all(batch.shape == (3, 7) for batch in drawn)
    assert (np.abs(np.bincount(np.concatenate(drawn, axis=None)) - epochs * counts) <= 21).all()


def word_tokenizer(texts: pl.Series):
    """Whole words; id 1 ends a text."""
    tokenizers = pytest.importorskip("tokenizers")
    words = sorted({word for text in texts for word in text.split()} - {"</s>"})
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "</s>", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="[UNK]")


# --- the model --------------------------------------------------------------------------------------------------------


def changed(**settings: object) -> CorpusLMConfig:
    return dataclasses.replace(SMALL, **settings)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_it_learns_its_texts_and_loads_as_language_model_and_as_encoder(data, tmp_path, architecture):
    report = train_corpus_lm(data, tmp_path / "lm", changed(architecture=architecture, steps=60))
    assert report["perplexity"]["after"] < 0.2 * report["perplexity"]["before"]
    assert 0.5 * report["vocabulary"] < report["perplexity"]["before"] < 2 * report["vocabulary"]
    assert sum(report["texts"].values()) == 45 and report["texts"]["held_out"] == 1
    lm = load_causal_lm(tmp_path / "lm")
    assert lm.model.config.model_type == architecture and (lm.context, lm.hidden_size) == (128, 32)
    assert sum(p.numel() for p in lm.model.parameters()) == report["parameters"]
    assert (lm.tokenizer.eos_token, lm.tokenizer.pad_token) == ("</s>", "<pad>")
    assert len(lm.tokenizer) == report["vocabulary"] == lm.model.config.vocab_size
    texts = ["early title red 3", "完全 café 😀", "late"]
    plain = transformers.AutoTokenizer.from_pretrained(tmp_path / "lm")
    assert plain(texts)["input_ids"] == lm.tokenizer(texts)["input_ids"]
    assert [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in lm.tokenizer(texts)["input_ids"]] == texts
    held_out = held_out_texts(training_texts(data), np.random.default_rng(SMALL.seed))[1]
    assert perplexity(lm.model, lm.tokenizer, held_out, 16) == pytest.approx(report["perplexity"]["after"], rel=0.01)
    assert tokens(lm.tokenizer, ["somebody wrote </s> here"])[0].count(lm.tokenizer.eos_token_id) == 1
    vectors = load_encoder(str(tmp_path / "lm")).encode(texts)
    assert vectors.shape == (3, 32) and np.isfinite(vectors).all()
    assert len([name for name, _ in add_lora(lm.model).named_parameters() if "lora_A" in name]) == 7


def test_equal_seeds_and_steps_give_equal_weights_and_others_do_not(data, tmp_path):
    random_state = torch.random.get_rng_state()
    for name, settings in {"a": {}, "b": {}, "c": {"seed": 3}}.items():
        train_corpus_lm(data, tmp_path / name, changed(**settings))
    assert torch.equal(torch.random.get_rng_state(), random_state)
    a, b, c = (load_causal_lm(tmp_path / name) for name in "abc")
    assert a.fingerprint == b.fingerprint != c.fingerprint
    torch.testing.assert_close(a.model.state_dict(), b.model.state_dict(), rtol=0, atol=0)


def test_a_model_that_is_there_is_used_again_and_another_one_replaces_it(data, tmp_path):
    first = train_corpus_lm(data, tmp_path / "lm", SMALL)
    written = (tmp_path / "lm" / "model.safetensors").stat().st_mtime_ns
    assert train_corpus_lm(data, tmp_path / "lm", SMALL) == first
    assert (tmp_path / "lm" / "model.safetensors").stat().st_mtime_ns == written
    assert train_corpus_lm(data, tmp_path / "lm", changed(steps=3))["steps"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["lm"]
    assert json.loads((tmp_path / "lm" / "corpus_lm.json").read_text())["data"]["name"] == "planted"


def test_minutes_are_kept(data, tmp_path):
    report = train_corpus_lm(data, tmp_path / "lm", changed(steps=0, minutes=0.02))
    assert report["steps"] >= 1 and report["seconds"] < 10  # 1.2 s are asked for, on a machine that may be busy


def test_long_texts_do_not_change_the_perplexity_of_what_is_read(data, tmp_path):
    train_corpus_lm(data, tmp_path / "lm", SMALL)
    lm = load_causal_lm(tmp_path / "lm")
    texts = pl.Series([" ".join(WORDS * n) for n in (1, 9, 2)])
    together = perplexity(lm.model, lm.tokenizer, texts, 16)
    ids = [row[:16] for row in tokens(lm.tokenizer, texts.to_list())]
    total = 0.0
    for row in ids:
        with torch.no_grad():
            chances = lm.model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
        total -= sum(float(chances[place - 1, row[place]]) for place in range(1, len(row)))
    assert together == pytest.approx(np.exp(total / sum(len(row) - 1 for row in ids)), rel=1e-4)


def test_an_existing_encoder_is_adapted_as_a_language_model(data, tmp_path, caplog):
    words = word_tokenizer(training_texts(data)["text"])
    words.add_special_tokens({"sep_token": "</s>", "pad_token": "[UNK]"})
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path / "encoder")
    words.save_pretrained(tmp_path / "encoder")
    settings = {"adapt": str(tmp_path / "encoder"), "steps": 40, "learning_rate": 3e-3}
    report = train_corpus_lm(data, tmp_path / "lm", changed(**settings))
    assert report["perplexity"]["after"] < 0.7 * report["perplexity"]["before"]
    caplog.clear()
    lm = load_causal_lm(tmp_path / "lm")
    assert type(lm.model).__name__ == "BertLMHeadModel" and lm.model.config.is_decoder and not caplog.text
    assert load_encoder(str(tmp_path / "lm")).dim == 32
    with pytest.raises(ConfigError, match=r"block is 100, but .* reads 64 tokens"):
        train_corpus_lm(data, tmp_path / "other", changed(**settings, block=100, context=100))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"architecture": "gpt5"}, "architecture is 'gpt5'; accepted: llama, qwen2"),
        ({"vocab_size": 100}, "vocab_size is 100; give at least 260"),
        ({"hidden_size": 50}, "hidden_size is 50; give a multiple of 32"),
        ({"layers": 0}, "layers is 0; give at least 1"),
        ({"context": 8}, "context is 8; give at least block, 16"),
        ({"minutes": 0.0}, "give numbers above 0"),
        ({"learning_rate": -1.0}, "give numbers above 0"),
    ],
)
def test_settings_out_of_range_are_named(settings, says):
    with pytest.raises(ConfigError, match=says):
        changed(**settings)


def test_a_loss_that_is_not_finite_saves_nothing(data, tmp_path):
    with pytest.raises(ConfigError, match=r"loss is nan at step .*give a lower learning_rate than"):
        train_corpus_lm(data, tmp_path / "lm", changed(learning_rate=1e30))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_refused_before_any_work(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something else"):
        train_corpus_lm(data, tmp_path, changed(steps=10**6))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_command_line(tiny_data: Path, tmp_path, capsys):
    folder, output = str(tiny_data / "tiny"), tmp_path / "lm"
    small = ["--vocab-size", "300", "--hidden-size", "32", "--layers", "1", "--steps", "4"]
    assert main(["--data", folder, "--output", str(output), "--split", "0.7", "0.85", *small]) == 0
    said = capsys.readouterr().out
    assert "held-out texts" in said and "tokens/s" in said and said.count("\n") == 1
    before = json.loads((output / "corpus_lm.json").read_text())["data"]["split"]["texts_before"]
    inter = Tables.load(folder).inter_time
    assert before == inter[int(0.7 * len(inter))]
    for split, kind in (["LS"], "LS"), (["--split=-2d,-1d"], "time"), (['{"RS": [0.8, 0.1, 0.1]}'], "RS"):
        words = split if split[0].startswith("--") else ["--split", *split]
        assert main(["--data", folder, "--output", str(output), *words, *small]) == 0
        assert json.loads((output / "corpus_lm.json").read_text())["data"]["split"]["kind"] == kind
    capsys.readouterr()
    for wrong, says in {
        ("--data", str(tmp_path / "nothing")): "nothing.inter is missing",
        ("--data", folder, "--layers", "0"): "layers is 0",
        ("--data", folder, "--split", "0.9", "0.8"): "give the earlier boundary first",
        ("--data", folder, "--split", "{time: ["): "is not YAML",
        ("--data", folder, "--adapt", str(tmp_path / "none")): "is a folder that does not exist",
    }.items():
        assert main([*wrong, "--output", str(tmp_path / "other")]) == 2
        error = capsys.readouterr().err
        assert says in error and error.strip().count("\n") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["lm"]


def test_histories_hold_training_targets_and_nothing_later(data):
    texts = pl.concat([data.tables.titles, data.tables.contents])
    tokenizer = byte_tokenizer(texts)
    rows = history_rows(data, tokenizer, prompts="en", context=4096, length=2048, seed=3)
    read = tokenizer.decode(np.concatenate([next(rows).ravel() for _ in range(40)]))
    assert "recommend the next video" in read and "potentially interactive comment" in read
    assert "marker" not in read
    assert "these interaction histories:early title" in read.replace(": ", ":")  # an instruction, then its target
    again = history_rows(data, tokenizer, prompts="en", context=4096, length=2048, seed=3)
    assert tokenizer.decode(np.concatenate([next(again).ravel() for _ in range(40)])) == read


def test_the_share_of_histories_is_kept():
    drawn = _mixed(iter("a" * 100), iter("b" * 100), 0.7)
    assert "".join(itertools.islice(drawn, 20)).count("b") == 14  # type: ignore[arg-type]


def test_histories_teach_the_next_title(data, tmp_path):
    """Every user watches the videos in one order: who has read histories finds the next title less surprising."""
    found = []
    for share in (0.0, 0.8):
        config = dataclasses.replace(SMALL, hidden_size=64, context=1024, block=128, steps=120, histories=share)
        folder = tmp_path / str(share)
        train_corpus_lm(data, folder, config)
        lm = load_causal_lm(folder)
        collate = AlignmentCollator(
            AlignmentInstances(data, tasks=["video"]),
            Instructions(lm.tokenizer, PromptFamily.load("en"), context=1024),
            max_history=6,
        )
        batch = collate(np.arange(8), 0)
        with torch.no_grad():
            logits = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        found.append(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten()))
    assert found[1] < 0.8 * found[0]


def byte_tokenizer(texts: pl.Series):
    return _new_tokenizer(texts, dataclasses.replace(SMALL, context=4096))
