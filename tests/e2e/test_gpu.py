"""On a GPU: proofs and clean predictions as on a CPU, and a result that names the device.

Skipped where there is no GPU. It passed on an NVIDIA H200 (torch 2.11, Python 3.12) on 2026-11-26,
each case in about half a minute.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reissue import ROUND

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.records.reading.result_file import read_result

ROOT = Path(__file__).parents[2]
ENTRY = "digits-ibp-dense"

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("more", [[], ["--tf32"], ["--no-isolate"]], ids=" ".join)
def test_a_gpu_decides_as_a_cpu(more: list[str], tmp_path: Path) -> None:
    asked = ["evaluate", str(ROOT / "submissions" / ENTRY), "--out", str(tmp_path)]
    assert invoke([*asked, "--device", "cuda", *more]) == 0
    here = read_result(tmp_path / ROUND / "digits" / f"{ENTRY}.json")
    there = read_result(ROOT / "leaderboard" / "results" / "1.0" / "digits" / f"{ENTRY}.json")
    assert here.device.startswith(torch.cuda.get_device_name())
    assert ("TF32" in here.device) == ("--tf32" in more)
    assert here.clean == there.clean
    for epsilon, counts in there.epsilons.items():
        found = here.epsilons[epsilon]
        for certifier, count in counts.certified_by.items():
            assert found.certified_by[certifier] == pytest.approx(count, abs=1)
        assert found.autoattack == pytest.approx(counts.autoattack, abs=2)
