"""A small outcome table with every common outcome, counted by hand in the tests.

Its images and labels are the first ones of the published order of `digits`; a table of others is
refused.
"""

from __future__ import annotations

import pandas as pd

from corobench.benchmark.records.result import OUTCOME_COLUMNS, Compactness, DataInfo, Manifest, Run
from corobench.benchmark.tracks import TRACKS, published_order

#: Of the eight images, as in scikit-learn's digits.
IMAGES = published_order("digits", 500)[:8]
LABELS = (1, 4, 9, 1, 7, 5, 0, 8)

#: outcome, decided_by, ibp, crown_ibp, crown, pgd50, autoattack of eight images.
ROWS = [
    ("misclassified", "clean", False, False, False, False, False),
    ("attacked", "apgd-ce", False, False, False, True, False),
    ("attacked", "apgd-ce", False, False, False, False, False),
    ("certified", "IBP", True, True, True, True, True),
    ("certified", "CROWN-IBP", False, True, True, True, True),
    ("certified", "CROWN", False, False, True, True, True),
    ("undecided", "", False, False, False, True, True),
    ("undecided", "", False, False, False, True, True),
]


def make_manifest(entry: str = "test-entry") -> Manifest:
    """A valid manifest."""
    return Manifest.model_validate(
        {
            "schema": 1,
            "id": entry,
            "title": "A test",
            "authors": ["Somebody"],
            "licence": "MIT",
            "track": "digits",
            "model": {"architecture": "cnn-small"},
            "method": {"name": "dense", "pipeline": "none", "pretrain_objective": "natural"},
            "training": {"data": "digits train"},
        }
    )


def make_run(not_asked: dict[str, str] | None = None) -> Run:
    """The identity of an evaluation of eight images at one epsilon."""
    return Run(
        protocol="1.0",
        entry="test-entry",
        track="digits",
        n=len(ROWS),
        quick=True,
        epsilons=("1/16",),
        data=DataInfo(kind="canonical", fingerprint=TRACKS["digits"].fingerprint),
        weights_sha256="ff" * 32,
        seed=0,
        device="cpu",
        versions={"torch": "2", "auto_LiRPA": "0.3"},
        settings={"pgd_steps": 50, "certifiers": ["IBP"]},
        submission=make_manifest(),
        compactness=Compactness(
            num_parameters=10,
            num_nonzero=5,
            macs_dense=10,
            macs_nonzero=5,
            bytes_dense=40,
            bytes_packed=22,
        ),
        not_asked=not_asked or {},
        flags={"1/16": ("zero-gradient",)},
    )


def make_table(run: Run) -> pd.DataFrame:
    """The outcome table of `run`."""
    records = []
    for position, (outcome, decided_by, ibp, crown_ibp, crown, pgd, autoattack) in enumerate(ROWS):
        records.append(
            {
                "image": IMAGES[position],
                "position": position,
                "label": LABELS[position],
                "predicted": 5 if outcome == "misclassified" else LABELS[position],
                "epsilon": run.epsilons[0],
                "outcome": outcome,
                "decided_by": decided_by,
                "carried_from": "",
                "margin": None if outcome == "misclassified" else 0.25,
                "ibp": ibp,
                "crown_ibp": crown_ibp,
                "crown": crown,
                "alpha_crown": crown or ibp or crown_ibp,
                "bab": crown or ibp or crown_ibp,
                "pgd50": pgd,
                "autoattack": autoattack,
                "adversarial": position - 1 if outcome == "attacked" else -1,
                "seconds": 0.5,
            }
        )
    table = pd.DataFrame(records)
    return table.astype({name: dtype for name, (dtype, _) in OUTCOME_COLUMNS.items()})
