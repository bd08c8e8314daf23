"""Square's steps at the price of what changes (Andriushchenko et al., ECCV 2020, algorithm 2).

The attack library's loop copies every image several times per step, and draws one square for all
of a batch. This one draws the same numbers, changes only the window that the square covers, and
lets images of several batches, each with the squares of its own batch, be asked about together.
Images, and thereby flags, are those of the library's own loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from corobench.benchmark.referee.judge import own_and_others


@dataclass(frozen=True)
class Squares:
    """What is drawn for consecutive images of a run that share their squares.

    Attributes:
        stripes_BC1W: float32 (B, C, 1, W) of -1 and 1, the start.
        corners_S2: int, S pairs of row and column of the squares' upper left corners.
        signs_SC11: float32 (S, C, 1, 1) of -1 and 1, the squares' colours.
    """

    stripes_BC1W: Tensor
    corners_S2: Sequence[tuple[int, int]]
    signs_SC11: Tensor


#: The squares of a run on images (B, C, H, W), in the order of the images.
Draw = Callable[[Tensor], list[Squares]]


def quicken(square: Any, draw: Draw | None = None) -> None:
    """Let the library's Square run the steps of this module, where they are the same.

    Args:
        square: the library's object; anything but one untargeted run with the margin loss in
            l-infinity keeps the library's own loop.
        draw: what is drawn for the images of a run; by default what the library would draw.
    """
    is_known = (square.norm, square.loss) == ("Linf", "margin") and square.n_restarts == 1
    if is_known and not square.targeted:
        square.attack_single_run = partial(_run, square, draw or partial(_draw_one_batch, square))


def stripes(square: Any, shape: Sequence[int]) -> Tensor:
    """The start of a batch (B, C, H, W), from the global random stream."""
    num_images, channels, _, width = shape
    start: Tensor = square.random_choice([num_images, channels, 1, width])
    return start


def draw_squares(square: Any, shape: Sequence[int]) -> tuple[list[tuple[int, int]], Tensor]:
    """The squares of all steps, from the global random stream, in the library's order of draws.

    Args:
        square: the library's object.
        shape: (C, H, W) of an image.

    Returns:
        Corners and signs as in `Squares`.
    """
    channels, height, width = shape
    drawn = [
        torch.cat([torch.rand([1]), torch.rand([1]), torch.rand([channels, 1, 1]).flatten()])
        for _ in range(square.n_queries)
    ]
    if not drawn:
        return [], torch.zeros(0, channels, 1, 1)
    drawn_SN = torch.stack(drawn)
    sides = [side(square, step, shape) for step in range(square.n_queries)]
    room_S2 = torch.tensor([[height - of_square, width - of_square] for of_square in sides])
    corners = (room_S2 * drawn_SN[:, :2]).long().tolist()
    signs = torch.sign(2 * drawn_SN[:, 2:] - 1)
    return [(row, column) for row, column in corners], signs[:, :, None, None].to(square.device)


def side(square: Any, step: int, shape: Sequence[int]) -> int:
    """Pixels of a step's square on a side; `shape` is (C, H, W)."""
    _, height, width = shape
    length = round(math.sqrt(square.p_selection(step) * height * width))
    return min(max(int(length), 1), height, width)


def _draw_one_batch(square: Any, x_BCHW: Tensor) -> list[Squares]:
    start = stripes(square, x_BCHW.shape)
    return [Squares(start, *draw_squares(square, x_BCHW.shape[1:]))]


@torch.no_grad()
def _run(square: Any, draw: Draw, x_BCHW: Tensor, y_B: Tensor) -> tuple[None, Tensor]:
    """The library's ``attack_single_run``: its count of queries, which nobody reads, and images."""
    shape = x_BCHW.shape[1:]
    groups = draw(x_BCHW)
    start = torch.cat([group.stripes_BC1W for group in groups])
    best = torch.clamp(x_BCHW + square.eps * start, 0.0, 1.0)
    margin = _margins(square, best, y_B)
    if bool((margin < 0.0).all()):
        return None, best
    found = best.clone()
    low, high = (x_BCHW - square.eps).clamp(min=0.0), (x_BCHW + square.eps).clamp(max=1.0)
    rows = torch.arange(len(x_BCHW), device=x_BCHW.device)
    sizes, y = [len(group.stripes_BC1W) for group in groups], y_B
    steps = [2.0 * square.eps * group.signs_SC11 for group in groups]
    for step in range(square.n_queries):
        is_standing = margin > 0.0
        if not bool(is_standing.all()):
            found[rows] = best
            sizes = [int(part.sum()) for part in is_standing.split(sizes)]
            rows, best, margin, y, low, high = (
                part[is_standing] for part in (rows, best, margin, y, low, high)
            )
            if not len(rows):
                break
        length = side(square, step, shape)
        windows = []
        first = 0
        for group, moves, size in zip(groups, steps, sizes, strict=True):
            if size:
                top, left = group.corners_S2[step]
                place = (
                    slice(first, first + size),
                    slice(None),
                    slice(top, top + length),
                    slice(left, left + length),
                )
                window = best[place]
                windows.append((place, window.clone()))
                torch.clamp(window + moves[step], low[place], high[place], out=window)
            first += size
        margin_new = _margins(square, best, y)
        is_better = margin_new < margin
        margin = torch.where(is_better, margin_new, margin)
        keeps = is_better[:, None, None, None]
        for place, before in windows:
            best[place] = torch.where(keeps[place[0]], best[place], before)
    found[rows] = best
    return None, found


def _margins(square: Any, x_BCHW: Tensor, y_B: Tensor) -> Tensor:
    """Logit of the label less the largest other one, float32 (B,)."""
    own, others = own_and_others(square.predict(x_BCHW), y_B)
    return own - others
