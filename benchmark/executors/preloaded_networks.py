"""What loading and running a network needs, without attacks and bounds; see `preloaded`.

Loaded once by the server of commands that neither attack nor bound, which start twice as fast.
"""

from __future__ import annotations

import corobench.benchmark.review.recheck
import corobench.benchmark.submission.validate  # noqa: F401
