"""Any causal language model loads, LoRA finds its layers, a checkpoint survives whatever happens; one message each."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recbole_lsvcr.alignment import checkpoint as checkpoint_module
from recbole_lsvcr.alignment.checkpoint import (
    load_alignment,
    load_sr_weights,
    read_description,
    save_alignment,
)
from recbole_lsvcr.alignment.load import LoadedLM, add_lora, base_model, load_causal_lm
from recbole_lsvcr.errors import CheckpointError, ConfigError, LSVCRError, StoreError
from recbole_lsvcr.folders import replaced_folder

transformers = pytest.importorskip("transformers", reason="language models need transformers")
tokenizers = pytest.importorskip("tokenizers", reason="the tiny tokenizers of these tests need tokenizers")
pytest.importorskip("peft", reason="LoRA needs peft")

WORDS = ["best", "game", "music", "ever", "this", "theme", "of", "the", "boss", "level"]
CAUSAL = ("llama", "qwen2", "glm", "glm4", "gpt2")
ALL = (*CAUSAL, "bert")
POSITIONS = 96
IDS = torch.tensor([[5, 9, 12, 7, 6, 11], [8, 5, 5, 10, 13, 4]])
# What a person would name as the linear layers of attention and feed-forward networks.
LAYERS = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "glm": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"],
    "glm4": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"],
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
}


def byte_tokenizer(**names: str):
    """Byte-level BPE with EOS alone, unless `names` say otherwise."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(names or {"eos_token": "<|end|>"}))


def word_tokenizer():
    """Whole words between [CLS] and [SEP], as BERT's: no EOS."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def tiny_model(kind: str, vocabulary: int, layers: int = 2, seed: int = 5):
    torch.manual_seed(seed)
    common = {"vocab_size": vocabulary, "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2}
    common |= {"intermediate_size": 32, "max_position_embeddings": POSITIONS, "pad_token_id": None}
    grouped = {**common, "num_key_value_heads": 1}
    if kind == "gpt2":
        sizes = {"n_positions": POSITIONS, "n_embd": 16, "n_layer": layers, "n_head": 2}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=vocabulary, **sizes))
    elif kind == "bert":
        model = transformers.BertModel(transformers.BertConfig(**{**common, "pad_token_id": 0}))
    else:
        make_config, make_model, more = {
            "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
            "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, {}),
            "glm": (transformers.GlmConfig, transformers.GlmForCausalLM, {"head_dim": 8}),
            "glm4": (transformers.Glm4Config, transformers.Glm4ForCausalLM, {"head_dim": 8}),
        }[kind]
        model = make_model(make_config(**grouped, **more))
    with torch.no_grad():  # norms that do nothing would hide one that is left out
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def save(folder: Path, kind: str, *, tokenizer=None, **sizes: int) -> Path:
    tokenizer = tokenizer or (word_tokenizer() if kind == "bert" else byte_tokenizer())
    tokenizer.save_pretrained(folder)
    tiny_model(kind, len(tokenizer), **sizes).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("language_models")
    return {kind: save(root / kind, kind) for kind in ALL}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_causal_model_loads_as_it_was_saved_frozen_with_eos_and_pad(folders, kind):
    lm = load_causal_lm(folders[kind])
    expected = transformers.AutoModelForCausalLM.from_pretrained(folders[kind], dtype=torch.float32).eval()
    torch.testing.assert_close(logits(lm.model), logits(expected))
    assert (lm.context, lm.hidden_size, lm.name) == (POSITIONS, 16, str(folders[kind]))
    assert not lm.model.training and not any(p.requires_grad for p in lm.model.parameters())
    assert lm.tokenizer.eos_token == lm.tokenizer.pad_token == "<|end|>"


@pytest.mark.parametrize("kind", ALL)
def test_the_base_model_gives_the_normed_states_that_the_head_reads(folders, kind):
    lm = load_causal_lm(folders[kind])
    for model in (lm.model, add_lora(lm.model)):
        with torch.no_grad():
            states = base_model(model)(input_ids=IDS).last_hidden_state
            head = lm.model.cls if kind == "bert" else lm.model.get_output_embeddings()
            torch.testing.assert_close(head(states), logits(model))


def test_an_encoder_is_loaded_as_a_decoder_with_a_head_that_is_new_and_the_same_each_time(folders, tmp_path, caplog):
    random_state = torch.random.get_rng_state()
    with caplog.at_level(logging.INFO):
        lm = load_causal_lm(folders["bert"])
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert type(lm.model).__name__ == "BertLMHeadModel" and lm.model.config.is_decoder
    assert "head" in caplog.text and "is new" in caplog.text and "[SEP] ends a text" in caplog.text
    assert lm.tokenizer.eos_token_id == 2 and lm.tokenizer.pad_token_id == 0
    torch.testing.assert_close(logits(load_causal_lm(folders["bert"]).model), logits(lm.model))
    later = IDS.clone()
    later[:, 4:] = 3
    with torch.no_grad():
        torch.testing.assert_close(lm.model(input_ids=later).logits[:, :4], logits(lm.model)[:, :4])
    encoder = transformers.AutoModel.from_pretrained(folders["bert"]).state_dict()
    for name, weight in lm.model.bert.state_dict().items():
        torch.testing.assert_close(weight, encoder[name])
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    caplog.clear()
    torch.testing.assert_close(logits(load_causal_lm(tmp_path).model), logits(lm.model))
    assert not caplog.text


def test_a_special_end_token_of_the_configuration_serves_for_a_tokenizer_that_names_none(tmp_path):
    tokenizer = byte_tokenizer(bos_token="<|begin|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|stop|>"]})
    save(tmp_path, "llama", tokenizer=tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    stop = tokenizer.convert_tokens_to_ids("<|stop|>")
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": [7, stop]}))
    assert load_causal_lm(tmp_path).tokenizer.eos_token_id == stop


def test_precision_and_the_fingerprint_of_the_files(folders, tmp_path):
    lm = load_causal_lm(folders["llama"], precision="bfloat16", name="tiny")
    assert lm.model.dtype == torch.bfloat16 and lm.name == "tiny"
    shutil.copytree(folders["llama"], tmp_path / "copy")
    assert load_causal_lm(tmp_path / "copy").fingerprint == lm.fingerprint
    assert load_causal_lm(save(tmp_path / "other", "llama", seed=6)).fingerprint != lm.fingerprint


def test_gradient_checkpointing_changes_no_gradient(folders):
    found = []
    for gradient_checkpointing in (False, True):
        lm = load_causal_lm(folders["llama"], gradient_checkpointing=gradient_checkpointing)
        torch.manual_seed(1)
        model = add_lora(lm.model, dropout=0.0).train()
        assert base_model(model).gradient_checkpointing is gradient_checkpointing
        model(input_ids=IDS).logits.square().mean().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert any(gradient.any() for gradient in found[0].values())
    torch.testing.assert_close(found[0], found[1])


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnBase(LlamaModel):
    config_class = OwnConfig

    def forward(self, *arguments, **options):
        found = super().forward(*arguments, **options)
        found.last_hidden_state = found.last_hidden_state.transpose(0, TURN)
        return found

class Own(LlamaForCausalLM):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = OwnBase(config)
        self.post_init()
"""


