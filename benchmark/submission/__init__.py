"""Submissions: a folder to a validated manifest to a loaded network, in safe formats only.

>>> from pathlib import Path
>>> submission = load_submission(Path("submissions/_template"))
>>> submission.track.name
'digits'
"""

from __future__ import annotations

from benchmark.submission.contract import check_contract
from benchmark.submission.importing import ImportReport, import_checkpoint, import_graph
from benchmark.submission.load import Submission, load_candidate, load_submission
from benchmark.submission.manifest import load_manifest
from benchmark.submission.validate import validate
from benchmark.submission.weights import effective_sha256, write_weights

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
    "validate",
    "write_weights",
]
