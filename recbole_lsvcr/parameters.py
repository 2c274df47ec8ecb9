"""Every parameter this package adds to RecBole's: type, accepted values, meaning. Defaults live in `properties/`.

The configuration check, its messages and the README's table are made from this one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_lsvcr.parameter_checks import (
    PROTOCOL_FORM,
    Parameter,
    at_least,
    between,
    is_bool,
    is_comment_protocol,
    is_number,
    is_protocol,
    is_text,
    list_of,
    one_of,
)

PARAMETERS: tuple[Parameter, ...] = (
    # the run
    Parameter(
        "task",
        "video, comment, both",
        one_of("video", "comment", "both"),
        "what is ranked; both: one alignment, one text store, two fine-tunings, one report",
    ),
    Parameter(
        "joint", "True, False", is_bool, "with task both: one model for both tasks, their training batches alternating"
    ),
    Parameter(
        "stage",
        "prepare, align, encode, finetune, evaluate, all",
        one_of("prepare", "align", "encode", "finetune", "evaluate", "all"),
        "the stage to run",
    ),
    Parameter("output", "a folder", is_text, "where the run keeps everything it writes"),
    Parameter(
        "custom_model",
        "my_module:MyModel, or nothing",
        is_text,
        "where a model of yours is; kept here when `model` is given in this form",
        True,
    ),
    # the joint data set
    Parameter(
        "data_cache",
        "True, False",
        is_bool,
        "keep data of 16 MiB or more in columns beside the atomic files (`<name>.cache/`), from which the next start "
        "maps them; made anew when a file changes",
    ),
    Parameter(
        "MAX_RECORD_LIST_LENGTH",
        "an integer >= 1, or nothing",
        at_least(1),
        "comment records kept in a history; nothing: as many as videos (`MAX_ITEM_LIST_LENGTH`)",
        True,
    ),
    Parameter(
        "record_gap",
        "seconds > 0",
        lambda value: is_number(value) and value > 0,
        "comment interactions of a user under a video further apart than this are two records",
    ),
    Parameter(
        "popular_top",
        "an integer >= 1",
        at_least(1),
        "in training a video is shown with one of its most popular comments, drawn among this many",
    ),
    Parameter(
        "reads_comments",
        "True, False",
        is_bool,
        "whether batches carry comments and comment records (the model reads them)",
    ),
    Parameter(
        "attribute_min_videos",
        "an integer >= 1",
        at_least(1),
        "attributes of videos (`tags` …): values that fewer videos have are left out, for every model that reads them",
    ),
    # evaluation
    Parameter(
        "valid_protocol",
        f"{PROTOCOL_FORM}, or nothing",
        is_protocol,
        "the ranking that chooses the best epoch; nothing: what `eval_args.mode` of RecBole says",
        True,
    ),
    Parameter(
        "protocols",
        f"a list of {PROTOCOL_FORM}",
        list_of(is_protocol),
        "the rankings reported, all made from one pass of the model",
    ),
    Parameter(
        "comment_valid_protocol",
        "available+uniform, available+full, or nothing",
        is_comment_protocol,
        "as `valid_protocol`, for comments",
        True,
    ),
    Parameter(
        "comment_protocols",
        "a list of available+uniform, available+full",
        list_of(is_comment_protocol),
        "as `protocols`, for comments: those of the watched video that were there at the time",
    ),
    Parameter(
        "comment_list_limit",
        "an integer >= 0",
        at_least(0),
        "videos with more candidate comments than this are left out of `available+full` (and counted); 0: none is",
    ),
    Parameter("report_phases", "a list of valid, test", list_of(one_of("valid", "test")), "the phases reported"),
    Parameter("sample_num", "an integer >= 1", at_least(1), "negatives of a sampled ranking"),
    Parameter(
        "candidate_seed",
        "an integer >= 0",
        at_least(0),
        "seed of the stored candidate sets, apart from `seed` so that all seeds and models rank the same lists",
    ),
    Parameter(
        "save_instances", "True, False", is_bool, "keep the metrics of every instance as Parquet in the output folder"
    ),
    # training on comments
    Parameter(
        "train_negatives",
        "uniform, popular, hard",
        one_of("uniform", "popular", "hard"),
        "which comments of the video a positive is trained against: random ones, in proportion to 1 + their training "
        "interactions, or those nearest to it by text",
    ),
    Parameter("train_negative_num", "an integer >= 1", at_least(1), "how many of them"),
    # text
    Parameter(
        "text_encoder",
        "auto, minilm, hashing, a Hugging Face name or folder",
        is_text,
        "what turns titles and comments into vectors; auto: minilm where installed, else hashing",
    ),
    Parameter(
        "alignment",
        "off, a preset (cpu-small, one-gpu-7b, eight-gpu-7b), a YAML file, or a mapping of settings",
        lambda value: value is False or is_text(value) or (isinstance(value, dict) and bool(value)),
        "preference alignment before fine-tuning; its text vectors then take the place of `text_encoder`'s",
    ),
    Parameter(
        "alignment_folder",
        "a folder, or nothing",
        is_text,
        "an existing (or to be made) alignment, which several runs may share; nothing: one inside the output folder",
        True,
    ),
    Parameter(
        "alignment_seed",
        "an integer >= 0, or nothing",
        at_least(0),
        "seed of the alignment, so that runs with other seeds share one; nothing: `seed`",
        True,
    ),
    Parameter(
        "text_store",
        "a folder, or nothing",
        is_text,
        "an existing (or to be made) text store; nothing: one inside the output folder",
        True,
    ),
    Parameter(
        "text_pooling",
        "mean, first, last",
        one_of("mean", "first", "last"),
        "how the states of a text's tokens become one vector (Eq. 1)",
    ),
    Parameter("text_dtype", "float32, float16", one_of("float32", "float16"), "number format of the stored vectors"),
    Parameter(
        "text_transform",
        "none, mask_digits",
        one_of("none", "mask_digits"),
        "change of every text before encoding; mask_digits hides running numbers in titles",
    ),
    Parameter("text_max_tokens", "an integer >= 8", at_least(8), "texts are cut at this many tokens"),
    Parameter(
        "text_batch_tokens",
        "an integer >= 64, or nothing",
        at_least(64),
        "tokens, padding included, of one encoding batch; nothing: what suits the device",
        True,
    ),
    Parameter(
        "max_unknown_share",
        "a number from 0 to 1",
        between(0, 1),
        "encoding stops when more of the tokens than this are unknown to the encoder (wrong language)",
    ),
    Parameter("trust_remote_code", "True, False", is_bool, "allow a model folder to run its own code"),
    # `--benchmark`; single runs do not read these
    Parameter(
        "benchmark",
        "a list of models, or of {name, model, settings …}; nothing: all of the task",
        list_of(lambda value: is_text(value) or isinstance(value, dict)),
        "what `--benchmark` without names compares with LSVCR",
        True,
    ),
    Parameter(
        "seeds",
        "a list of integers >= 0, or nothing",
        list_of(at_least(0)),
        "seeds of every model of a benchmark, the first also of its tuning; nothing: `seed` alone",
        True,
    ),
    Parameter(
        "tune",
        "{budget: N, space: {parameter: [choices] or {low, high, log}}}, off, or nothing",
        lambda value: value is False or isinstance(value, dict),
        "trials of every model, chosen by validation; nothing: the paper's five learning rates",
        True,
    ),
    Parameter(
        "model_settings",
        "{model: {parameter: value}}, or nothing",
        lambda value: isinstance(value, dict) and all(isinstance(settings, dict) for settings in value.values()),
        "settings of one model of a benchmark",
        True,
    ),
)

MODEL_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("video_context", "True, False", is_bool, "off: the comment model reads no video history (LSVCRComment)"),
    Parameter(
        "trainable_text",
        "minilm, a Hugging Face name or folder, or nothing",
        is_text,
        "an encoder that a comment baseline trains, in place of the text store's frozen vectors",
        True,
    ),
    Parameter("trainable_text_tokens", "an integer >= 8", at_least(8), "where it cuts a text"),
    Parameter("hidden_size", "an integer >= 1", at_least(1), "model size d"),
    Parameter("text_size", "an integer >= 1", at_least(1), "text-embedding size E"),
    Parameter("n_layers", "an integer >= 1", at_least(1), "layers of each of the two encoders"),
    Parameter("n_heads", "an integer >= 1", at_least(1), "attention heads"),
    Parameter("inner_size", "an integer >= 1", at_least(1), "inner size of the feed-forward layers"),
    Parameter("hidden_dropout_prob", "a number from 0 to 1", between(0, 1), "dropout of hidden states"),
    Parameter("attn_dropout_prob", "a number from 0 to 1", between(0, 1), "dropout of attention weights"),
    Parameter("hidden_act", "gelu, relu", one_of("gelu", "relu"), "activation of the feed-forward layers"),
    Parameter("layer_norm_eps", "a number from 0 to 1", between(0, 1), "epsilon of the layer normalisations"),
    Parameter("initializer_range", "a number from 0 to 1", between(0, 1), "standard deviation of the initial weights"),
    Parameter(
        "temperature",
        "a number > 0",
        lambda value: is_number(value) and value > 0,
        "temperature of every contrastive loss and score",
    ),
    Parameter("use_id", "True, False", is_bool, "add gated video ids to the text (Eq. 18); off: text only, no REG"),
    Parameter(
        "id_text_weight",
        "a number >= 0",
        lambda value: is_number(value) and value >= 0,
        "weight of the id-text regularisation L_REG (Eq. 17); 0 switches it off",
    ),
    Parameter(
        "id_text_negatives",
        "an integer >= 1",
        at_least(1),
        "negatives per direction of L_REG, shared by the rows of a stream",
    ),
    Parameter(
        "train_candidates",
        "all, seen",
        one_of("all", "seen"),
        "whether the training softmax offers videos that never occur in training",
    ),
    Parameter("attribute_size", "an integer >= 1", at_least(1), "columns of `hidden_size` for each attribute (DMT)"),
    Parameter("decoder_layers", "an integer >= 1", at_least(1), "layers in which a candidate asks a history (DMT)"),
    Parameter("n_experts", "an integer >= 1", at_least(1), "experts of the mixture (DMT), of the adaptor (UniSRec)"),
    Parameter("expert_sizes", "a list of integers >= 1", list_of(at_least(1)), "layer sizes of an expert (DMT)"),
    Parameter("tower_size", "an integer >= 1", at_least(1), "hidden size between the mixture and the logit (DMT)"),
    Parameter(
        "train_loss",
        "bce, softmax",
        one_of("bce", "softmax"),
        "binary cross-entropy of a positive and its negatives, or the softmax over them (DMT)",
    ),
    Parameter("video_negatives", "an integer >= 1", at_least(1), "negatives drawn for each positive in training (DMT)"),
    Parameter(
        "pairs_at_once",
        "an integer >= 1",
        at_least(1),
        "instances times candidates in memory at a time in evaluation; changes no score (DMT)",
    ),
    Parameter("transductive", "True, False", is_bool, "UniSRec: add ids to the text; off: text alone (inductive)"),
    Parameter("adaptor_dropout_prob", "a number from 0 to 1", between(0, 1), "UniSRec: dropout of text vectors"),
    Parameter(
        "max_events",
        "an integer >= 1, or nothing",
        at_least(1),
        "MBHT: events kept of the merged history; nothing: as many as both histories may have",
        True,
    ),
    Parameter("low_rank", "an integer >= 1", at_least(1), "MBHT: C, by which keys and values are fewer than events"),
    Parameter("scales", "a list of integers >= 1", list_of(at_least(1)), "MBHT: the events p1, p2 … of a sub-sequence"),
    Parameter(
        "n_hypergraph_layers",
        "an integer >= 1",
        at_least(1),
        "MBHT: hypergraph convolutions, whose states are averaged",
    ),
    Parameter("hyperedge_size", "an integer >= 1", at_least(1), "MBHT: k, the most events of a semantic hyperedge"),
    Parameter("metric_channels", "an integer >= 1", at_least(1), "MBHT: channels of the similarity of videos"),
    Parameter(
        "mask_ratio",
        "a number from 0 to 1",
        between(0, 1),
        "MBHT: share of the watched videos masked in training, besides the target",
    ),
    Parameter(
        "window_before",
        "an integer >= 1",
        at_least(1),
        "MBHT: events before a masked video whose mean is its state in the hypergraph",
    ),
    Parameter("window_after", "an integer >= 0", at_least(0), "MBHT: as many after it"),
)

# The files that have their defaults: those of every model, of ours, of others.
FILES = ("overall", "model/LSVCR", "model/LSVCRComment", "model/DMT", "model/MBHT", "model/SASRecText", "model/UniSRec")
BY_NAME: Mapping[str, Parameter] = {parameter.name: parameter for parameter in (*PARAMETERS, *MODEL_PARAMETERS)}


def markdown_table() -> str:
    """The README's table: name, default (LSVCR's, then those of models with another one), accepted, meaning."""
    from recbole_lsvcr.registry import properties_dir
    from recbole_lsvcr.yaml_files import read_yaml

    defaults = {file.removeprefix("model/"): read_yaml(properties_dir() / f"{file}.yaml") for file in FILES}
    lines = ["| parameter | default | accepted | meaning |", "|---|---|---|---|"]
    for parameter in BY_NAME.values():
        row = [f"`{parameter.name}`", _default(parameter.name, defaults), parameter.accepted, parameter.meaning]
        lines.append("| " + " | ".join(cell.replace("|", "&#124;") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _default(name: str, defaults: Mapping[str, Mapping[str, Any]]) -> str:
    models: dict[str, list[str]] = {}
    for model, values in defaults.items():
        if values.get(name) is not None:
            models.setdefault(f"`{values[name]}`", []).append(model)
    main = {"overall", "LSVCR", "LSVCRComment"}
    return "; ".join(
        value if main & set(having) or len(models) == 1 else f"{', '.join(having)}: {value}"
        for value, having in models.items()
    )


def main(arguments: list[str]) -> int:
    """`python -m recbole_lsvcr.parameters README.md` renews the table between the file's `parameters` marks."""
    from pathlib import Path

    from dataset_tools.files import atomic_path

    file = Path(arguments[0])
    start, end = "<!-- parameters -->\n", "<!-- /parameters -->"
    before, _, rest = file.read_text(encoding="utf-8").partition(start)
    after = rest.partition(end)[2]
    with atomic_path(file) as temporary:
        temporary.write_text(before + start + markdown_table() + end + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
