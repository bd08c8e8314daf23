"""The hash that says which evaluation a result is of; every reader can compute it again."""

from __future__ import annotations

import hashlib

from corobench.benchmark.files.atomic import canonical_json
from corobench.benchmark.records.result import Result, Run


def identity_of(run: Run | Result) -> str:
    """The sha256 over everything that identifies a result, in hexadecimal.

    Args:
        run: what was evaluated, or the result that says so.
    """
    model = run.submission.model
    identity = {
        "protocol": run.protocol,
        "track": run.track,
        "n": run.n,
        "epsilons": list(run.epsilons),
        "data": run.data.fingerprint,
        "architecture": [model.architecture, model.arguments],
        "weights_sha256": run.weights_sha256,
        "settings": run.settings,
        "seed": run.seed,
        "versions": run.versions,
        "device": run.device,
    }
    if run.earlier is not None:
        identity["earlier"] = run.earlier.identity
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()
