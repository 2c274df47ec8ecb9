"""Any causal language model loads, LoRA finds its layers; one message for each that cannot be used."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import ALL, CAUSAL, IDS, LAYERS, POSITIONS, byte_tokenizer, logits, save, tiny_model, transformers

from recbole_lsvcr.alignment.load import add_lora, base_model, load_causal_lm
from recbole_lsvcr.errors import ConfigError, LSVCRError, StoreError

pytest.importorskip("peft", reason="LoRA needs peft")


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_causal_model_loads_as_it_was_saved_frozen_with_eos_and_pad(tiny_lms, kind):
    lm = load_causal_lm(tiny_lms[kind])
    expected = transformers.AutoModelForCausalLM.from_pretrained(tiny_lms[kind], dtype=torch.float32).eval()
    torch.testing.assert_close(logits(lm.model), logits(expected))
    assert (lm.context, lm.hidden_size, lm.name) == (POSITIONS, 16, str(tiny_lms[kind]))
    assert not lm.model.training and not any(p.requires_grad for p in lm.model.parameters())
    assert lm.tokenizer.eos_token == lm.tokenizer.pad_token == "<|end|>"


@pytest.mark.parametrize("kind", ALL)
def test_the_base_model_gives_the_normed_states_that_the_head_reads(tiny_lms, kind):
    lm = load_causal_lm(tiny_lms[kind])
    for model in (lm.model, add_lora(lm.model)):
        with torch.no_grad():
            states = base_model(model)(input_ids=IDS).last_hidden_state
            head = lm.model.cls if kind == "bert" else lm.model.get_output_embeddings()
            torch.testing.assert_close(head(states), logits(model))


def test_an_encoder_is_loaded_as_a_decoder_with_a_head_that_is_new_and_the_same_each_time(tiny_lms, tmp_path, caplog):
    random_state = torch.random.get_rng_state()
    with caplog.at_level(logging.INFO):
        lm = load_causal_lm(tiny_lms["bert"])
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert type(lm.model).__name__ == "BertLMHeadModel" and lm.model.config.is_decoder
    assert "head" in caplog.text and "is new" in caplog.text and "[SEP] ends a text" in caplog.text
    assert lm.tokenizer.eos_token_id == 2 and lm.tokenizer.pad_token_id == 1
    torch.testing.assert_close(logits(load_causal_lm(tiny_lms["bert"]).model), logits(lm.model))
    later = IDS.clone()
    later[:, 4:] = 3
    with torch.no_grad():
        torch.testing.assert_close(lm.model(input_ids=later).logits[:, :4], logits(lm.model)[:, :4])
    encoder = transformers.AutoModel.from_pretrained(tiny_lms["bert"]).state_dict()
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


def test_precision_and_the_fingerprint_of_the_files(tiny_lms, tmp_path):
    lm = load_causal_lm(tiny_lms["llama"], precision="bfloat16", name="tiny")
    assert lm.model.dtype == torch.bfloat16 and lm.name == "tiny"
    shutil.copytree(tiny_lms["llama"], tmp_path / "copy")
    assert load_causal_lm(tmp_path / "copy").fingerprint == lm.fingerprint
    assert load_causal_lm(save(tmp_path / "other", "llama", seed=6)).fingerprint != lm.fingerprint


def test_gradient_checkpointing_changes_no_gradient(tiny_lms):
    found = []
    for gradient_checkpointing in (False, True):
        lm = load_causal_lm(tiny_lms["llama"], gradient_checkpointing=gradient_checkpointing)
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
def test_own_code_runs_with_permission_and_must_give_states_text_by_text(tiny_lms, tmp_path, monkeypatch, turned):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder = tmp_path / f"own{int(turned)}"
    shutil.copytree(tiny_lms["llama"], folder)
    (folder / "own.py").write_text(OWN_CODE.replace("TURN", str(int(turned))))
    config = json.loads((folder / "config.json").read_text())
    names = {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps({**config, **names}))
    if turned:
        with pytest.raises(StoreError, match=r"gives states of shape \[2, 1, 16\] for one text of two tokens"):
            load_causal_lm(folder, trust_remote_code=True)
    else:
        found = load_causal_lm(folder, trust_remote_code=True)
        torch.testing.assert_close(logits(found.model), logits(load_causal_lm(tiny_lms["llama"]).model))


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
        tiny_model("t5", config["vocab_size"]).save_pretrained(folder)
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
def test_a_model_that_cannot_be_used_is_one_message(tiny_lms, tmp_path, defect, says):
    with pytest.raises(StoreError, match=says) as caught:
        load_causal_lm(_broken(defect, tiny_lms, tmp_path / "broken"))
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
def test_arguments_that_cannot_be_used_are_named(tiny_lms, options, says):
    with pytest.raises(LSVCRError, match=says):
        load_causal_lm(tiny_lms["llama"], **options)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantisation_without_bitsandbytes_is_refused(tiny_lms, quantization):
    with pytest.raises(ConfigError, match=f"quantization is {quantization}, which needs the package bitsandbytes"):
        load_causal_lm(tiny_lms["llama"], quantization=quantization)


def test_quantisation_is_passed_through_and_labelled_untested(tiny_lms, monkeypatch, caplog):
    given: dict[str, object] = {}

    def loads(source: object, **options: object):
        given.update(options)
        return tiny_model("llama", 281), {"missing_keys": set()}

    monkeypatch.setattr("recbole_lsvcr.alignment.load.importlib.util.find_spec", lambda package: True)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loads)
    load_causal_lm(tiny_lms["llama"], quantization="4bit")
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
def test_gradients_reach_every_lora_layer_through_the_head_and_through_the_base_model(tiny_lms, kind):
    model = add_lora(load_causal_lm(tiny_lms[kind]).model, dropout=0.0)
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


def test_targets_are_names_or_their_ends(tiny_lms):
    names = adapted(add_lora(load_causal_lm(tiny_lms["llama"]).model, targets=["v_proj", "model.layers.1.mlp.up_proj"]))
    assert names == {"model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.up_proj"}
    only = add_lora(load_causal_lm(tiny_lms["gpt2"]).model, targets=("attn.c_proj",))
    assert adapted(only) == {"transformer.h.0.attn.c_proj", "transformer.h.1.attn.c_proj"}


@pytest.mark.parametrize("targets", [["query_key_value", "q_proj"], []])
def test_unknown_targets_are_named_with_what_there_is(tiny_lms, targets):
    with pytest.raises(
        ConfigError, match=r"lora_targets names no linear layer: (query_key_value|it is empty);"
    ) as caught:
        add_lora(load_causal_lm(tiny_lms["llama"]).model, targets=targets)
    assert "model.layers.*.self_attn.q_proj, " in str(caught.value) and str(caught.value).count("q_proj") == 1


def test_layers_that_cannot_be_adapted_are_one_message(tmp_path):
    """Mamba's own kernels read the weight of `out_proj` beside PEFT."""
    save(tmp_path, "mamba")
    with pytest.raises(ConfigError, match="LoRA cannot be put on these layers of MambaForCausalLM") as caught:
        add_lora(load_causal_lm(tmp_path).model)
    told = str(caught.value)
    assert "'out_proj'" in told and "lora_targets: backbone.layers.*.mixer.in_proj" in told and "\n" not in told
    names = adapted(add_lora(load_causal_lm(tmp_path).model, targets=["in_proj"]))
    assert names == {f"backbone.layers.{layer}.mixer.in_proj" for layer in range(2)}


@pytest.mark.parametrize("options", [{"r": 0}, {"alpha": 0}, {"dropout": 1.0}])
def test_lora_settings_out_of_range_are_named(tiny_lms, options):
    with pytest.raises(ConfigError, match="give r of at least 1"):
        add_lora(load_causal_lm(tiny_lms["llama"]).model, **options)
