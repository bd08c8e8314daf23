"""The certifiers of a network of any architecture, or why they are not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from corobench.benchmark.errors import DependencyError, NotCertifiable
from corobench.benchmark.evaluation.prepared import prepare_certifiers
from corobench.benchmark.interactive import networks

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover
    from corobench.benchmark.tracks import Protocol


def certifiers_of(
    model: nn.Module,
    network: nn.Module | None,
    shape: tuple[int, int, int],
    num_classes: int,
    protocol: Protocol,
) -> tuple[Prover | None, dict[str, str]]:
    """A prover, and certifier -> why it is not asked; as an evaluation does for an entry.

    A network in memory may be anything, so that reading it may fail in any way. Such a network has
    no certifier, with the reason; that is never a 0.

    Args:
        model: a measured copy; it is what the checker proves.
        network: one with the same outputs that certifiers may search on, or None.
        shape: channels, height, width.
        num_classes: logits.
        protocol: which certifiers, and up to which size.
    """
    try:
        device = networks.device_of(model)
        return prepare_certifiers(model, network, shape, num_classes, protocol, device)
    except (NotCertifiable, DependencyError) as error:
        return None, dict.fromkeys(protocol.all_certifiers, str(error))
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"the network cannot be read ({type(error).__name__}: {lines[0]})"[:300]
        refusal = f"unsupported-operator: {reason}"
        return None, dict.fromkeys(protocol.all_certifiers, refusal)
