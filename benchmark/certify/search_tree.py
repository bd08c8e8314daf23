"""What a search found, in the form that the checker reads."""

from __future__ import annotations

from corobench.benchmark.certify.bab.budget import BranchResult
from corobench.benchmark.certify.checker.trees import Tree
from corobench.benchmark.certify.witness import float64


def tree_of(found: BranchResult, threshold: float) -> Tree:
    """What a search found, as the checker reads it.

    Args:
        found: with a proof.
        threshold: what the checker compares margins with.
    """
    assert found.proof is not None
    proof = found.proof
    return Tree(
        [(relu, places.cpu().numpy()) for relu, places in found.neurons],
        proof.margin_K.numpy(),
        proof.parent_K.numpy(),
        proof.neuron_K.numpy(),
        float64(proof.sign_K),
        proof.node_T.numpy(),
        float64(proof.alpha_NT),
        float64(proof.beta_NT),
        proof.exponent_RT.numpy(),
        threshold,
        [None if one is None else float64(one) for one in found.slopes],
    )
