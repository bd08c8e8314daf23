"""The tree of a search, written down so that the checker can follow it.

A node is a set of images of the box: those of its parent on which one more neuron has one sign. Its
steps are what was done there in order: each names slopes and multipliers that bound the margin,
and, where neurons were bounded anew with that bound, the multipliers of the constraint.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.lagrangian import Subdomains


@dataclass
class Proof:
    """Nodes and steps; all tensors on the CPU. K nodes, T steps, N neurons.

    Attributes:
        margin_K: long, which row of the specification the tree of a node bounds.
        parent_K: long, -1 for a root; a parent comes before its children.
        neuron_K: long, which neuron the parent was split at; -1 for a root.
        sign_K: float32, +1 where its input is at least 0, -1 where it is at most 0; 0 for a root.
        node_T: long, the node of a step; the steps of a node are in order.
        alpha_NT: float32, slopes of the lower relaxation.
        beta_NT: float32, multipliers of the signs.
        exponent_RT: uint8 (2 N, T), multipliers of the constraint, see `clipping.gamma_of`.
        threshold: what the constraint compares the margin with.
    """

    margin_K: Tensor
    parent_K: Tensor
    neuron_K: Tensor
    sign_K: Tensor
    node_T: Tensor
    alpha_NT: Tensor
    beta_NT: Tensor
    exponent_RT: Tensor
    threshold: float


@dataclass
class ProofLog:
    """Grows while a search runs.

    Attributes:
        num_neurons: N.
        children: per node those that it was split into, the active one first; None for no split.
        is_closed: per node whether its own bound is above the threshold.
    """

    num_neurons: int
    children: list[tuple[int, int] | None] = field(default_factory=list)
    is_closed: list[bool] = field(default_factory=list)
    _margin: list[int] = field(default_factory=list)
    _parent: list[int] = field(default_factory=list)
    _neuron: list[int] = field(default_factory=list)
    _sign: list[float] = field(default_factory=list)
    _steps: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = field(default_factory=list)

    def _add(self, margin: int, parent: int, neuron: int, sign: float) -> int:
        self._margin.append(margin)
        self._parent.append(parent)
        self._neuron.append(neuron)
        self._sign.append(sign)
        self.children.append(None)
        self.is_closed.append(False)
        return len(self._margin) - 1

    def plant(self, roots: Subdomains) -> None:
        """Number subdomains that are the whole box."""
        numbers = [self._add(margin, -1, -1, 0.0) for margin in roots.margin_B.tolist()]
        roots.node_B = torch.tensor(numbers, dtype=torch.long, device=roots.node_B.device)

    def split(self, halves: Subdomains, neuron_B: Tensor) -> None:
        """Number the halves of subdomains: all active ones, then all inactive ones.

        Args:
            halves: 2 B, with the numbers of their parents.
            neuron_B: long, where each parent is split.
        """
        num = len(halves) // 2
        numbers = []
        parents, margins = halves.node_B.tolist(), halves.margin_B.tolist()
        for place, neuron in enumerate(neuron_B.tolist() * 2):
            sign = 1.0 if place < num else -1.0
            numbers.append(self._add(margins[place], parents[place], neuron, sign))
        for first, second in zip(numbers[:num], numbers[num:], strict=True):
            self.children[self._parent[first]] = first, second
        halves.node_B = torch.tensor(numbers, dtype=torch.long, device=halves.node_B.device)

    def step(self, subdomains: Subdomains, exponent: Tensor | None) -> None:
        """Note the present slopes and multipliers, and what neurons were bounded with."""
        kept = (subdomains.node_B, subdomains.alpha_NB, subdomains.beta_NB)
        node, alpha, beta = (tensor.detach().cpu().clone() for tensor in kept)
        self._steps.append((node, alpha, beta, None if exponent is None else exponent.cpu()))

    def depth(self, node: int) -> int:
        """How many splits are above it."""
        parent, found = self._parent[node], 0
        while parent >= 0:
            parent, found = self._parent[parent], found + 1
        return found

    def close(self, subdomains: Subdomains) -> None:
        """Note that subdomains need no split."""
        for node in subdomains.node_B.tolist():
            self.is_closed[node] = True

    def forget(self, margins: set[int]) -> None:
        """Drop the trees of some margins: they are begun anew."""
        for node, margin in enumerate(self._margin):
            if margin in margins:
                self._margin[node] = -1

    def proof(self, margins: set[int], threshold: float) -> Proof:
        """The trees of some margins.

        Args:
            margins: rows of the specification whose trees are closed.
            threshold: what the margins were compared with.
        """
        kept = [node for node, margin in enumerate(self._margin) if margin in margins]
        place = {node: number for number, node in enumerate(kept)}
        place[-1] = -1

        def of(values: list[int] | list[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor([values[node] for node in kept], dtype=dtype)

        parents = [place[self._parent[node]] for node in kept]
        nothing = torch.zeros(self.num_neurons, 0)
        numbers, alphas, betas = [torch.zeros(0, dtype=torch.long)], [nothing], [nothing]
        exponents = [torch.zeros(2 * self.num_neurons, 0, dtype=torch.uint8)]
        for node, alpha, beta, exponent in self._steps:
            is_kept = torch.tensor([one in place for one in node.tolist()], dtype=torch.bool)
            if not bool(is_kept.any()):
                continue
            numbers.append(torch.tensor([place[one] for one in node[is_kept].tolist()]))
            alphas.append(alpha[:, is_kept])
            betas.append(beta[:, is_kept])
            if exponent is None:
                exponents.append(exponents[0].new_zeros(2 * self.num_neurons, int(is_kept.sum())))
            else:
                exponents.append(exponent[:, is_kept])
        return Proof(
            of(self._margin, torch.long),
            torch.tensor(parents, dtype=torch.long),
            of(self._neuron, torch.long),
            of(self._sign, torch.float32),
            torch.cat(numbers),
            torch.cat(alphas, dim=1),
            torch.cat(betas, dim=1),
            torch.cat(exponents, dim=1),
            threshold,
        )
