"""Both histories of a user as one sequence of events in order of time, and its masks for training. Pure PyTorch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

VIDEO, COMMENT = 1, 2  # behaviours; VIDEO is the one that is predicted, 0 is padding


class Events(NamedTuple):
    """Events of B users in J slots, oldest first, the last one in the last slot; 0 is padding, in front or between."""

    items: Tensor  # int64 [B, J]
    behaviours: Tensor  # int64 [B, J] VIDEO or COMMENT


def merge_events(
    video_items: Tensor, video_times: Tensor, record_items: Tensor, record_times: Tensor, *, length: int
) -> Events:
    """The newest `length` events of both histories in order of time, with the behaviour of each.

    `video_items` int64 and `video_times` float64 [B, Lv], `record_items` and `record_times` [B, Lc]: each oldest first,
    item 0 is padding. At equal times videos come before comments; events of one history keep their order.
    """
    items = torch.cat([video_items, record_items], dim=1)
    behaviours = torch.cat([torch.full_like(video_items, VIDEO), torch.full_like(record_items, COMMENT)], dim=1)
    behaviours = behaviours.masked_fill(items == 0, 0)
    # Padding is older than anything: it comes first, so that the newest event stands last.
    times = torch.cat([video_times, record_times], dim=1).masked_fill(items == 0, -math.inf)
    order = times.argsort(dim=1, stable=True)[:, -length:]
    items, behaviours = items.gather(1, order), behaviours.gather(1, order)
    missing = length - items.shape[1]
    if missing > 0:
        items, behaviours = (F.pad(values, (missing, 0)) for values in (items, behaviours))
    return Events(items, behaviours)


def append_video(events: Events, items: Tensor) -> Events:
    """`events` [B, J] with a video `items` int64 [B] (or the mask token) watched at the end, [B, J + 1]."""
    videos = items.unsqueeze(1)
    return Events(
        torch.cat([events.items, videos], dim=1),
        torch.cat([events.behaviours, torch.full_like(videos, VIDEO)], dim=1),
    )


def hide(events: Events, masked: Tensor, mask_token: int) -> Events:
    """`events` with the mask token in place of the videos `masked` bool [B, J].

    A comment under a masked video would name it: it becomes padding. Not so for the last slot, the target, whose
    history the joint data has already rid of such comments.
    """
    same = events.items.unsqueeze(2) == events.items[:, :-1].unsqueeze(1)  # [B, J, J - 1]
    named = (same & masked[:, :-1].unsqueeze(1)).any(dim=2) & (events.behaviours == COMMENT)
    items = events.items.masked_fill(masked, mask_token).masked_fill(named, 0)
    return Events(items, events.behaviours.masked_fill(named, 0))


def draw_masks(events: Events, mask_ratio: float) -> Tensor:
    """Which videos to mask, bool [B, J]: the last slot, the target, and each video before it with this probability."""
    drawn = torch.rand(events.items.shape, device=events.items.device) < mask_ratio
    masked = drawn & (events.behaviours == VIDEO)
    masked[:, -1] = True
    return masked
