"""A small language model made here, offline: from the training period's titles and comments alone.

    python -m recbole_lsvcr.alignment.corpus_lm --data dataset/my-data --output runs/corpus-lm --minutes 1

trains a byte-level BPE tokenizer and a Llama- or Qwen2-type model on them (`--adapt SOURCE`: goes on with an existing
model and its tokenizer instead, `minilm` for one), and saves both for `load_causal_lm` and `load_encoder`. Which texts
are read, `corpus.py` says.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
import yaml
from tqdm import tqdm

from dataset_tools.files import write_json
from recbole_lsvcr import __version__
from recbole_lsvcr.alignment.corpus import held_out_texts, texts_read, training_batches, training_texts
from recbole_lsvcr.alignment.load import LoadedLM, load_causal_lm
from recbole_lsvcr.alignment.perplexity import next_token_loss, perplexity
from recbole_lsvcr.data.joint import JointData
from recbole_lsvcr.data.tables import Tables
from recbole_lsvcr.encoding.pretrained import placement, quiet_transformers
from recbole_lsvcr.errors import ConfigError, LSVCRError
from recbole_lsvcr.folders import check_replaceable, replaced_folder

logger = logging.getLogger()

MANIFEST = "corpus_lm.json"
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
SPECIALS = (BOS, EOS, PAD)
LEAST_VOCABULARY = 260  # bytes and special tokens
HEAD_SIZE = 32
TOKENIZER_TEXTS = 50_000  # more do not change the vocabulary of a small tokenizer
WARMUP, LAST_RATE = 0.05, 0.1
LEFT_FOR_END = 0.2  # of the minutes, at most


@dataclass(frozen=True, kw_only=True)
class CorpusLMConfig:
    """How the model is made; a value that cannot be used raises ConfigError.

    Attributes:
        architecture: `llama` or `qwen2`. vocab_size, hidden_size, layers, context: its sizes; embeddings are tied.
        adapt: folder or hub name of a causal language model or encoder to go on with, or `minilm`; the sizes above and
            the architecture are its own then.
        histories: share of the steps, from 0 to below 1, that read users' training histories as instructions with their
            targets, by the prompt family `prompts`; the others read single texts.
        minutes: time for everything, tokenizer and evaluation included. steps: training steps instead (0: `minutes`).
        block, batch: tokens of a training sequence, sequences of a step; every fourth step has one long sequence.
        learning_rate: the highest; None: 3e-3 for a new model, 3e-4 for an adapted one.
        seed: of weights, held-out texts and order. device: as for `load_causal_lm`.
    """

    architecture: Literal["llama", "qwen2"] = "llama"
    adapt: str = ""
    histories: float = 0.0
    prompts: str = "en"
    vocab_size: int = 4096
    hidden_size: int = 128
    layers: int = 2
    context: int = 2048
    minutes: float = 1.0
    steps: int = 0
    block: int = 128
    batch: int = 4
    learning_rate: float | None = None
    seed: int = 2026
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.architecture not in ("llama", "qwen2"):
            raise ConfigError(f"architecture is {self.architecture!r}; accepted: llama, qwen2")
        least = {"vocab_size": LEAST_VOCABULARY, "hidden_size": HEAD_SIZE, "layers": 1, "block": 8, "batch": 1}
        for name, value in {**least, "steps": 0, "seed": 0}.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least {value}")
        if self.hidden_size % HEAD_SIZE:
            raise ConfigError(f"hidden_size is {self.hidden_size}; give a multiple of {HEAD_SIZE}")
        if self.context < self.block:
            raise ConfigError(f"context is {self.context}; give at least block, {self.block}")
        if not 0 <= self.histories < 1:
            raise ConfigError(f"histories is {self.histories}; give a share from 0 to below 1")
        if not self.minutes > 0 or not self.peak > 0:
            raise ConfigError(f"minutes is {self.minutes}, learning_rate {self.peak}; give numbers above 0")

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 3e-4 if self.adapt else 3e-3


# --- the model --------------------------------------------------------------------------------------------------------


def _new_tokenizer(texts: pl.Series, config: CorpusLMConfig) -> Any:
    """Byte-level BPE, which knows every character. As in its family, a text of Llama begins with BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    names: dict[str, Any] = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "model_max_length": config.context}
    if config.architecture == "qwen2":  # other tools take this class for the architecture, whatever is saved
        family = Qwen2Tokenizer(**names, unk_token=EOS)
        return family.train_new_from_iterator(texts, config.vocab_size, show_progress=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _new_model(tokenizer: Any, config: CorpusLMConfig) -> Any:
    import transformers

    kinds = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }
    make_config, make_model = kinds[config.architecture]
    return make_model(
        make_config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=round(config.hidden_size * 8 / 3 / HEAD_SIZE) * HEAD_SIZE,
            num_hidden_layers=config.layers,
            num_attention_heads=config.hidden_size // HEAD_SIZE,
            num_key_value_heads=config.hidden_size // HEAD_SIZE,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            use_cache=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


# --- training ---------------------------------------------------------------------------------------------------------


def train_corpus_lm(data: JointData, output: str | Path, config: CorpusLMConfig | None = None) -> dict[str, Any]:
    """Make the model from the training texts of `data` and save it in `output`; returns its `corpus_lm.json`.

    A folder that was made so from the same data and settings is left as it is. With `steps`, equal settings give equal
    weights on one machine with as many threads.

    Raises:
        ConfigError: settings that cannot be used, an output folder that holds something else, a loss that is not
        finite. DataError: too few texts. StoreError: the model to adapt cannot be had.
    """
    config = config or CorpusLMConfig()
    output = Path(output)
    started = time.perf_counter()
    source = load_causal_lm(config.adapt, device=config.device) if config.adapt else None
    head = {
        "data": {"name": data.tables.name, "fingerprint": data.tables.fingerprint, "split": texts_read(data)},
        "settings": {**asdict(config), "adapt_fingerprint": source.fingerprint if source else ""},
    }
    known = _read(output)
    if known is not None and {key: known.get(key) for key in head} == head:
        return known
    check_replaceable(output, MANIFEST)
    with torch.random.fork_rng():  # the caller's random numbers stay as they are
        torch.manual_seed(config.seed)
        model, tokenizer, made = _make(data, source, config, started)
    report = {"written_by": f"recbole-lsvcr {__version__}", **head, **made}
    with quiet_transformers(), replaced_folder(output, MANIFEST) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / MANIFEST, report)
    return report


