"""Names that a study's plan, its results.json and its report have in common."""

from __future__ import annotations

from typing import Final, Literal

Role = Literal["ours", "baseline", "rule"]
Group = Literal["main", "ablation", "alignment-steps", "cold"]
MAIN: Final = "main"
ABLATION: Final = "ablation"
STEPS: Final = "alignment-steps"
COLD: Final = "cold"
GROUPS: tuple[Group, ...] = (MAIN, ABLATION, STEPS, COLD)

PERIOD = "available+period"
# The rankings of videos reported unless the configuration names its own: sampled and full, with and without videos
# that came later, against any video and against those of the same days.
PROTOCOLS = (PERIOD, "available+uniform", "available+full", "all+uniform", "all+full")
COMMENT_PROTOCOLS = ("available+uniform", "available+full")
HEADLINE = (PERIOD, "available+uniform")  # the first that was ranked is the main one: that of videos, of comments
