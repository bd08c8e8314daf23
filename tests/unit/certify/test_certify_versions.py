"""Releases of the bound library give the same bounds; the later one's way of calling is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from certify_nets import boxes, cnn, seeded
from torch import Tensor

from benchmark.certify import CERTIFIERS, BoundedModel, lirpa_version
from benchmark.certify.lirpa_patches import patch_relaxation

#: Folder that holds another release, as `pip install --target` makes it.
OTHER = os.environ.get("COROBENCH_OTHER_LIRPA", "")
ROOT = Path(__file__).parents[3]

CODE = """
import sys, torch
from test_certify_versions import all_margins
from benchmark.certify import lirpa_version
torch.save((lirpa_version(), all_margins()), sys.argv[1])
"""


def all_margins() -> dict[str, Tensor]:
    """Margins of three nets by every certifier."""
    found = {}
    for seed in range(3):
        model = seeded(cnn, seed)
        x, low, high = boxes((1, 8, 8), 0.05)
        bounded = BoundedModel(model, (1, 8, 8), 10)
        for method in CERTIFIERS:
            found[f"{method} {seed}"] = bounded.margins(method, low, high, model(x).argmax(dim=1))
    return found


@pytest.mark.skipif(not OTHER, reason="COROBENCH_OTHER_LIRPA names no other release")
def test_another_release_gives_the_same_bounds(tmp_path: Path) -> None:
    path = os.pathsep.join([OTHER, str(ROOT), str(Path(__file__).parent)])
    command = [sys.executable, "-c", CODE, str(tmp_path / "margins.pt")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    version, found = torch.load(tmp_path / "margins.pt", weights_only=True)
    assert version != lirpa_version()
    for name, expected in all_margins().items():
        # the optimiser of slopes takes another path through the same arithmetic
        most = 1e-3 if name.startswith("alpha") else 1e-5
        torch.testing.assert_close(found[name], expected, atol=most, rtol=0, msg=name)


class NewerRelu:
    """The part of 0.7's ReLU that is patched: the floor of the slopes is given by name."""

    alpha_indices = None

    def init_opt_parameters(self, start_nodes: object) -> None:
        """Nothing to create."""

    @staticmethod
    def _relu_mask_alpha(
        lower: Tensor,
        upper: Tensor,
        low: Tensor | None,
        high: Tensor | None,
        leaky_alpha: float = 0,
    ) -> tuple[Tensor | None, Tensor | None, bool]:
        slopes = [one if one is None else one.clamp(leaky_alpha, 1.0) for one in (low, high)]
        return slopes[0], slopes[1], False


@pytest.mark.parametrize("floor", [0, 0.25])
def test_slopes_at_their_bounds_move_where_the_floor_is_given_by_name(floor: float) -> None:
    relu = type("Relu", (NewerRelu,), {})
    patch_relaxation(relu)
    slope = torch.tensor([float(floor), 1.0, 0.5], requires_grad=True)
    low, high, _ = relu._relu_mask_alpha(
        -torch.ones(3), torch.ones(3), slope, None, leaky_alpha=floor
    )
    low.sum().backward()
    assert high is None and torch.equal(low.detach(), slope.detach())
    assert slope.grad.tolist() == [1.0, 1.0, 1.0]