@pytest.mark.parametrize("turned", [False, True])
def test_own_code_runs_with_permission_and_must_give_states_text_by_text(folders, tmp_path, monkeypatch, turned):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder = tmp_path / f"own{int(turned)}"
    shutil.copytree(folders["llama"], folder)
    (folder / "own.py").write_text(OWN_CODE.replace("TURN", str(int(turned))))
    config = json.loads((folder / "config.json").read_text())
    names = {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps({**config, **names}))
    if turned:
        with pytest.raises(StoreError, match=r"gives states of shape \[2, 1, 16\] for one text of two tokens"):
            load_causal_lm(folder, trust_remote_code=True)
    else:
        found = load_causal_lm(folder, trust_remote_code=True)
        torch.testing.assert_close(logits(found.model), logits(load_causal_lm(folders["llama"]).model))


def _broken(defect: str, folders: dict[str, Path], folder: Path) -> Path:
    if defect == "no folder":
        return folder
    shutil.copytree(folders["llama"], folder)
    config = json.loads((folder / "config.json").read_text())
    if defect == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif defect == "no end":
        save(folder, "llama", tokenizer=byte_tokenizer(bos_token="<|begin|>"))
    elif defect == "large tokenizer":
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens(["<more>"])
        tokenizer.save_pretrained(folder)
    elif defect == "base weights":
        tiny_model("llama", config["vocab_size"]).model.save_pretrained(folder)
    elif defect == "cut weights":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif defect == "remote code":
        own = {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}, "model_type": "own"}
        (folder / "config.json").write_text(json.dumps(own))
    elif defect == "two parts":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
        transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("defect", "says"),
    [
        ("no folder", "does not exist; give a Hugging Face model folder or name or minilm"),
        ("no tokenizer", "tokenizer.save_pretrained"),
        ("no end", "has no EOS token.*set one of its tokens and save it"),
        ("large tokenizer", r"has \d+ tokens, its model only \d+: they do not belong together"),
        ("base weights", "lack 1 tensors of LlamaForCausalLM.*lm_head"),
        ("cut weights", "cannot be loaded"),
        ("remote code", "set trust_remote_code: true"),
        ("two parts", "is an encoder with a decoder"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_message(folders, tmp_path, defect, says):
    with pytest.raises(StoreError, match=says) as caught:
        load_causal_lm(_broken(defect, folders, tmp_path / "broken"))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("the ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "int8"}, "precision is 'int8'; accepted"),
        ({"device": "gpu9"}, "device is 'gpu9'; accepted"),
        ({"quantization": "2bit"}, "quantization is '2bit'; accepted: none, 4bit, 8bit"),
        ({"min_context": POSITIONS + 1}, f"reads at most {POSITIONS} tokens at once, {POSITIONS + 1} are needed"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(folders, options, says):
    with pytest.raises(LSVCRError, match=says):
        load_causal_lm(folders["llama"], **options)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantisation_without_bitsandbytes_is_refused(folders, quantization):
    with pytest.raises(ConfigError, match=f"quantization is {quantization}, which needs the package bitsandbytes"):
        load_causal_lm(folders["llama"], quantization=quantization)


def test_quantisation_is_passed_through_and_labelled_untested(folders, monkeypatch, caplog):
    given: dict[str, object] = {}

    def loads(source: object, **options: object):
        given.update(options)
        return tiny_model("llama", 281), {"missing_keys": set()}

    monkeypatch.setattr("recbole_lsvcr.alignment.load.importlib.util.find_spec", lambda package: True)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loads)
    load_causal_lm(folders["llama"], quantization="4bit")
    assert given["quantization_config"].load_in_4bit and given["device_map"] == {"": torch.device("cpu")}
    assert "4bit is passed through to bitsandbytes and untested" in caplog.text


# --- LoRA -------------------------------------------------------------------------------------------------------------


def adapted(model) -> set[str]:
    return {
        name.removesuffix(".lora_A") for name, _ in model.get_base_model().named_modules() if name.endswith("lora_A")
    }


@pytest.mark.parametrize("layers", [2, 5])  # PEFT shortens long lists of names, which must not match others
@pytest.mark.parametrize("kind", ALL)
def test_lora_is_on_every_linear_layer_of_attention_and_ffn_and_on_no_other(tmp_path, kind, layers):
    lm = load_causal_lm(save(tmp_path, kind, layers=layers))
    before, names = logits(lm.model), [name for name, _ in lm.model.named_modules()]
    model = add_lora(lm.model, r=4)
    in_blocks = [name for name in names if any(part.isdigit() for part in name.split("."))]
    wanted = {name for name in in_blocks if any(name.endswith(f".{layer}") for layer in LAYERS[kind])}
    assert adapted(model) == wanted and len(wanted) == layers * len(LAYERS[kind])
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_every_lora_layer_through_the_head_and_through_the_base_model(folders, kind):
    model = add_lora(load_causal_lm(folders[kind]).model, dropout=0.0)
    before = logits(model)
    lora = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for weight in lora.values():
            weight.copy_(torch.randn_like(weight) * 0.1)
    assert not torch.allclose(logits(model), before, atol=1e-3)
    for output in (model(input_ids=IDS).logits, base_model(model)(input_ids=IDS).last_hidden_state):
        model.zero_grad()
        (output * torch.randn_like(output)).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in lora.values())


def test_targets_are_names_or_their_ends(folders):
    names = adapted(add_lora(load_causal_lm(folders["llama"]).model, targets=["v_proj", "model.layers.1.mlp.up_proj"]))
    assert names == {"model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.up_proj"}
    only = add_lora(load_causal_lm(folders["gpt2"]).model, targets=("attn.c_proj",))
    assert adapted(only) == {"transformer.h.0.attn.c_proj", "transformer.h.1.attn.c_proj"}


@pytest.mark.parametrize("targets", [["query_key_value", "q_proj"], []])
def test_unknown_targets_are_named_with_what_there_is(folders, targets):
    with pytest.raises(
        ConfigError, match=r"lora_targets names no linear layer: (query_key_value|it is empty);"
    ) as caught:
        add_lora(load_causal_lm(folders["llama"]).model, targets=targets)
    assert "model.layers.*.self_attn.q_proj, " in str(caught.value) and str(caught.value).count("q_proj") == 1


@pytest.mark.parametrize("options", [{"r": 0}, {"alpha": 0}, {"dropout": 1.0}])
def test_lora_settings_out_of_range_are_named(folders, options):
    with pytest.raises(ConfigError, match="give r of at least 1"):
        add_lora(load_causal_lm(folders["llama"]).model, **options)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def trained(folder: Path, seed: int = 0, **options: int) -> tuple[LoadedLM, object]:
    """A model with LoRA weights as training might leave them."""
    lm = load_causal_lm(folder)
    model = add_lora(lm.model, **{"dropout": 0.0, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.requires_grad):
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return lm, model


def pair_state(seed: int = 0, width: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, width, generator=generator)
    return {"sr.merge.weight": weight, "sr.tied.weight": weight, "contrast_adapter.weight": weight[:2].clone()}


def write(folder: Path, base: Path, seed: int = 0) -> tuple[LoadedLM, object]:
    lm, model = trained(base, seed)
    description = {
        "base_model": lm.name,
        "base_fingerprint": lm.fingerprint,
        "settings": {"seed": seed},
        "sizes": (6, 4),
    }
    save_alignment(folder, pair_state=pair_state(seed), peft_model=model, description=description)
    return lm, model


def read(folder: Path, base: Path, **options: object):
    lm = load_causal_lm(base)
    return load_alignment(folder, lm.model, name=lm.name, fingerprint=lm.fingerprint, **options)


@pytest.fixture(scope="module")
def saved(folders, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "alignment"
    write(folder, folders["llama"])
    return folder


@pytest.mark.parametrize("kind", ALL)
def test_a_checkpoint_gives_back_what_was_saved(folders, tmp_path, kind):
    _, model = write(tmp_path / "alignment", folders[kind])
    found = read(tmp_path / "alignment", folders[kind], pair_shapes=pair_state(), expect={"sizes": (6, 4)})
    torch.testing.assert_close(logits(found.model), logits(model), rtol=0, atol=0)
    torch.testing.assert_close(found.pair_state, pair_state(), rtol=0, atol=0)
    assert found.description["format"] == 1 and "recbole-lsvcr" in found.description["written_by"]
    assert not any(p.requires_grad for p in found.model.parameters())
    files = {path.name: path.stat().st_size for path in (tmp_path / "alignment").iterdir()}
    assert files.keys() == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "alignment.safetensors",
        "alignment.json",
    }
    assert max(files.values()) < 2**24
    assert [path.name for path in tmp_path.iterdir()] == ["alignment"]


def test_an_adapter_goes_on_training_in_a_model_that_has_one_or_none(saved, folders):
    _, expected = trained(folders["llama"])
    lm, model = trained(folders["llama"], seed=9)
    found = load_alignment(saved, model, name=lm.name, fingerprint=lm.fingerprint)
    assert found.model is model
    for loaded in (model, read(saved, folders["llama"], trainable=True).model):
        torch.testing.assert_close(logits(loaded), logits(expected))
        assert sum(p.requires_grad for p in loaded.parameters()) == 2 * 2 * len(LAYERS["llama"])


def test_the_adapter_is_one_that_peft_alone_loads(saved, folders):
    import peft

    base = transformers.AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(base, saved)
    torch.testing.assert_close(logits(loaded.eval()), logits(trained(folders["llama"])[1]))


def test_the_sr_weights_need_neither_transformers_nor_peft_nor_recbole(saved):
    program = (
        "import sys\n"
        "for name in ('transformers', 'peft', 'recbole'): sys.modules[name] = None\n"
        "from recbole_lsvcr.alignment.checkpoint import load_sr_weights\n"
        f"print(sorted(load_sr_weights({str(saved)!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['merge.weight', 'tied.weight']", done.stderr
    torch.testing.assert_close(load_sr_weights(saved)["merge.weight"], pair_state()["sr.merge.weight"])


def _damaged(saved: Path, folder: Path, defect: str) -> Path:
    if defect == "missing":
        return folder
    shutil.copytree(saved, folder)
    manifest = folder / "alignment.json"
    if defect == "no checkpoint":
        manifest.unlink()
    elif defect == "other file":
        manifest.write_text("[1]")
    elif defect == "cut manifest":
        manifest.write_text(manifest.read_text()[:-9])
    elif defect == "format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    elif defect.startswith("no "):
        (folder / defect.removeprefix("no ")).unlink()
    else:
        path = folder / defect.removeprefix("cut ")
        path.write_bytes(path.read_bytes()[:-4])
    return folder


@pytest.mark.parametrize(
    ("defect", "says"),
    [
        ("missing", "there is no alignment checkpoint .* align first"),
        ("no checkpoint", "is no alignment checkpoint .it has no alignment.json."),
        ("other file", "is that of something else"),
        ("cut manifest", "has a damaged alignment.json"),
        ("format", "has format 2 .*this version reads format 1"),
        ("no adapter_config.json", "lacks adapter_config.json"),
        ("no adapter_model.safetensors", "lacks adapter_model.safetensors"),
        ("no alignment.safetensors", "lacks alignment.safetensors"),
        ("cut adapter_model.safetensors", "damaged: adapter_model.safetensors is cut short"),
        ("cut alignment.safetensors", "damaged: alignment.safetensors is cut short"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_one_message(saved, folders, tmp_path, defect, says):
    folder = _damaged(saved, tmp_path / "alignment", defect)
    lm = load_causal_lm(folders["llama"])
    with pytest.raises(CheckpointError, match=says) as caught:
        load_alignment(folder, lm.model, name=lm.name, fingerprint=lm.fingerprint)
    assert "\n" not in str(caught.value)


def test_what_differs_is_said(saved, folders, tmp_path):
    other = save(tmp_path / "other", "llama", seed=6)
    with pytest.raises(CheckpointError, match=r"belongs to the base model .*llama .*, not to .*other"):
        read(saved, other)
    wider = {**pair_state(width=7), "sr.more": torch.zeros(1)}
    with pytest.raises(
        CheckpointError, match=r"merge.weight has shape \[4, 6\], expected \[4, 7\]; sr.more is missing"
    ):
        read(saved, folders["llama"], pair_shapes=wider)
    with pytest.raises(CheckpointError, match="another one: seed is 0 there, 1 here; choose"):
        read(saved, folders["llama"], expect={"settings": {"seed": 1}})
    lm, model = trained(folders["llama"], r=4)
    with pytest.raises(CheckpointError, match=r"lora_A.weight has shape \[8, \d+\], expected \[4, \d+\]"):
        load_alignment(saved, model, name=lm.name, fingerprint=lm.fingerprint)
    lm, model = trained(folders["llama"])
    fewer = add_lora(load_causal_lm(folders["llama"]).model, targets=["q_proj"])
    with pytest.raises(CheckpointError, match="is not expected"):
        load_alignment(saved, fewer, name=lm.name, fingerprint=lm.fingerprint)


def test_a_folder_of_something_else_is_not_replaced(folders, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something else"):
        write(tmp_path, folders["llama"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_save_that_fails_leaves_the_former_checkpoint(saved, folders, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "alignment")
    lm, model = trained(folders["llama"], seed=1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    description = {"base_model": lm.name, "base_fingerprint": lm.fingerprint}
    with pytest.raises(OSError, match="No space left"):
        save_alignment(tmp_path / "alignment", pair_state=pair_state(1), peft_model=model, description=description)
    assert [path.name for path in tmp_path.iterdir()] == ["alignment"]
    torch.testing.assert_close(read(tmp_path / "alignment", folders["llama"]).pair_state, pair_state())


def _killed(folder: Path, new: Path, at: str, number: int) -> None:
    """Replace the checkpoint in a process that dies, as by kill -9, right before its `number`-th call of `at`."""
    child = os.fork()
    if child == 0:
        calls = iter(range(1, 100))
        owner, name = (shutil, "rmtree") if at == "rmtree" else (Path, at)
        original: Callable = getattr(owner, name)

        def dying(*args: object, **kwargs: object) -> object:
            return os._exit(9) if next(calls) == number else original(*args, **kwargs)

        setattr(owner, name, dying)
        try:
            with replaced_folder(folder, checkpoint_module.MANIFEST) as temporary:
                shutil.copytree(new, temporary, dirs_exist_ok=True)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize(("at", "number", "seed"), [("rename", 1, 0), ("rename", 2, 0), ("rmtree", 2, 1)])
def test_a_kill_at_any_point_leaves_a_checkpoint_that_loads_and_can_be_replaced(
    saved, folders, tmp_path, at, number, seed
):
    folder, new = tmp_path / "here" / "alignment", tmp_path / "new"
    shutil.copytree(saved, folder)
    write(new, folders["llama"], seed=1)
    _killed(folder, new, at, number)
    assert len(list(folder.parent.iterdir())) == 2  # something was left behind
    assert read_description(folder)["settings"] == {"seed": seed}
    assert torch.equal(load_sr_weights(folder)["merge.weight"], pair_state(seed)["sr.merge.weight"])
    write(folder, folders["llama"], seed=2)
    assert [path.name for path in folder.parent.iterdir()] == ["alignment"]
    torch.testing.assert_close(read(folder, folders["llama"]).pair_state, pair_state(2))
