"""Token ids of users' texts, in which nothing is special, and of a chat template around them.

`transformers` is not imported here; a tokenizer is handed in.
"""

from __future__ import annotations

import re
from typing import Any

from recbole_lsvcr.errors import ConfigError

# Added tokens of this form steer a model even where the tokenizer does not call them special (`<think>`, `[INST]`).
_CONTROL = re.compile(r"<.*>|\[.*\]", re.DOTALL)
_PROBE = "LSVCRINSTRUCTION"


class PlainTokens:
    """A copy of a tokenizer's backend for users' texts: no padding, no cut, and no control token out of a text.

    `control`: ids of control tokens. `leading`: ids that the tokenizer puts in front of a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"the tokenizer of {name} is a {type(tokenizer).__name__}, not a fast one; give a model folder with a "
                "tokenizer.json (save_pretrained of a fast tokenizer writes it)"
            )
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"the tokenizer of {name} has no end-of-sequence token, which ends a target; set tokenizer.eos_token "
                "to a token of its vocabulary ('</s>', '[SEP]') and save it beside the model with save_pretrained"
            )
        self.backend = _copied(tokenizer.backend_tokenizer)
        added = self.backend.get_added_tokens_decoder()
        control = {at: token for at, token in added.items() if token.special or _CONTROL.fullmatch(token.content)}
        # Marked as special here, they too are read as text where special tokens are.
        self.backend.add_special_tokens(list(control.values()))
        named = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
        apart = {getattr(tokenizer, f"{use}_token_id", None) for use in ("bos", "eos", "sep", "cls")}
        unknown = {tokenizer.unk_token_id} - apart  # the rightful id of a character that the vocabulary lacks
        self.control = frozenset({*control, *named} - unknown)
        probe = self.backend.encode("a 1 . 的")  # some of it is in any vocabulary
        mask = [*probe.special_tokens_mask, 0]
        self.leading: list[int] = probe.ids[: mask.index(0)]

    def plain(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts in which nothing is special, without special tokens around them.

        Where a vocabulary itself spells out a control token (Unigram models), that piece of the text is left out.
        """
        self.backend.encode_special_tokens = True  # each time: pickling, as for a loader's worker, loses it
        rows = [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [row if self.control.isdisjoint(row) else [t for t in row if t not in self.control] for row in rows]

    def ends(self, text: str) -> list[int]:
        """Where each token of `text` ends, in characters."""
        self.backend.encode_special_tokens = True
        return [end for _, end in self.backend.encode(text, add_special_tokens=False).offsets]


class ChatTokens:
    """What a tokenizer's chat template puts around a user's turn, rendered once: no text takes part in the template."""

    def __init__(self, tokenizer: Any, tokens: PlainTokens) -> None:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"chat_template is on, but the tokenizer of {name} has no chat template; set chat_template to false, "
                "or take the chat model of the same family"
            )
        text = _rendered(tokenizer, name)
        head, _, tail = text.partition(_PROBE)
        self.tokens, self.head, self.tail = tokens, head, tail
        self.backend = _copied(tokenizer.backend_tokenizer)
        self.head_ids, self.tail_ids = self._ids([head, tail])
        self.controls = self._controls(self._ids([text])[0])
        if self.tail_ids[-1:] == [tokenizer.eos_token_id] or _PROBE in tail or text == head:
            raise ConfigError(
                f"the chat template of {name} does not put one user's turn in front of an answer (it gives {text!r}); "
                "set chat_template to false"
            )

    def around(self, texts: list[str]) -> list[list[int]]:
        """Ids of the chats of `texts`: those of the whole chat's text, unless a control token stands in a user's text,
        which is then tokenised apart."""
        rows = self._ids([self.head + text + self.tail for text in texts])
        for at, row in enumerate(rows):
            if self._controls(row) != self.controls:
                rows[at] = self.head_ids + self.tokens.plain([texts[at]])[0] + self.tail_ids
        return rows

    def _controls(self, row: list[int]) -> int:
        return sum(token in self.tokens.control for token in row)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]


def _copied(backend: Any) -> Any:
    """A tokenizer's backend to change freely, without the padding and the cut it may have been saved with."""
    copy = type(backend).from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _rendered(tokenizer: Any, name: str) -> str:
    """The chat template with `_PROBE` as the user's turn."""
    from jinja2 import TemplateError  # brought by torch

    try:
        chat = [{"role": "user", "content": _PROBE}]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"the chat template of {name} cannot be used with a user's turn alone ({' '.join(str(error).split())}); "
            "set chat_template to false"
        ) from error
