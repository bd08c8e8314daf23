"""The pre-commit hook: ``corobench validate`` on the folders of the files it is given."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmark.cli import invoke

MANIFEST = "submission.toml"


def folders_of(files: list[str]) -> list[str]:
    """Submission folders that manifests and weights lie in; other weights belong to none."""
    paths = [Path(file) for file in files]
    return sorted(
        {
            str(path.parent)
            for path in paths
            if path.name == MANIFEST or (path.parent / MANIFEST).is_file()
        }
    )


if __name__ == "__main__":
    folders = folders_of(sys.argv[1:])
    sys.exit(invoke(["validate", *folders]) if folders else 0)