def _make(
    data: JointData, source: LoadedLM | None, config: CorpusLMConfig, started: float
) -> tuple[Any, Any, dict[str, Any]]:
    """The trained model, its tokenizer, and what is to be said of them; `started` is when the minutes began."""
    rng = np.random.default_rng(config.seed)
    texts, held_out = held_out_texts(training_texts(data), rng)
    if source is None:
        sample = rng.permutation(texts.height)[:TOKENIZER_TEXTS]
        tokenizer = _new_tokenizer(texts["text"].gather(np.sort(sample)), config)
        model, context = _new_model(tokenizer, config).to(placement(config.device, "float32")[0]), config.context
    else:
        tokenizer, model, context = source.tokenizer, source.model.float().requires_grad_(True), source.context
        if context < config.block:
            raise ConfigError(f"block is {config.block}, but {config.adapt} reads {context} tokens; give less")
    parameters = sum(weight.numel() for weight in model.parameters())
    logger.info(
        f"Training a language model of {parameters:,} parameters, {len(tokenizer):,} tokens, on {texts.height:,} texts"
    )
    evaluated = time.perf_counter()
    before = perplexity(model, tokenizer, held_out, config.block)
    again = 2 * (time.perf_counter() - evaluated)  # what evaluation and saving will take at the end
    deadline = started + 60 * config.minutes - min(again, LEFT_FOR_END * 60 * config.minutes)
    batches = training_batches(
        data,
        texts,
        tokenizer,
        block=config.block,
        batch=config.batch,
        context=context,
        histories=config.histories,
        prompts=config.prompts,
        rng=rng,
        seed=config.seed,
    )
    trained = _train(model, batches, config, deadline)
    after = perplexity(model, tokenizer, held_out, config.block)
    titles = int(texts["is_title"].sum())
    return (
        model,
        tokenizer,
        {
            "texts": {"titles": titles, "comments": texts.height - titles, "held_out": held_out.len()},
            "parameters": parameters,
            "vocabulary": len(tokenizer),
            **trained,
            "perplexity": {"before": round(before, 2), "after": round(after, 2)},
            "seconds": round(time.perf_counter() - started, 1),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    )


def _train(model: Any, batches: Iterator[np.ndarray], config: CorpusLMConfig, deadline: float) -> dict[str, Any]:
    """AdamW with warm-up and cosine decay over the steps, or over the time until `deadline`; at least one step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.peak, betas=(0.9, 0.95))
    model.train()
    started = time.perf_counter()
    losses: list[float] = []
    seen = 0
    with tqdm(total=config.steps or None, desc="language model", unit="step", disable=None) as bar:
        while True:
            spent = time.perf_counter() - started
            progress = len(losses) / config.steps if config.steps else spent / max(deadline - started, 1e-9)
            if losses and progress >= 1:
                break
            for group in optimizer.param_groups:
                rising, falling = progress / WARMUP, (1 + math.cos(math.pi * min(progress, 1.0))) / 2
                group["lr"] = config.peak * max(LAST_RATE, min(rising, falling))
            ids = torch.from_numpy(next(batches)).to(model.device)
            seen += ids.numel()
            loss = next_token_loss(model, ids, None)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise ConfigError(
                    f"the language model's loss is {losses[-1]} at step {len(losses)}; nothing was saved; give a lower "
                    f"learning_rate than {config.peak}"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    seconds = time.perf_counter() - started
    return {
        "steps": len(losses),
        "tokens": seen,
        "tokens_per_second": round(seen / seconds),
        "training_seconds": round(seconds, 1),
    }


def _read(output: Path) -> dict[str, Any] | None:
    """The JSON of a model that was made here, if there is one."""
    try:
        found = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


# --- command line -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recbole_lsvcr.alignment.corpus_lm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set, such as dataset/my-data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    parser.add_argument(
        "--split",
        nargs="+",
        default=["0.8", "0.9"],
        metavar="WHERE",
        help="two boundaries in time (0.8 0.9, dates, --split=-2d,-1d), LS for leave-one-out, or the value of "
        "eval_args.split as YAML; what lies before the first is read (default: 0.8 0.9)",
    )
    default = CorpusLMConfig()
    for name, text in {
        "architecture": "llama or qwen2",
        "adapt": "model to go on with instead of a new one: a folder, a hub name, or minilm",
        "histories": "share of the steps that read users' training histories as instructions",
        "prompts": "prompt family of these instructions",
        "vocab_size": "tokens of the tokenizer",
        "hidden_size": "width",
        "layers": "number of layers",
        "context": "longest sequence it can read",
        "minutes": "time for everything",
        "steps": "training steps, instead of minutes",
        "block": "tokens of a training sequence",
        "batch": "sequences of a step",
        "seed": "of everything random",
        "device": "cpu, cuda or auto",
    }.items():
        value = getattr(default, name)
        shown = f" (default: {value})" if value else ""
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=text + shown)
    parser.add_argument("--learning-rate", type=float, default=None, help="default: 3e-3, with --adapt 3e-4")
    return parser


def _split(words: Sequence[str]) -> Mapping[str, Any]:
    """The value of `eval_args.split` from the words of the command line."""
    if words[0].lstrip().startswith("{"):
        try:
            return yaml.safe_load(" ".join(words))
        except yaml.YAMLError as error:
            raise ConfigError(f"--split {' '.join(words)} is not YAML: {str(error).splitlines()[0]}") from error
    given = ",".join(words).split(",")
    return {"LS": "valid_and_test"} if given == ["LS"] else {"time": given}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the model; 0 when done, 2 when something cannot be used, 130 when interrupted."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, output, split = options.pop("data"), options.pop("output"), options.pop("split")
    try:
        config = CorpusLMConfig(**options)
        known = _read(output)
        report = train_corpus_lm(JointData(Tables.load(folder), split=_split(split)), output, config)
    except (LSVCRError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing was saved\n")
        return 130
    texts, found = report["texts"], report["perplexity"]
    again = ", made before from these texts with these settings" if report == known else ""
    sys.stdout.write(
        f"{output}{again}: {report['parameters']:,} parameters, {report['vocabulary']:,} tokens; "
        f"{texts['titles']:,} titles and {texts['comments']:,} comments of {report['data']['name']}; "
        f"{report['steps']:,} steps, {report['tokens_per_second']:,} tokens/s; perplexity of {texts['held_out']} "
        f"held-out texts {found['before']:,} -> {found['after']:,}; {report['seconds']} s in all\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
