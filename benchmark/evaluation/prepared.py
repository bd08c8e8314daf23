"""A network with its images, and what its attacks and certifiers work with: made here, for all.

An evaluation, the gate, a drift and a verification begin alike: the network goes to its device and
must keep the contract; a network of the same function is looked for, and certifiers are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corobench.benchmark.files.steps import Ended, StepEndedError, Steps
from corobench.benchmark.network.equivalent import SearchNetwork, equivalent
from corobench.benchmark.submission import Submission, check_contract
from corobench.benchmark.tracks import Protocol, Track

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover

CROWN = "CROWN"
CONTRACT_IMAGES = 16
"""Images on which a network of the same function must agree."""


@dataclass(frozen=True)
class CheckedNetwork:
    """A submitted network that keeps the contract on the images of an evaluation.

    Attributes:
        model: in eval mode, on the device of `x`.
        x: float32 (n, C, H, W) in [0, 1], in published order.
        y: int64 (n,).
        track: of the images.
        ended: why the check of the contract has no answer, or None.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    track: Track
    ended: Ended | None = None

    @property
    def first(self) -> Tensor:
        """The first images, on which other forms of the network are compared with it."""
        return self.x[:CONTRACT_IMAGES]

    def part(self, rows: slice) -> Self:
        """The same with some of the images."""
        return replace(self, x=self.x[rows], y=self.y[rows])


@dataclass(frozen=True)
class Prepared(CheckedNetwork):
    """A network with all that its stages work with.

    Attributes:
        protocol: settings of every stage.
        search: a network of the same function, which attacks and certifiers search on, or None.
        prover: of the model, or None if it cannot be bounded.
        not_asked: certifier -> why it is not asked.
        searches_in_tf32: whether attacks may search in TF32.
    """

    protocol: Protocol = field(default_factory=Protocol)
    search: SearchNetwork | None = None
    prover: Prover | None = None
    not_asked: Mapping[str, str] = field(default_factory=dict)
    searches_in_tf32: bool = False

    @property
    def network(self) -> nn.Module | None:
        """The one to search on, or None to search on the model itself."""
        return None if self.search is None else self.search.network

    @property
    def early(self) -> tuple[str, ...]:
        """Certifiers that are asked about every correct image, before the attacks."""
        return certifier_stages(self.prover, self.protocol)[0]

    @property
    def closing(self) -> tuple[str, ...]:
        """Certifiers that are asked between PGD-50 and AutoAttack, about open images."""
        return certifier_stages(self.prover, self.protocol)[1]


def certifier_stages(
    prover: Prover | None, protocol: Protocol
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Certifiers before the attacks, and those between PGD-50 and AutoAttack, cheapest first.

    CROWN is one of the first on a network on which it is cheap, and of the others on a larger one.

    Args:
        prover: of the network, or None where it has none.
        protocol: the certifiers, and what is cheap.
    """
    is_large = prover is not None and prover.crown_macs > protocol.crown_early_macs
    early = tuple(name for name in protocol.certifiers if not (is_large and name == CROWN))
    return early, (*protocol.certifiers[len(early) :], *protocol.closing_certifiers)


def check_images(
    submission: Submission,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    device: torch.device,
    steps: Steps,
    path: object,
    names: Sequence[object] | None = None,
) -> CheckedNetwork:
    """Bring a network and its images to a device, and hold it to the contract.

    Args:
        submission: the entry.
        images: float32 (n, C, H, W) in [0, 1].
        labels: int64 (n,).
        device: for all of them.
        steps: told of the check; where it ended an earlier process, there is none.
        path: of the entry, for errors.
        names: what errors call each image; None to check the first `CONTRACT_IMAGES` only, without
            what the submitted file computes by itself.

    Raises:
        ContractError: every clause that is broken.
    """
    found = CheckedNetwork(
        submission.model.to(device).eval(),
        torch.from_numpy(np.ascontiguousarray(images)).to(device),
        torch.from_numpy(np.ascontiguousarray(labels)).to(device),
        submission.track,
    )
    num_classes = submission.track.num_classes
    try:
        steps.begin("contract")
        if names is None:
            check_contract(found.model, found.first, num_classes, path)
        else:
            check_contract(found.model, found.x, num_classes, path, submission.reference, names)
    except StepEndedError as error:
        return replace(found, ended=error.ended)
    return found


def prepare(
    checked: CheckedNetwork,
    protocol: Protocol,
    steps: Steps | None = None,
    *,
    searches_in_tf32: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Look for a network of the same function, and make the certifiers.

    Args:
        checked: the network and its images.
        protocol: settings of every stage.
        steps: told of both; one that ended an earlier process is left out.
        searches_in_tf32: whether attacks may search in TF32.
        say: told what is searched on.
    """
    steps = steps or Steps()
    model, track = checked.model, checked.track
    found = Prepared(
        model,
        checked.x,
        checked.y,
        track,
        checked.ended,
        protocol=protocol,
        searches_in_tf32=searches_in_tf32,
    )
    try:
        steps.begin("compaction")
        search = equivalent(model, track.shape, checked.first)
        if search is not None:
            say(search.note(model))
        found = replace(found, search=search)
    except StepEndedError as error:
        say(f"searching on the submitted network: {error}")
    try:
        steps.begin("certifiers")
        prover, not_asked = prepare_certifiers(
            model, found.network, track.shape, track.num_classes, protocol, checked.x.device
        )
    except StepEndedError as error:
        not_asked = dict.fromkeys(protocol.all_certifiers, f"ended: {error}")
        return replace(found, not_asked=not_asked)
    return replace(found, prover=prover, not_asked=not_asked)


def prepare_certifiers(
    model: nn.Module,
    network: nn.Module | None,
    shape: tuple[int, int, int],
    num_classes: int,
    protocol: Protocol,
    device: torch.device,
) -> tuple[Prover, dict[str, str]]:
    """All certifiers of a model, and why some are not asked.

    A network that the checker does not know, or that a certifier cannot be trusted with, is named
    here, and its certifiers count as not asked, never as 0.

    Args:
        model: as it was submitted; it is what the checker proves.
        network: an equivalent one that certifiers may search on, or None.
        shape: channels, height, width of an image.
        num_classes: logits.
        protocol: which certifiers.
        device: where certifiers compute.
    """
    from corobench.benchmark.certify import Prover

    prover = Prover(model, shape, num_classes, device, network)
    not_asked = {
        certifier: str(refusal)
        for certifier, refusal in prover.refusals.items()
        if certifier in protocol.all_certifiers
    }
    return prover, not_asked
