"""What an instance's target is ranked against, as a short string: `all+full`, `available+period`, `all+uniform50`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from recbole_lsvcr.errors import ConfigError

CANDIDATES = ("all", "available")
NEGATIVES = ("full", "uniform", "popular", "period")
DEFAULT_SAMPLE_NUM = 99

_FORM = "<all|available>+<full|uniform|popular|period>, the last three with an optional number of negatives"
_EXAMPLES = "all+full, all+uniform, available+period, all+uniform50"
_PATTERN = re.compile(r"(?P<candidates>[a-z]+)\+(?P<negatives>[a-z]+)(?P<number>\d*)")


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of ranking a target.

    `candidates`: `all` videos, or those `available` (uploaded, or first seen) at the instance's time; the target always
    is one. `negatives`: every candidate (`full`), or `sample_num` of them per target, drawn without replacement:
    `uniform`, `popular` (in proportion to the number of training interactions, so a video without any is never drawn)
    or `period` (uniform over the videos that anybody interacted with in the 7 days before). `sample_num` is 0 for
    `full`.

    Raises:
        ConfigError: an unknown part or an impossible number; the message shows the accepted forms.
    """

    candidates: str
    negatives: str
    sample_num: int = DEFAULT_SAMPLE_NUM

    def __post_init__(self) -> None:
        if self.candidates not in CANDIDATES or self.negatives not in NEGATIVES:
            raise _refuse(f"{self.candidates}+{self.negatives}")
        if self.is_full:
            object.__setattr__(self, "sample_num", 0)
        elif self.sample_num < 1:
            raise ConfigError(
                f"protocol '{self.candidates}+{self.negatives}' needs at least 1 negative, got {self.sample_num}"
            )

    @classmethod
    def parse(cls, text: str, sample_num: int = DEFAULT_SAMPLE_NUM) -> Protocol:
        """The protocol a string names; `sample_num` is the number of negatives where the string has none.

        Raises:
            ConfigError: the string is none of the accepted forms.
        """
        match = _PATTERN.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if match is None or (match["negatives"] == "full" and match["number"]):
            raise _refuse(text)
        return cls(match["candidates"], match["negatives"], int(match["number"]) if match["number"] else sample_num)

    @classmethod
    def of_mode(cls, mode: object, candidates: str = "all") -> Protocol:
        """That of RecBole's `eval_args.mode`: `full`, `uni99` (any number), `pop99`.

        Raises:
            ConfigError: a mode that does not rank.
        """
        match = re.fullmatch(r"(full)|(uni|pop)([1-9]\d*)", mode) if isinstance(mode, str) else None
        if match is None:
            raise ConfigError(
                f"eval_args.mode = {mode!r} is not accepted; accepted: full, uniN, popN (N negatives, such as uni99), "
                "or a mapping of one for valid and one for test"
            )
        if match[1]:
            return cls(candidates, "full")
        return cls(candidates, {"uni": "uniform", "pop": "popular"}[match[2]], int(match[3]))

    @property
    def is_full(self) -> bool:
        """Whether every candidate is ranked, so that nothing is drawn."""
        return self.negatives == "full"

    @property
    def only_available(self) -> bool:
        """Whether candidates must exist at the instance's time."""
        return self.candidates == "available"

    def __str__(self) -> str:
        number = "" if self.sample_num in (0, DEFAULT_SAMPLE_NUM) else str(self.sample_num)
        return f"{self.candidates}+{self.negatives}{number}"


def parse_protocols(texts: Iterable[str | Protocol], sample_num: int = DEFAULT_SAMPLE_NUM) -> list[Protocol]:
    """Protocols in the order given, each once.

    Raises:
        ConfigError: none given, or one that cannot be parsed.
    """
    parsed = [text if isinstance(text, Protocol) else Protocol.parse(text, sample_num) for text in texts]
    if not parsed:
        raise ConfigError(f"no protocol given; accepted: {_FORM} (for example {_EXAMPLES})")
    return list(dict.fromkeys(parsed))


def _refuse(given: object) -> ConfigError:
    return ConfigError(f"protocol {given!r} is unknown; accepted: {_FORM} (for example {_EXAMPLES})")
