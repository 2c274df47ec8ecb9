"""Instructions of the supplemental recommender (Eq. 10): prompt families in YAML, rendered and cut to a token limit.

Users' texts are data: they are put on one line, fill slots in a single pass, and no part of them becomes a control
token of the tokenizer. `transformers` is not imported here; a tokenizer is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from recbole_lsvcr.alignment.text_tokens import ChatTokens, PlainTokens
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import properties_dir

Task = Literal["video", "comment"]
Parts = tuple[str, ...]  # a parsed text: literal, slot, literal, …, literal
FAMILIES = ("en", "zh")
MAX_COMMENTS = 3  # of a record, in its entry

_VIDEOS, _RECORDS = "VideoInterList", "CommentInterList"
_TASKS: dict[str, tuple[str, ...]] = {"video": (_VIDEOS, _RECORDS), "comment": (_VIDEOS, _RECORDS, "VideoTitle")}
_TEXTS: dict[str, tuple[str, ...]] = {
    "video_entry": ("Title", "Comment"),
    "video_entry_without_comment": ("Title",),
    "record_entry": ("Title", "Comments"),
    "record_entry_without_comments": ("Title",),
    "numbered": ("Number", "Entry"),
    "entry_separator": (),
    "comment_separator": (),
    "no_videos": (),
    "no_records": (),
    "no_title": (),
}
_SLOT = re.compile(r"\[([A-Za-z]+)\]")
# White space, control characters, and halves of characters, which no tokenizer takes.
_UNPRINTED = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


@dataclass(frozen=True)
class Entry:
    """One entry of a history: a video with none or one popular comment, a record with none to three of the user's."""

    title: str
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstructionInput:
    """What one instruction shows: `videos` and `records` oldest first, both possibly empty; `watched`, the title of the
    video being watched (task `comment`); `order`, which of the family's two slot orders.

    Raises:
        ConfigError: an unknown task or order.
    """

    task: Task
    videos: Sequence[Entry]
    records: Sequence[Entry]
    watched: str = ""
    order: int = 0

    def __post_init__(self) -> None:
        if self.task not in get_args(Task) or self.order not in (0, 1):
            raise ConfigError(
                f"an instruction of task {self.task!r} in order {self.order!r} does not exist; accepted: the tasks "
                "video and comment, the orders 0 and 1"
            )


