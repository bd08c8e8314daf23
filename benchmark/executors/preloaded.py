"""What every evaluation needs, loaded once by the server that the processes are forked from.

Nothing here sees a submission. The bound library writes to the user's folders while it is imported,
which the processes may not.
"""

from __future__ import annotations

import contextlib

import pyautoattack  # noqa: F401

import corobench.benchmark.evaluation.evaluate
import corobench.benchmark.evaluation.workbench
import corobench.benchmark.executors.bench_worker
import corobench.benchmark.submission.validate  # noqa: F401
from corobench.benchmark.certify.lirpa import compat as lirpa_compat
from corobench.benchmark.errors import CorobenchError

with contextlib.suppress(CorobenchError, ImportError):
    lirpa_compat.load()
