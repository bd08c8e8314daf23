"""AutoAttack on a part of a chunk, with the random numbers of the whole chunk.

The suite cuts what still stands into batches, seeds each anew and draws for it at once: uniform
starts of APGD and stripes of Square, each of one row per image that still stands. A proven image
always stands. So what the suite would have drawn for the whole chunk is known without attacking
the proven images: draw the rows of all that stand, and keep those of the images that are there.
FAB draws nothing in the suite. The squares of Square are the same for every image of a batch; full
batches have the same seed and size, hence the same squares, and a last, shorter one has its own.
`group` puts batches of few images together as far as they fit into one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corobench.benchmark.attacks.context import Seats
from corobench.benchmark.attacks.square import Draw, Squares, draw_squares, quicken, stripes
from corobench.benchmark.attacks.standing import Places


def image_key(image_CHW: Tensor) -> bytes:
    """The exact content of an image, to recognise it by."""
    return image_CHW.detach().cpu().numpy().tobytes()


def group(
    attacked: Places, standing: Places, batch_size: int, together: int | None = None
) -> list[Places]:
    """Which images are attacked together: those of whole batches, as far as they fit into one.

    Args:
        attacked: int64, ascending places of the images to attack.
        standing: int64, ascending places of all images of the chunk that stand.
        batch_size: of the suite.
        together: most images of several batches that are put together; as many as of one batch
            by default.

    >>> standing = np.arange(8)
    >>> [part.tolist() for part in group(np.array([0, 5, 6, 7]), standing, 3)]
    [[0, 5], [6, 7]]
    """
    batch_of = np.searchsorted(standing, attacked) // batch_size
    parts: list[Places] = []
    for batch in np.unique(batch_of):
        here = attacked[batch_of == batch]
        if parts and len(parts[-1]) + len(here) <= (together or batch_size):
            parts[-1] = np.concatenate([parts[-1], here])
        else:
            parts.append(here)
    return parts


def seat(suite: Any, x_BCHW: Tensor, seats: Seats, batch_size: int) -> None:
    """Make the parts of a suite attack some images as they would within the whole chunk.

    Args:
        suite: the package's object, norm Linf; its parts must be run on `x_BCHW` or a part of it.
        x_BCHW: float32 (B, C, H, W), the images that are attacked; for targeted APGD all of their
            batches that are attacked at all, because it draws again for those that still stand.
        seats: theirs in the chunk.
        batch_size: of the suite, were it run on the whole chunk.
    """
    chunk = _Chunk(x_BCHW, seats, batch_size)
    for part in (suite.apgd, suite.apgd_targeted, suite.fab, suite.square):
        part.perturb = _seeded(part, chunk)
    for apgd in (suite.apgd, suite.apgd_targeted):
        apgd.attack_single_run = _seated_apgd(apgd, chunk)
    quicken(suite.square, _seated_squares(suite.square, chunk))


class _Chunk:
    """Which images stand, in which batch of the suite, and what is drawn for them."""

    def __init__(self, x_BCHW: Tensor, seats: Seats, batch_size: int) -> None:
        self._keys = [image_key(image) for image in x_BCHW]
        self._taken = seats.taken_B.tolist()
        every = range(seats.num_seats) if seats.standing_S is None else seats.standing_S.tolist()
        self._batch_of = {place: rank // batch_size for rank, place in enumerate(every)}
        taken = set(self._taken)
        self._others = [place for place in every if place not in taken]
        self._state_of: dict[int, Tensor] = {}
        self._now: list[int] = []

    def seed(self, seed: int) -> None:
        """Every batch starts from the same seed."""
        torch.random.manual_seed(seed)
        state = torch.get_rng_state()
        self._state_of = dict.fromkeys(self._batch_of.values(), state)

    def note(self, x_BCHW: Tensor) -> None:
        """The images that are attacked now, a part of all."""
        self._now = self._places(x_BCHW)

    def draw(self, sample: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int]) -> Tensor:
        """What each batch draws, and of it the rows of the images that are attacked now."""
        parts = []
        for batch in sorted({self._batch_of[place] for place in self._now}):
            here = [place for place in self._now if self._batch_of[place] == batch]
            others = [place for place in self._others if self._batch_of[place] == batch]
            standing = sorted([*others, *here])
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


def _seeded(part: Any, chunk: _Chunk) -> Callable[..., Tensor]:
    """A part of the suite, every batch of which starts from the part's seed."""
    perturb = part.perturb

    def seated(x: Tensor, y: Tensor) -> Tensor:
        chunk.seed(part.seed)
        made: Tensor = perturb(x, y)
        return made

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
