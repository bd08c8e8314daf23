"""The fuzzer of certificates: it breaks whoever forgets rounding, and not the engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from canaries.affine import naive_margin
from torch import Tensor, nn

PERF = Path(__file__).parents[2] / "perf"
sys.path.insert(0, str(PERF))

import fuzz_certificates  # noqa: E402
import random_networks  # noqa: E402


def _naive(
    network: nn.Module, low: Tensor, high: Tensor, labels: Tensor, certifiers: Sequence[str]
) -> Mapping[str, Tensor]:
    """Real arithmetic without a word of rounding."""
    boxes = zip(low, high, labels.tolist(), strict=True)
    margins = [naive_margin(network, a[None], b[None], label) for a, b, label in boxes]
    return dict.fromkeys(certifiers, torch.tensor(margins) > 0)


def _nothing(
    network: nn.Module, low: Tensor, high: Tensor, labels: Tensor, certifiers: Sequence[str]
) -> Mapping[str, Tensor]:
    """Everything is claimed: no box is too large."""
    return dict.fromkeys(certifiers, torch.ones(len(low), dtype=torch.bool))


def test_hidden_gates_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a naive verifier's certificates on networks with a hidden gate many are found wrong."""
    monkeypatch.setattr(fuzz_certificates, "draw", random_networks.hidden)
    monkeypatch.setattr(fuzz_certificates, "SHARES", {"naive": 1.0})
    hunted = [fuzz_certificates.hunt(number, 0, 4, _naive) for number in range(5)]
    num_networks_broken = sum(bool(wrong) for _, wrong in hunted)
    assert sum(found for found, _ in hunted) >= 10
    assert num_networks_broken >= 4


@pytest.mark.slow
def test_edges_of_naive_proofs_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the largest radius of a proof without rounding, rounding alone breaks some networks."""
    monkeypatch.setattr(fuzz_certificates, "SHARES", {"naive": 1.0})
    hunted = [fuzz_certificates.hunt(number, 1, 4, _naive) for number in range(16)]
    kinds = {one.drawn.kind for _, wrong in hunted for one in wrong}
    assert kinds - {"hidden"}


def test_claims_without_proof_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search finds ordinary adversarial images, whatever the network."""
    monkeypatch.setattr(fuzz_certificates, "SHARES", {"nothing": 1.0})
    hunted = [fuzz_certificates.hunt(number, 2, 4, _nothing) for number in range(12)]
    num_certificates = sum(found for found, _ in hunted)
    assert sum(len(wrong) for _, wrong in hunted) >= num_certificates / 3


def test_networks_are_of_every_kind_and_the_same_again() -> None:
    drawn = [random_networks.draw(np.random.default_rng([3, n])) for n in range(60)]
    assert {one.kind for one in drawn} == set(random_networks.KINDS)
    again = random_networks.draw(np.random.default_rng([3, 7]))
    expected, found = drawn[7].network.state_dict(), again.network.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for one in drawn:
        assert one.network(torch.rand(2, *one.shape)).shape == (2, one.num_classes)


@pytest.mark.slow
def test_engine_has_no_wrong_certificate() -> None:
    command = [sys.executable, str(PERF / "fuzz_certificates.py")]
    done = subprocess.run(
        [*command, "--count", "1000", "--seconds", "400", "--seed", "5"],
        capture_output=True,
        text=True,
        timeout=550,
    )
    *_, last = done.stdout.splitlines()
    assert last.startswith("0 wrong of "), done.stdout
    assert done.returncode == 0
    assert int(last.split()[3]) >= 100
