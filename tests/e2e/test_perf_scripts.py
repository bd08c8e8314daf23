"""Measuring scripts start, whatever the machine is worth; their bars are for a quiet one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PERF = ROOT / "perf"
#: Script -> the smallest that it measures. `NOT_RUN` says why the others are not here.
SMALLEST = {
    "attack_overhead.py": ["--n", "2"],
    "bracket.py": ["submissions/digits-adv-lwm-10x", "--epsilon", "1/16", "--n", "3"],
    "branch_and_bound.py": ["leaderboard/results/1.0/digits/digits-ibp-dense.json", "--n", "2"],
    "budget_table.py": ["digits"],
    "cost_model.py": ["cnn-small:digits"],
    "crown_cost.py": ["submissions/digits-adv-lwm-10x", "--epsilon", "1/16", "-n", "1"],
    "families.py": ["--only", "gelu"],
    "forger_chance.py": ["--repeats", "20"],
    "fuzz_certificates.py": ["--count", "8", "--images", "2"],
    "gate_rates.py": ["--n", "100", "--simulations", "20"],
    "gate_tests.py": ["--n", "100"],
    "hopeless.py": ["submissions/digits-adv-lwm-10x", "--epsilon", "1/8", "--n", "20"],
    "isolation_cost.py": ["--repeats", "1"],
    "kills.py": ["--kills", "1", "--subset", "4"],
    "layout.py": ["--images", "2", "--repeats", "1"],
    "lookahead.py": [
        "submissions/digits-adv-lwm-10x",
        "--epsilon",
        "1/8",
        "--n",
        "20",
        "--max-subdomains",
        "100",
    ],
    "measured_table.py": ["leaderboard/results/1.1/digits"],
    "overhead.py": ["--n", "4"],
    "pack_ratio.py": [],
    "packed_sizes.py": ["digits-ibp-lwm-10x"],
    "proof_cost.py": [],
    "proofs.py": ["submissions/digits-ibp-lwm-10x", "--n", "6", "--alterations", "3"],
    "recognition_cost.py": ["submissions/digits-ibp-lwm-10x", "--n", "4"],
    "scale_simulation.py": ["--entries", "2", "--workers", "2", "--n", "100"],
    "self_checks.py": ["--track", "digits"],
    "site_build.py": ["--entries", "2"],
    "train_step.py": ["--steps", "3"],
    "verify_first.py": ["submissions/digits-ibp-lwm-10x", "--n", "4"],
}
#: Script -> why it is not run here.
NOT_RUN = {
    "certify_seconds.py": "needs an older checkout",
    "coded_images.py": "needs results that were stored before",
    "common.py": "a module",
    "deployments.py": "a module",
    "families_by_hand.py": "a module",
    "families_of_torch.py": "a module",
    "gate_cost.py": "has one size",
    "kills_workers.py": "kills processes at random moments",
    "memory.py": "has one size, of gigabytes",
    "own_networks.py": "has one size",
    "pages.py": "writes into docs/",
    "random_networks.py": "a module",
    "quantised_networks.py": "needs CIFAR-10, and trains for minutes",
    "ray_hashes.py": "needs Ray",
    "reader_tasks.py": "needs a browser",
    "scale.py": "has bars for an idle machine, and jobs of minutes",
    "site_browser.py": "needs a browser",
}


def test_every_script_is_run_or_has_a_reason() -> None:
    assert {*SMALLEST} | {*NOT_RUN} == {path.name for path in PERF.glob("*.py")}
    assert not {*SMALLEST} & {*NOT_RUN}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_a_script_measures_its_smallest(name: str) -> None:
    """It ends with 0, or with 1 where it misses its bar, and prints its figure last."""
    command = [sys.executable, str(PERF / name), *SMALLEST[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=560, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.stdout.strip()


@pytest.mark.slow
def test_the_cost_of_a_site_is_measured_on_copies_of_published_results() -> None:
    command = [sys.executable, str(PERF / "site_build.py"), "--entries", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stderr == ""
    head, line, last = done.stdout.splitlines()
    assert head.startswith("entries | build, s")
    entries, seconds, *_ = line.split(" | ")
    assert (entries, seconds) == ("2", last)
