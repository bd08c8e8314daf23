"""The pre-commit hook: ``corobench validate`` on the folders of the manifests it is given."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmark.cli import invoke

if __name__ == "__main__":
    folders = sorted({str(Path(manifest).parent) for manifest in sys.argv[1:]})
    sys.exit(invoke(["validate", *folders]) if folders else 0)
