"""Releases of the bound library give the same bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from certify_nets import boxes, cnn, seeded
from torch import Tensor

from corobench.benchmark.certify import CERTIFIERS, BoundedModel, lirpa_version

#: Folder that holds another release, as `pip install --target` makes it.
OTHER = os.environ.get("COROBENCH_OTHER_LIRPA", "")
ROOT = Path(__file__).parents[3]

CODE = """
import sys, torch
from test_certify_versions import all_margins
from corobench.benchmark.certify import lirpa_version
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
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=0, msg=name)
