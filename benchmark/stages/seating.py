"""AutoAttack on a part of a chunk, with the random numbers of the whole chunk.

The suite draws for a batch at once: uniform starts of APGD and stripes of Square, each of one row
per image that still stands. A proven image always stands. So what the suite would have drawn for
the whole chunk is known without attacking the proven images: draw the rows of all that stand, and
keep those of the images that are there. FAB draws nothing in the suite, and the squares of Square
are the same for every image of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmark.stages.base import Seats


def image_key(image_CHW: Tensor) -> bytes:
    """The exact content of an image, to recognise it by."""
    return image_CHW.detach().cpu().numpy().tobytes()


def seat(suite: Any, x_BCHW: Tensor, seats: Seats) -> None:
    """Make a suite draw for the whole chunk.

    Args:
        suite: the package's object, norm Linf; it must be run on `x_BCHW`, in one batch.
        x_BCHW: float32 (B, C, H, W), the images that are attacked.
        seats: theirs in the chunk.
    """
    table = _Table(x_BCHW, seats)
    for apgd in (suite.apgd, suite.apgd_targeted):
        apgd.attack_single_run = _seated_apgd(apgd, table)
    square = suite.square
    square.attack_single_run = _noting(square.attack_single_run, table)
    square.random_choice = _seated_choice(square, table)


class _Table:
    """Which images of the chunk stand in the batch that is attacked now."""

    def __init__(self, x_BCHW: Tensor, seats: Seats) -> None:
        self._keys = [image_key(image) for image in x_BCHW]
        self._taken = seats.taken_B.tolist()
        taken = set(self._taken)
        self._proven = [place for place in range(seats.of) if place not in taken]
        self.now = seats

    def note(self, x_BCHW: Tensor) -> None:
        """The batch is a part of the attacked images, in their order."""
        places, position = [], 0
        for image in x_BCHW:
            position = self._keys.index(image_key(image), position)
            places.append(self._taken[position])
            position += 1
        standing = sorted(self._proven + places)
        rows = torch.searchsorted(torch.tensor(standing), torch.tensor(places))
        self.now = Seats(len(standing), rows)


def _seated_apgd(apgd: Any, table: _Table) -> Callable[..., Any]:
    """APGD's run from the start that it would have drawn in the whole chunk."""
    run = apgd.attack_single_run

    def seated(x: Tensor, y: Tensor, x_init: Tensor | None = None) -> Any:
        table.note(x)
        t = 2 * table.now.draw(torch.rand, x.shape[1:]).to(x.device) - 1
        after = torch.get_rng_state()
        start = x + apgd.eps * torch.ones_like(x) * apgd.normalize(t)
        found = run(x, y, x_init=start if x_init is None else x_init)
        torch.set_rng_state(after)  # the run has drawn once more, for the images that are there
        return found

    return seated


def _noting(run: Callable[..., Any], table: _Table) -> Callable[..., Any]:
    def noting(x: Tensor, y: Tensor) -> Any:
        table.note(x)
        return run(x, y)

    return noting


def _seated_choice(square: Any, table: _Table) -> Callable[..., Tensor]:
    """Square's random signs: of one row per image at the start, shared ones later."""
    choose = square.random_choice

    def seated(shape: Sequence[int]) -> Tensor:
        if len(shape) == 4:
            chosen: Tensor = table.now.draw(lambda whole: choose(list(whole)), shape[1:])
            return chosen
        shared: Tensor = choose(shape)
        return shared

    return seated
