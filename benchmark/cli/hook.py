"""The pre-commit hook: the manifests and headers of the folders of the files it is given.

It needs no torch and takes about a second; ``corobench validate`` looks at the networks, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corobench.benchmark.cli.entry import run
from corobench.benchmark.submission.manifest import MANIFEST


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


def main() -> None:
    """Entry point of ``corobench-hook``."""
    folders = folders_of(sys.argv[1:])
    sys.exit(run(["validate", "--headers", *folders]) if folders else 0)


if __name__ == "__main__":
    main()