@dataclass(frozen=True)
class PromptFamily:
    """The instructions of one language, from `PromptFamily.load`.

    `tasks`: two parsed instructions a task; `texts`: the other parsed texts by their keys in the YAML file.
    """

    name: str
    tasks: Mapping[str, Sequence[Parts]]
    texts: Mapping[str, Parts]

    @staticmethod
    def file(name_or_path: str | Path) -> Path:
        """Where a family lies."""
        name = str(name_or_path)
        return properties_dir() / "prompts" / f"{name}.yaml" if name in FAMILIES else Path(name).expanduser()

    @classmethod
    def load(cls, name_or_path: str | Path) -> PromptFamily:
        """A built-in family (`en`, `zh`), or one from a YAML file with the keys of the built-in ones.

        Raises:
            ConfigError: no such family or file, not YAML, unknown or missing keys, a slot missing, repeated or unknown.
        """
        name, path = str(name_or_path), cls.file(name_or_path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"prompts is {name!r}, neither a built-in family ({', '.join(FAMILIES)}) nor an existing YAML file; "
                "give one of these, or a copy of the built-in en.yaml in another language"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the prompt family {path}: {error}; give a YAML file in UTF-8") from error
        except yaml.YAMLError as error:
            raise ConfigError(
                f"the prompt family {path} is not valid YAML: {' '.join(str(error).split())}; put every text in quotes"
            ) from error
        accepted = (*_TASKS, *_TEXTS)
        if not isinstance(content, dict):
            raise ConfigError(
                f"the prompt family {path} holds no `key: text` lines; accepted are the keys {', '.join(accepted)}"
            )
        problems = [f"unknown key '{key}'" for key in content if key not in accepted]
        problems += [f"missing key '{key}'" for key in accepted if key not in content]
        problems += [problem for key in _TASKS if key in content for problem in _task_problems(key, content[key])]
        texts = [key for key in _TEXTS if key in content]
        problems += [problem for key in texts for problem in _problems(key, content[key], _TEXTS[key])]
        if problems:
            raise ConfigError(
                f"the prompt family {path} cannot be used: {'; '.join(problems)}. Accepted are the keys "
                f"{', '.join(accepted)}, each with the slots it has in the built-in en.yaml"
            )
        return cls(
            name,
            {key: [_parse(text.strip()) for text in content[key]] for key in _TASKS},
            {key: _parse(content[key]) for key in _TEXTS},
        )

    def instruction(self, given: InstructionInput, videos: Sequence[str], records: Sequence[str], watched: str) -> str:
        """The text of an instruction around rendered entries, still without numbers, and a title made of one line."""
        return _fill(
            self.tasks[given.task][given.order],
            {
                _VIDEOS: self.numbered(videos) or self._text("no_videos"),
                _RECORDS: self.numbered(records) or self._text("no_records"),
                "VideoTitle": watched or self._text("no_title"),
            },
        )

    def entry(self, kind: Literal["video", "record"], entry: Entry) -> str:
        """An entry's text, on one line and without its number."""
        shown, slot, without = (
            (1, "Comment", "video_entry_without_comment")
            if kind == "video"
            else (MAX_COMMENTS, "Comments", "record_entry_without_comments")
        )
        comments = [comment for comment in map(one_line, entry.comments[:shown]) if comment]
        title = one_line(entry.title) or self._text("no_title")
        key = f"{kind}_entry" if comments else without
        return _fill(self.texts[key], {"Title": title, slot: self._text("comment_separator").join(comments)})

    def numbered(self, entries: Sequence[str]) -> str:
        """The text of a history, of its entries' texts."""
        parts = self.texts["numbered"]
        return self._text("entry_separator").join(
            _fill(parts, {"Number": str(number), "Entry": entry}) for number, entry in enumerate(entries, start=1)
        )

    def _text(self, key: str) -> str:
        return self.texts[key][0]


class Instructions:
    """Instructions and targets as token ids.

    An instruction is the tokenizer's own leading special tokens (BOS, [CLS]) and the text, or with `chat_template` the
    tokenizer's chat template around the text as the user's turn, ready for the answer. Nothing stands behind it: no
    EOS, no [SEP].

    Args:
        tokenizer: a Hugging Face fast tokenizer with an EOS token. family: the language.
        context: positions of the language model. max_tokens: of an instruction. max_target_tokens: of a target, EOS
        included. An instruction has at most `limit` = min(max_tokens, context - max_target_tokens) tokens.

    Raises:
        ConfigError: a number out of range, a tokenizer that is not fast, without EOS or (where asked for) without a
        usable chat template, a limit too small for the words of an instruction.
    """

    def __init__(
        self,
        tokenizer: Any,
        family: PromptFamily,
        *,
        context: int,
        max_tokens: int = 3840,
        max_target_tokens: int = 256,
        chat_template: bool = False,
    ) -> None:
        numbers = {"context": context, "max_tokens": max_tokens, "max_target_tokens": max_target_tokens}
        for name, value in numbers.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; give a whole number of at least 1")
        self.tokenizer, self.family = tokenizer, family
        self.max_target_tokens = max_target_tokens
        self.limit = min(max_tokens, context - max_target_tokens)
        self._tokens = PlainTokens(tokenizer)
        self._eos: int = tokenizer.eos_token_id
        self._chat = ChatTokens(tokenizer, self._tokens) if chat_template else None
        self._number_tokens = len(self._tokens.plain([family.numbered(["", ""])])[0]) / 2
        self._check_shortest(numbers)

    def instruction(self, inputs: Sequence[InstructionInput]) -> list[list[int]]:
        """Token ids of each instruction, at most `limit`.

        Where the text is too long, the oldest entry of the history whose entries (without their numbers) have more
        tokens is dropped, of the videos when both have as many, until it fits; then the title being watched is cut.
        """
        drafts = [_Draft.of(given, self.family) for given in inputs]
        rows = self._encode([draft.text() for draft in drafts])
        long = [at for at, row in enumerate(rows) if len(row) > self.limit]
        shortened = self._shortened([drafts[at] for at in long], [len(rows[at]) for at in long])
        for at, row in zip(long, shortened, strict=True):
            rows[at] = row
        return rows

    def target(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text on one line, cut so that EOS at the end is at most the `max_target_tokens`-th."""
        cut = self.max_target_tokens - 1
        return [[*row[:cut], self._eos] for row in self._tokens.plain([one_line(text) for text in texts])]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._chat is not None:
            return self._chat.around(texts)
        return [self._tokens.leading + row for row in self._tokens.plain(texts)]

    def _shortened(self, drafts: list[_Draft], lengths: list[int]) -> list[list[int]]:
        """Ids of instructions that do not fit as they are: `lengths` tokens."""
        if not drafts:
            return []
        counts = iter(map(len, self._tokens.plain([entry for draft in drafts for entry in draft.entries])))
        searches = [
            _Search(
                draft,
                [next(counts) for _ in draft.videos],
                [next(counts) for _ in draft.records],
                self._number_tokens,
                length,
            )
            for draft, length in zip(drafts, lengths, strict=True)
        ]
        while going := [search for search in searches if not search.done]:
            steps = [search.next_step(self.limit) for search in going]
            texts = [search.text(step) for search, step in zip(going, steps, strict=True)]
            for search, step, row in zip(going, steps, self._encode(texts), strict=True):
                search.note(step, row, self.limit)
        return [self._with_cut_title(search.draft) if search.row is None else search.row for search in searches]

    def _with_cut_title(self, draft: _Draft) -> list[int]:
        """Ids of an instruction that does not fit even without entries: its title is cut, at a token's end."""
        ends = self._tokens.ends(draft.watched)
        kept = len(ends)
        bare = _Draft(draft.given, [], [], draft.watched, self.family)
        while len(row := self._encode([bare.text()])[0]) > self.limit and kept:
            kept = max(0, kept - (len(row) - self.limit))
            bare.watched = draft.watched[: ends[kept - 1]].rstrip() if kept else ""
        return row

    def _check_shortest(self, numbers: Mapping[str, int]) -> None:
        for task in get_args(Task):
            for order in (0, 1):
                draft = _Draft.of(InstructionInput(task, (), (), order=order), self.family)
                needed = len(self._encode([draft.text()])[0])
                if needed > self.limit:
                    raise ConfigError(
                        f"an instruction may have {self.limit} tokens (the smaller of max_tokens = "
                        f"{numbers['max_tokens']} and context - max_target_tokens = {numbers['context']} - "
                        f"{numbers['max_target_tokens']}), but the words of task {task} of the prompt family "
                        f"{self.family.name} alone have {needed}: give a larger max_tokens, a smaller "
                        "max_target_tokens, a model with a longer context, or shorter prompts"
                    )


@dataclass
class _Draft:
    """An instruction's rendered parts: entries without numbers, oldest first, and the title being watched."""

    given: InstructionInput
    videos: list[str]
    records: list[str]
    watched: str
    family: PromptFamily

    @classmethod
    def of(cls, given: InstructionInput, family: PromptFamily) -> _Draft:
        videos = [family.entry("video", entry) for entry in given.videos]
        records = [family.entry("record", entry) for entry in given.records]
        return cls(given, videos, records, one_line(given.watched), family)

    @property
    def entries(self) -> list[str]:
        return self.videos + self.records

    def text(self, videos: int = 0, records: int = 0) -> str:
        """The instruction without its oldest `videos` and `records`."""
        return self.family.instruction(self.given, self.videos[videos:], self.records[records:], self.watched)


@dataclass
class _Search:
    """The fewest entries to drop from one instruction. The order in which they go is known from their token counts; how
    many must go is guessed from the counts and confirmed on whole texts: `high` fits, `low` does not.
    """

    draft: _Draft
    videos: list[int]  # tokens of each entry
    records: list[int]
    number_tokens: float  # what an entry's number and separator add
    low_length: int
    row: list[int] | None = None  # of `high` dropped entries
    low: int = 0
    dropped: list[tuple[int, int]] = field(init=False)  # videos and records, by how many entries are dropped
    saved: NDArray[np.float64] = field(init=False)  # tokens, about, likewise

    def __post_init__(self) -> None:
        self.dropped, saved = [(0, 0)], [0.0]
        v = r = 0
        left = [sum(self.videos), sum(self.records)]
        while v < len(self.videos) or r < len(self.records):
            if r == len(self.records) or (v < len(self.videos) and left[0] >= left[1]):
                tokens, v = self.videos[v], v + 1
                left[0] -= tokens
            else:
                tokens, r = self.records[r], r + 1
                left[1] -= tokens
            self.dropped.append((v, r))
            saved.append(saved[-1] + tokens + self.number_tokens)
        self.saved = np.array(saved)
        self.high = len(self.dropped)  # nothing is known to fit

    @property
    def done(self) -> bool:
        return self.low + 1 == self.high

    def next_step(self, limit: int) -> int:
        """How many entries to try to drop next."""
        enough = self.saved[self.low] + self.low_length - limit
        return int(np.clip(np.searchsorted(self.saved, enough), self.low + 1, self.high - 1))

    def text(self, step: int) -> str:
        return self.draft.text(*self.dropped[step])

    def note(self, step: int, row: list[int], limit: int) -> None:
        if len(row) <= limit:
            self.high, self.row = step, row
        else:
            self.low, self.low_length = step, len(row)


def one_line(text: str) -> str:
    """`text` without line breaks and control characters: one space for each run of them and of white space."""
    return _UNPRINTED.sub(" ", text).strip()


def _parse(text: str) -> Parts:
    return tuple(_SLOT.split(text))


def _fill(parts: Parts, values: Mapping[str, str]) -> str:
    return "".join(values[part] if at % 2 else part for at, part in enumerate(parts))


def _task_problems(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) != 2:
        return [f"{key} must be a list of two instructions, one for each order of the two histories"]
    problems = [p for at, text in enumerate(value) for p in _problems(f"{key}[{at}]", text, _TASKS[key])]
    if problems:
        return problems
    problems = [f"{key}[{at}] must end with words, not with a slot" for at in (0, 1) if not _closing(value[at])]
    if len({value[at].index(f"[{_VIDEOS}]") < value[at].index(f"[{_RECORDS}]") for at in (0, 1)}) == 1:
        problems.append(f"one instruction of {key} must have [{_VIDEOS}] first, and the other [{_RECORDS}]")
    return problems


def _closing(text: str) -> str:
    return _parse(text)[-1].strip()


def _problems(key: str, value: Any, slots: tuple[str, ...]) -> list[str]:
    """What is wrong with one text of a family."""
    if not isinstance(value, str):
        return [f"{key} is {value!r}, not a text (put it in quotes)"]
    if not (value if key.endswith("_separator") else value.strip()):
        return [f"{key} is empty"]
    found = _parse(value)[1::2]
    wanted = ", ".join(f"[{slot}]" for slot in slots) or "no slot"
    problems = [f"{key} lacks [{slot}]" for slot in slots if slot not in found]
    problems += [f"{key} has [{slot}] {found.count(slot)} times" for slot in slots if found.count(slot) > 1]
    problems += [f"{key} has [{slot}], but takes {wanted}" for slot in dict.fromkeys(found) if slot not in slots]
    return problems
