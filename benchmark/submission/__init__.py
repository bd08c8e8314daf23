"""Submissions: a folder to a validated manifest to a loaded network, in safe formats only.

Importing this package imports no torch.

>>> from pathlib import Path
>>> from corobench.benchmark.submission import load_submission
>>> submission = load_submission(Path("submissions/_template"))
>>> submission.track.name
'digits'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corobench.benchmark.records.reports import ImportReport
    from corobench.benchmark.submission.contract import check_contract
    from corobench.benchmark.submission.importing import import_checkpoint, import_graph
    from corobench.benchmark.submission.load import Submission, load_candidate, load_submission
    from corobench.benchmark.submission.manifest import load_manifest
    from corobench.benchmark.submission.weights import effective_sha256, write_weights

_PLACES = {
    "ImportReport": "corobench.benchmark.records.reports",
    "Submission": "corobench.benchmark.submission.load",
    "check_contract": "corobench.benchmark.submission.contract",
    "effective_sha256": "corobench.benchmark.submission.weights",
    "import_checkpoint": "corobench.benchmark.submission.importing",
    "import_graph": "corobench.benchmark.submission.importing",
    "load_candidate": "corobench.benchmark.submission.load",
    "load_manifest": "corobench.benchmark.submission.manifest",
    "load_submission": "corobench.benchmark.submission.load",
    "write_weights": "corobench.benchmark.submission.weights",
}

__all__ = [
    "ImportReport",
    "Submission",
    "check_contract",
    "effective_sha256",
    "import_checkpoint",
    "import_graph",
    "load_candidate",
    "load_manifest",
    "load_submission",
    "write_weights",
]


def __getattr__(name: str) -> Any:
    """What this package offers, imported when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
