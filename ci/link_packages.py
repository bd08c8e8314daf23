"""Show the packages below `corobench` in one folder, by links, for tools that read no package-dir.

    python ci/link_packages.py FOLDER

mypy is such a tool. FOLDER gets `corobench/`, whose files and folders are links into this checkout.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(folder: Path) -> None:
    """Make the links anew."""
    places = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    mapped = dict(places["tool"]["setuptools"]["package-dir"])
    top = folder / "corobench"
    top.mkdir(parents=True, exist_ok=True)
    links = {path.name: path for path in (ROOT / mapped.pop("corobench")).iterdir()}
    links |= {name.split(".")[1]: ROOT / place for name, place in mapped.items()}
    for old in top.iterdir():
        old.unlink()
    for name, target in links.items():
        if name != "__pycache__":
            (top / name).symlink_to(target.resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
