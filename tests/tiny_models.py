"""Tiny language models of many architectures and their tokenizers, made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="language models need transformers")
tokenizers = pytest.importorskip("tokenizers", reason="the tiny tokenizers of these tests need tokenizers")

WORDS = ["best", "game", "music", "ever", "this", "theme", "of", "the", "boss", "level", "makes", "me", "cry", "2201"]
CAUSAL = ("llama", "qwen2", "glm", "glm4", "gpt2", "opt")
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
    "opt": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
}


def byte_tokenizer(texts: Sequence[str] = (" ".join(WORDS),), size: int = 280, **names: str):
    """Byte-level BPE, as GPT-2's and Llama 3's, of `texts`: EOS is its only special token unless `names` say otherwise,
    and none stands around a text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(names or {"eos_token": "<|end|>"}))


def word_tokenizer(padding_side: str = "right"):
    """Whole words between [CLS] and [SEP], as BERT's, the rest unknown: no EOS, and RoBERTa's pad id 1."""
    vocabulary = {word: i for i, word in enumerate(["[CLS]", "[PAD]", "[SEP]", "[UNK]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    names = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=padding_side, **names)


def tiny_model(kind: str, vocabulary: int, layers: int = 2, seed: int = 5, positions: int = POSITIONS):
    torch.manual_seed(seed)
    common = {"vocab_size": vocabulary, "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2}
    common |= {"intermediate_size": 32, "max_position_embeddings": positions, "pad_token_id": None}
    grouped = {**common, "num_key_value_heads": 1}
    if kind == "gpt2":
        sizes = {"n_positions": positions, "n_embd": 16, "n_layer": layers, "n_head": 2}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=vocabulary, **sizes))
    elif kind == "opt":
        sizes = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "ffn_dim": 32}
        sizes |= {"word_embed_proj_dim": 16, "max_position_embeddings": positions}
        model = transformers.OPTForCausalLM(transformers.OPTConfig(vocab_size=vocabulary, **sizes))
    elif kind == "rwkv":
        sizes = {"hidden_size": 16, "num_hidden_layers": layers, "context_length": positions}
        model = transformers.RwkvForCausalLM(transformers.RwkvConfig(vocab_size=vocabulary, **sizes))
    elif kind == "mamba":
        sizes = {"hidden_size": 16, "num_hidden_layers": layers, "state_size": 4}
        model = transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=vocabulary, **sizes))
    elif kind == "bert":
        model = transformers.BertModel(transformers.BertConfig(**{**common, "pad_token_id": 1}))
    elif kind == "roberta":
        model = transformers.RobertaModel(transformers.RobertaConfig(**{**common, "pad_token_id": 1}))
    elif kind == "t5":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": layers, "num_heads": 2}
        sizes |= {"pad_token_id": 1, "decoder_start_token_id": 1}
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=vocabulary, **sizes))
    else:
        make_config, make_model, more = {
            "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
            "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, {}),
            "glm": (transformers.GlmConfig, transformers.GlmForCausalLM, {"head_dim": 8}),
            "glm4": (transformers.Glm4Config, transformers.Glm4ForCausalLM, {"head_dim": 8}),
        }[kind]
        model = make_model(make_config(**grouped, **more))
    with torch.no_grad():  # norms that do nothing would hide one that is left out, and a bias of 0 likewise
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def save(folder: Path, kind: str, *, tokenizer=None, **sizes: int) -> Path:
    tokenizer = tokenizer or (word_tokenizer() if kind in ("bert", "roberta", "t5") else byte_tokenizer())
    tokenizer.save_pretrained(folder)
    tiny_model(kind, len(tokenizer), **sizes).save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS).logits
