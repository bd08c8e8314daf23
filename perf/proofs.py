"""The checker on all certificates of an entry, and on certificates that were altered.

    python perf/proofs.py [SUBMISSION] [--epsilon 1/10] [--n 1000] [--alterations 1000]
                          [--data-root DIR]

Every correct image is asked about by all certifiers. Then the checker alone confirms each
certificate once more, which is timed. Then one number of a handed-over proof is altered at random,
as often as asked: a sign, a node, the margin it belongs to, a slope, a multiplier. A proof in which
the halves of a split no longer meet must be refused; where slopes and multipliers differ the bound
is another one, and no image that was found with those signs may lie below it.
Last line: certificates, refused ones of them, alterations that broke a proof and were not refused.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from corobench.benchmark.certify import BranchBudget, Prover
from corobench.benchmark.certify.checker.proofs import METHODS, crown_bounds, margins
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.checker.trees import Tree, margins_by_cases
from corobench.benchmark.certify.prover import ALPHA
from corobench.benchmark.certify.search_tree import tree_of
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.referee import threat
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import Protocol, parse_epsilon

#: What bounds of neurons are compared with: small, as the margins are at least 1e-5.
THRESHOLD = 1e-6
ROOT = Path(__file__).parents[1]
KINDS = ("sign", "node moved", "margin", "step moved", "slope", "multiplier", "constraint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / "submissions" / "fashion-mnist-adv-lwm-10x"
    parser.add_argument("submission", type=Path, nargs="?", default=default)
    parser.add_argument("--epsilon", default=None)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--alterations", type=int, default=1000)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    entry = load_submission(options.submission)
    epsilon = options.epsilon or entry.track.epsilons[-1]
    images, labels, _ = subset(load_test(entry.track.name, options.data_root), options.n)
    x, y = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.copy())
    with torch.no_grad():
        right = entry.model(x).argmax(dim=1) == y
    x, y = x[right], y[right]
    lower, upper = threat.box(x, Fraction(parse_epsilon(epsilon)))
    start = time.process_time()
    methods, trees = _proofs(entry, lower, upper, y)
    found_s = time.process_time() - start
    network = read_network(entry.model, entry.track.shape)
    low, high = lower.double().numpy(), upper.double().numpy()
    start = time.process_time()
    refused = 0
    for method in METHODS:
        rows = np.array([row for row, by in methods.items() if by == method], dtype=np.int64)
        if len(rows):
            bounds = margins(network, low[rows], high[rows], y.numpy()[rows], method)
            refused += int((~(bounds.min(axis=1) > 0)).sum())
    for row, (known, tree) in trees.items():
        tight = crown_bounds(network, low[row : row + 1], high[row : row + 1])
        by_cases = margins_by_cases(network, tight, int(y[row]), tree)
        refused += not bool((np.maximum(known, by_cases) > 0).all())
    checked_s = time.process_time() - start
    print(f"{Counter(methods.values())} at {epsilon}")
    print(f"found in {found_s:.1f} s, checked alone in {checked_s:.1f} s of a processor")
    wrong = _altered(network, low, high, y.numpy(), trees, options.alterations)
    print(
        f"{len(methods)} certificates, {refused} refused; {options.alterations} alterations, "
        f"{wrong} broken proofs not refused"
    )


def _proofs(entry, lower, upper, y):
    """Row -> certifier that proves it; row -> root bounds and tree of the closing ones."""
    protocol = Protocol()
    prover = Prover(entry.model, entry.track.shape, entry.track.num_classes)
    methods: dict[int, str] = {}
    trees: dict[int, tuple[np.ndarray, Tree]] = {}
    for method in METHODS:
        rows = torch.tensor([row for row in range(len(y)) if row not in methods])
        if len(rows):
            proven = prover.prove(method, lower[rows], upper[rows], y[rows]).certified_B
            methods.update(dict.fromkeys(rows[proven].tolist(), method))
    budget = BranchBudget(max_subdomains=protocol.max_subdomains)
    for certifier in protocol.closing_certifiers:
        for row in [row for row in range(len(y)) if row not in methods]:
            one = slice(row, row + 1)
            (answer,) = prover.search(certifier, lower[one], upper[one], y[one], budget)
            if answer.is_certified:
                methods[row] = certifier
                if answer.proof is not None:
                    root = prover.search(
                        ALPHA, lower[one], upper[one], y[one], replace(budget, max_subdomains=0)
                    )[0]
                    trees[row] = (root.margins.double().numpy(), tree_of(answer, THRESHOLD))
    return methods, trees


def _altered(network, low, high, labels, trees, num):
    """How many altered proofs pass although they no longer follow."""
    draw = np.random.default_rng(0)
    rows, wrong, counts = list(trees), 0, Counter()
    bounds = {}
    for _ in range(num if rows else 0):
        row = rows[int(draw.integers(len(rows)))]
        if row not in bounds:
            bounds = {row: crown_bounds(network, low[row : row + 1], high[row : row + 1])}
        kind = KINDS[int(draw.integers(len(KINDS)))]
        known, tree = trees[row]
        other = _alter(tree, kind, draw)
        by_cases = margins_by_cases(network, bounds[row], int(labels[row]), other)
        passes = bool((np.maximum(known, by_cases) > 0).all())
        follows = all(known[m] > 0 or _may_close(other, m) for m in range(len(known)))
        counts[kind, "passes" if passes else "refused"] += 1
        wrong += passes and not follows
    print({f"{kind}: {answer}": count for (kind, answer), count in sorted(counts.items())})
    return wrong


def _may_close(tree: Tree, margin: int) -> bool:
    """Whether a root is closed if every node with a step is closed by it, unless it was split."""
    sides: dict[int, set[tuple[int, float]]] = {}
    stepped = set(tree.node_T.tolist())
    for node in range(len(tree.margin_K) - 1, -1, -1):
        below = sides.get(node, set())
        is_split = any((neuron, -sign) in below for neuron, sign in below)
        is_closed = is_split or (node in stepped and not below)
        if tree.parent_K[node] < 0:
            if is_closed and tree.margin_K[node] == margin:
                return True
        elif is_closed:
            key = int(tree.neuron_K[node]), float(tree.sign_K[node])
            sides.setdefault(int(tree.parent_K[node]), set()).add(key)
    return False


def _alter(tree: Tree, kind: str, draw: np.random.Generator) -> Tree:
    """A proof with one number altered; a step of a node that was split closes nothing."""
    node, step = int(draw.integers(len(tree.margin_K))), int(draw.integers(len(tree.node_T)))
    neuron = int(draw.integers(len(tree.alpha_NT))) if len(tree.alpha_NT) else 0
    names = ("margin_K", "parent_K", "sign_K", "node_T", "alpha_NT", "beta_NT", "exponent_RT")
    fields = {name: getattr(tree, name).copy() for name in names}
    if kind == "sign":
        fields["sign_K"][node] *= -1
    elif kind == "node moved":
        fields["parent_K"][node] = draw.integers(-1, max(node, 1) - (node == 0))
    elif kind == "margin":
        fields["margin_K"][node] = (fields["margin_K"][node] + 1) % 9
    elif kind == "step moved":
        fields["node_T"][step] = draw.integers(len(tree.margin_K))
    elif kind == "slope":
        fields["alpha_NT"][neuron, step] = draw.normal()
    elif kind == "multiplier":
        fields["beta_NT"][neuron, step] = draw.normal() * 10
    else:
        fields["exponent_RT"][neuron, step] = draw.integers(256)
    return replace(tree, **fields)


if __name__ == "__main__":
    main()
