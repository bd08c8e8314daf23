"""``corobench.certify``: which images are proven right, on images of the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError, NotCertifiable, nearest
from corobench.benchmark.interactive.arguments import epsilon_of
from corobench.benchmark.records.result import CERTIFIERS
from corobench.benchmark.tracks import Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from corobench.benchmark.certify import Prover
    from corobench.benchmark.interactive.arguments import Images, Labels
    from corobench.benchmark.interactive.asking import Asked


@dataclass(eq=False)
class Certified:
    """What certifiers proved about B images; all tensors are on the CPU.

    Attributes:
        epsilon: the radius.
        right: bool (B,), right without an attack.
        certified: bool (B,), proven right for every image within epsilon and [0, 1].
        certified_by: the certifier that proved each image, or empty.
        margin: float32 (B,), best proven lower bound of logit[label] - logit[other]; NaN where
            nothing was asked.
        broken: bool (B,), a search met an image in the ball that the network gets wrong.
        adversarial: float32 (B, C, H, W) in [0, 1]; only rows with `broken` count.
        not_asked: certifier -> why it was not asked; what it might prove is not known.
    """

    epsilon: Fraction
    right: torch.Tensor
    certified: torch.Tensor
    certified_by: list[str]
    margin: torch.Tensor
    broken: torch.Tensor
    adversarial: torch.Tensor
    not_asked: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        n = len(self.right)
        lines = [
            f"{int(self.certified.sum())} of {n} images certified at {self.epsilon}, "
            f"{int(self.right.sum())} right without an attack"
        ]
        lines += [f"not asked: {name} ({why})" for name, why in self.not_asked.items()]
        return "\n".join(lines)


def certify(
    model: nn.Module,
    x: Images,
    y: Labels,
    epsilon: str | Fraction,
    *,
    certifiers: Sequence[str] = CERTIFIERS,
    budget_s: float | None = None,
) -> Certified:
    """Ask certifiers about images, cheapest first, each about what is still open.

    A proof holds for the network as it is deployed: float32, any order of summation (RULES.md).
    A network that a certifier cannot be trusted with is not asked, with the reason.

    Args:
        model: a ``torch.nn.Module`` in eval mode that keeps the model contract.
        x: float32 (B, C, H, W) in [0, 1], a tensor or an array.
        y: integers (B,), the labels.
        epsilon: exact l-infinity radius in (0, 1], such as "8/255" or ``Fraction(8, 255)``.
        certifiers: some of "IBP", "CROWN-IBP", "CROWN", "alpha-CROWN", "BaB".
        budget_s: seconds per image of branch and bound, above 0; None for the protocol's.

    Raises:
        ContractError: the model breaks a clause, with its name.
        ConfigError: an argument is not what it must be.

    >>> import torch, corobench
    >>> layer = torch.nn.Linear(4, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    >>> x = torch.tensor([[0.9, 0.3, 0, 0], [0.6, 0.4, 0, 0]]).view(2, 1, 2, 2)
    >>> corobench.certify(model, x, [0, 0], "1/4").certified.tolist()  # margins 0.6 and 0.2
    [True, False]
    """
    import torch

    from corobench.benchmark.interactive.asking import asked

    radius = epsilon_of(epsilon)
    names = _in_order(certifiers)
    if budget_s is not None and not budget_s > 0:
        raise ConfigError(f"budget_s: expected seconds above 0, but found {budget_s}")
    given = asked(model, x, y)
    n = len(given.x_BCHW)
    found = Certified(
        radius,
        given.right_B.cpu(),
        torch.zeros(n, dtype=torch.bool),
        [""] * n,
        torch.full((n,), float("nan")),
        torch.zeros(n, dtype=torch.bool),
        given.x_BCHW.cpu().clone(),
    )
    protocol = Protocol() if budget_s is None else Protocol(certify_budget_s=budget_s)
    prover, refused = _prover(given, protocol)
    found.not_asked = {name: refused[name] for name in names if name in refused}
    for name in names:
        if prover is None or name in found.not_asked:
            continue
        try:
            _ask(found, prover, name, given, protocol)
        except (NotCertifiable, MemoryError) as refusal:
            found.not_asked[name] = str(refusal) or type(refusal).__name__
            _forget(found, name, str(getattr(refusal, "rule", "")))
    return found


def _in_order(certifiers: Sequence[str]) -> list[str]:
    given = [certifiers] if isinstance(certifiers, str) else list(certifiers)
    for name in given:
        if name not in CERTIFIERS:
            raise ConfigError(f"certifiers: unknown {name!r}: {nearest(str(name), CERTIFIERS)}")
    return [name for name in CERTIFIERS if name in given]


def _prover(given: Asked, protocol: Protocol) -> tuple[Prover | None, dict[str, str]]:
    from corobench.benchmark.interactive.certifiers import certifiers_of

    return certifiers_of(given.model, None, given.shape, given.num_classes, protocol)


def _ask(found: Certified, prover: Prover, name: str, given: Asked, protocol: Protocol) -> None:
    """Ask one certifier about what is right and open."""
    import torch

    from corobench.benchmark.certify.stage import certify_chunk, close_chunk
    from corobench.benchmark.evaluation.closing import too_large
    from corobench.benchmark.evaluation.prepared import certifier_stages

    open_ = found.right & ~found.certified & ~found.broken
    rows = torch.nonzero(open_)[:, 0]
    if not len(rows):
        return
    there = rows.to(given.x_BCHW.device)
    x, y = given.x_BCHW[there], given.y_B[there]
    if name in certifier_stages(prover, protocol)[0]:
        cheap = certify_chunk(prover, name, x, y, found.epsilon)
        certified, margin = cheap.certified_B.cpu(), cheap.margin_B.cpu()
    else:
        costly = close_chunk(prover, name, given.model, x, y, found.epsilon, protocol)
        certified, margin = costly.certified_B.cpu(), costly.margin_B.cpu()
        if costly.unasked_B.all():
            found.not_asked[name] = too_large(protocol, name)
        found.broken[rows] = costly.refuted_B.cpu()
        found.adversarial[rows] = costly.adversarial_BCHW.cpu()
    found.certified[rows] = certified
    found.margin[rows] = torch.fmax(found.margin[rows], margin)
    for row in rows[certified].tolist():
        found.certified_by[row] = name


def _forget(found: Certified, name: str, rule: str) -> None:
    """Drop what a certifier proved that contradicted itself, or all where the checker did."""
    import torch

    everything = rule == "bounds-contradicted"
    if everything:
        found.not_asked.update(dict.fromkeys(CERTIFIERS, found.not_asked[name]))
    for row, by in enumerate(found.certified_by):
        if by and (everything or by == name):
            found.certified[row], found.certified_by[row] = False, ""
            found.margin[row] = torch.nan
