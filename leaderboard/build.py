"""Result files -> the static site: pure, sorted, the same bytes every time.

Reads nothing but result files, asks no clock and no network. Adding an entry is adding a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import ResultError
from benchmark.records import Result
from benchmark.scoring import why_unpublished
from leaderboard.boards import Group, group_results
from leaderboard.discovery import Ignored
from leaderboard.loading import Loaded, load_results
from leaderboard.pages import render_pages
from leaderboard.writing import write_site


@dataclass(frozen=True)
class SiteSummary:
    """What was rendered.

    Attributes:
        index: path of the page to open.
        groups: tables by track, kind of data and n, in the order of the page.
        results: those read, sorted.
        num_files: files written.
        num_bytes: of all files together.
        ignored: JSON files that were found and are not results.
    """

    index: Path
    groups: tuple[Group, ...]
    results: tuple[Result, ...]
    num_files: int
    num_bytes: int
    ignored: tuple[Ignored, ...]


def build_site(results: Sequence[Path], out: Path, *, public: bool = False) -> SiteSummary:
    """Render the leaderboard.

    Args:
        results: result files, or folders searched for ``<protocol>/<track>/<entry>.json``.
        out: folder of the site; ``index.html`` is in it. Files in it that corobench did not
            write stay as they are.
        public: refuse quick results and other settings than the protocol's.

    Raises:
        ResultError: no results, or faults in them, each with file, key and what was expected.
        OutputError: `out` cannot be written; then it is left as it was.
    """
    loaded = load_results(results)
    if public:
        _require_public(loaded)
    groups = group_results(loaded.results)
    files = render_pages(groups)
    write_site(files, out)
    return SiteSummary(
        index=out / "index.html",
        groups=groups,
        results=loaded.results,
        num_files=len(files),
        num_bytes=sum(len(content) for content in files.values()),
        ignored=loaded.ignored,
    )


def _require_public(loaded: Loaded) -> None:
    faults = [
        f"{path}: {reason}"
        for path, result in zip(loaded.paths, loaded.results, strict=True)
        for reason in why_unpublished(result)
    ]
    if faults:
        raise ResultError("\n".join(["these results may not be published", *faults]))
