"""AutoAttack on a part of a chunk, with the random numbers of the whole chunk.

The suite cuts what still stands into batches, seeds each anew and draws for it at once: uniform
starts of APGD and stripes of Square, each of one row per image that still stands. A proven image
always stands. So what the suite would have drawn for the whole chunk is known without attacking
the proven images: draw the rows of all that stand, and keep those of the images that are there.
FAB draws nothing in the suite. The squares of Square are the same for every image of a batch; full
batches have the same seed and size, hence the same squares, and a last, shorter one has its own.
Batches are attacked together as far as they fit into one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from corobench.benchmark.attacks.context import Seats
from corobench.benchmark.attacks.square import Draw, Squares, draw_squares, quicken, stripes


def image_key(image_CHW: Tensor) -> bytes:
    """The exact content of an image, to recognise it by."""
    return image_CHW.detach().cpu().numpy().tobytes()


def seat(suite: Any, x_BCHW: Tensor, seats: Seats, batch_size: int) -> None:
    """Make a suite attack a part of a chunk as it would within the whole chunk.

    Args:
        suite: the package's object, norm Linf; it must be run on `x_BCHW` as one batch.
        x_BCHW: float32 (B, C, H, W), the images that are attacked.
        seats: theirs in the chunk.
        batch_size: of the suite, were it run on the whole chunk.
    """
    chunk = _Chunk(x_BCHW, seats, batch_size)
    for part in (suite.apgd, suite.apgd_targeted, suite.fab, suite.square):
        part.perturb = _in_batches(part, chunk)
    for apgd in (suite.apgd, suite.apgd_targeted):
        apgd.attack_single_run = _seated_apgd(apgd, chunk)
    quicken(suite.square, _seated_squares(suite.square, chunk))


class _Chunk:
    """Which images stand, in which batch of the suite, and what is drawn for them."""

    def __init__(self, x_BCHW: Tensor, seats: Seats, batch_size: int) -> None:
        self._batch_size = batch_size
        self._keys = [image_key(image) for image in x_BCHW]
        self._taken = seats.taken_B.tolist()
        taken = set(self._taken)
        self._proven = [place for place in range(seats.num_seats) if place not in taken]
        self._batch_of: dict[int, int] = {}
        self._state_of: dict[int, Tensor] = {}
        self._now: list[int] = []

    def begin(self, x_BCHW: Tensor) -> list[Tensor]:
        """A part of the suite starts on all that stand.

        Args:
            x_BCHW: float32 (B, C, H, W), those that are attacked.

        Returns:
            Rows (int64) to attack together: of whole batches.
        """
        places = self._places(x_BCHW)
        standing = sorted([*self._proven, *places])
        self._batch_of = {place: rank // self._batch_size for rank, place in enumerate(standing)}
        groups: list[list[int]] = [[]]
        previous = -1
        for row, place in enumerate(places):
            batch = self._batch_of[place]
            if batch != previous:
                size = sum(self._batch_of[other] == batch for other in places)
                if groups[-1] and len(groups[-1]) + size > self._batch_size:
                    groups.append([])
                previous = batch
            groups[-1].append(row)
        return [torch.tensor(rows) for rows in groups]

    def seed(self, seed: int) -> None:
        """Every batch starts from the same seed."""
        torch.random.manual_seed(seed)
        state = torch.get_rng_state()
        self._state_of = dict.fromkeys(self._batch_of.values(), state)

    def note(self, x_BCHW: Tensor) -> None:
        """The images that are attacked now, a part of those of `begin`."""
        self._now = self._places(x_BCHW)

    def draw(self, sample: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int]) -> Tensor:
        """What each batch draws, and of it the rows of the images that are attacked now."""
        parts = []
        for batch in sorted({self._batch_of[place] for place in self._now}):
            here = [place for place in self._now if self._batch_of[place] == batch]
            proven = [place for place in self._proven if self._batch_of[place] == batch]
            standing = sorted([*proven, *here])
            rows = torch.searchsorted(torch.tensor(standing), torch.tensor(here))
            torch.set_rng_state(self._state_of[batch])
            parts.append(sample((len(standing), *shape))[rows])
            self._state_of[batch] = torch.get_rng_state()
        return torch.cat(parts)

    def batches(self) -> list[tuple[int, Tensor]]:
        """Of each batch: how many of its images are attacked now, and its random state."""
        attacked = Counter(self._batch_of[place] for place in self._now)
        return [(attacked[batch], self._state_of[batch]) for batch in sorted(attacked)]

    def _places(self, x_BCHW: Tensor) -> list[int]:
        """Places in the chunk; equal images are told apart by their order."""
        places, position = [], 0
        for image in x_BCHW:
            position = self._keys.index(image_key(image), position)
            places.append(self._taken[position])
            position += 1
        return places


def _in_batches(part: Any, chunk: _Chunk) -> Callable[..., Tensor]:
    """A part of the suite, run on whole batches of the chunk."""
    perturb = part.perturb

    def seated(x: Tensor, y: Tensor) -> Tensor:
        adversarial = x.clone()
        for rows in chunk.begin(x):
            chunk.seed(part.seed)
            rows = rows.to(x.device)
            adversarial[rows] = perturb(x[rows], y[rows])
        return adversarial

    return seated


def _seated_apgd(apgd: Any, chunk: _Chunk) -> Callable[..., Any]:
    """APGD's run from the start that it would have drawn in the whole chunk."""
    run = apgd.attack_single_run

    def seated(x: Tensor, y: Tensor) -> Any:
        chunk.note(x)
        t = 2 * chunk.draw(torch.rand, x.shape[1:]).to(x.device) - 1
        start = x + apgd.eps * torch.ones_like(x) * apgd.normalize(t)
        return run(x, y, x_init=start)

    return seated


def _seated_squares(square: Any, chunk: _Chunk) -> Draw:
    """Square's stripes, one row per image, and squares, those of each image's batch."""

    def seated(x: Tensor) -> list[Squares]:
        chunk.note(x)
        start = chunk.draw(lambda whole: stripes(square, (whole[0], *x.shape[1:])), x.shape[1:])
        drawn: dict[bytes, tuple[list[tuple[int, int]], Tensor]] = {}
        found, first = [], 0
        for size, state in chunk.batches():
            key = image_key(state)
            if key not in drawn:
                torch.set_rng_state(state)
                drawn[key] = draw_squares(square, x.shape[1:])
            found.append(Squares(start[first : first + size], *drawn[key]))
            first += size
        return found

    return seated
