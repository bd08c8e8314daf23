"""What an attack is told of the run that it is part of: frozen values, given with each call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Seats:
    """Where the attacked images sit in their chunk.

    The empty seats are images with a proof: no attack could remove them from the batch, so their
    random numbers are drawn as if they were there. Whether an image is proven, and by whom,
    therefore changes nothing for its neighbours: verifying first leaves every flag as it is.

    Attributes:
        num_seats: images in the chunk, with and without a proof.
        taken_B: int64 (B,), ascending positions of the attacked images.
        standing_S: int64 (S,), ascending positions of the images that still stand, for which a
            part of an attack draws; None for all seats. Those attacked are among them.
    """

    num_seats: int
    taken_B: Tensor
    standing_S: Tensor | None = None

    @classmethod
    def all(cls, num_images: int) -> Seats:
        """No image of the chunk has a proof."""
        return cls(num_images, torch.arange(num_images))

    def part(self, places: Tensor) -> Seats:
        """The seats of some of the attacked images, int64 (b,) among them."""
        return replace(self, taken_B=self.taken_B[places])

    def draw(self, sample: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int]) -> Tensor:
        """The rows of the attacked images of one draw for the whole chunk.

        >>> Seats(3, torch.tensor([0, 2])).draw(lambda shape: torch.arange(shape[0]), ()).tolist()
        [0, 2]
        """
        return sample((self.num_seats, *shape))[self.taken_B]


@dataclass(frozen=True)
class AttackContext:
    """What a run tells an attack; by default the images are a chunk of their own.

    Attributes:
        seats: of the images in their chunk; None where they are the whole chunk.
        network: another network with the same outputs to search on; success counts on the
            submitted one only.
        searches_in_tf32: whether the search may round as TF32 does (`benchmark.attacks.tf32`).
    """

    seats: Seats | None = None
    network: nn.Module | None = None
    searches_in_tf32: bool = False


@dataclass(frozen=True)
class AttackSearch:
    """What one search for adversarial images works with, beside the network and the images.

    Attributes:
        seats: of the images in their chunk.
        part: of the attack that searches.
        share: parameters of the network that is searched on, as a share of the submitted one's.
        is_laid_out: whether that is a copy in another layout (`benchmark.attacks.layout`).
    """

    seats: Seats
    part: str = ""
    share: float = 1.0
    is_laid_out: bool = False
