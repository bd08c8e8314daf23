"""Result files -> the static site: pure, sorted, the same bytes every time.

Reads result files, what lies beside them, and the project's documents; asks no clock and no
network. Adding an entry is adding its files.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corobench.benchmark.records.reading.taken_file import read_taken
from corobench.benchmark.records.result import Result
from corobench.leaderboard.boards import Group, group_results
from corobench.leaderboard.discovery import Ignored
from corobench.leaderboard.documents import ROOT, read_documents
from corobench.leaderboard.evidence import read_all
from corobench.leaderboard.gallery import CleanImages, read_clean_images
from corobench.leaderboard.loading import (
    Loaded,
    identity,
    load_results,
    require_public,
    unpublished,
)
from corobench.leaderboard.pages import Site, render_pages
from corobench.leaderboard.security import read_curves
from corobench.leaderboard.trail import Project
from corobench.leaderboard.writing import write_site

_HOW_TO_LOOK = "with --quick they are shown for yourself, marked and never ranked"


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
        is_private: quick results are among them, so that it is not to be published.
    """

    index: Path
    groups: tuple[Group, ...]
    results: tuple[Result, ...]
    num_files: int
    num_bytes: int
    ignored: tuple[Ignored, ...]
    is_private: bool


def build_site(
    results: Sequence[Path],
    out: Path,
    address: str = "",
    repository: str = "",
    documents: Path = ROOT,
    *,
    with_quick: bool = False,
) -> SiteSummary:
    """Render the leaderboard.

    Args:
        results: result files, or folders searched for ``<protocol>/<track>/<entry>.json``.
        out: folder of the site; ``index.html`` is in it. Files in it that corobench did not
            write stay as they are.
        with_quick: show quick results and those of other settings, too, for a look of one's own;
            every page then says that the site is not to be published.
        address: where the site will be published, for the feed; empty where it is not known.
        repository: where files of the project can be read, for links in the documents.
        documents: folder of RULES.md and the other documents; those not there are left out.

    Raises:
        ResultError: no results, or faults in them, each with file, key and what was expected; or
            results that may not be published, without `with_quick`.
        OutputError: `out` cannot be written; then it is left as it was.
    """
    with _without_collector():
        loaded = load_results(results)
        if not with_quick:
            require_public(loaded, _HOW_TO_LOOK)
        groups = group_results(loaded.results, read_all(loaded.results, loaded.paths))
        folder = f"{address.rstrip('/')}/" if address else ""
        site = Site(
            read_documents(documents, repository),
            _clean_images(loaded),
            folder,
            is_private=bool(unpublished(loaded)),
            files=dict(zip(map(identity, loaded.results), loaded.paths, strict=True)),
            project=Project(documents, repository),
            curves=read_curves(loaded.results, loaded.paths),
            taken=_taken(loaded),
        )
        files = render_pages(groups, site)
    write_site(files, out)
    return SiteSummary(
        index=out / "index.html",
        groups=groups,
        results=loaded.results,
        num_files=len(files),
        num_bytes=sum(len(content) for content in files.values()),
        ignored=loaded.ignored,
        is_private=site.is_private,
    )


def _clean_images(loaded: Loaded) -> dict[str, CleanImages]:
    """Fingerprint of the data -> the clean images beside the results, where they are kept."""
    found = {}
    for result, path in zip(loaded.results, loaded.paths, strict=True):
        fingerprint = result.data.fingerprint
        if fingerprint not in found:
            images = read_clean_images(path.parent, fingerprint)
            if images is not None:
                found[fingerprint] = images
    return found


def _taken(loaded: Loaded) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Identity of a result -> class that each of its adversarial images is taken for, where known.

    Raises:
        ResultError: such a file is damaged or belongs to another result or other images.
    """
    found = {}
    for result, path in zip(loaded.results, loaded.paths, strict=True):
        taken = read_taken(path, result)
        if taken is not None:
            found[identity(result)] = taken.predicted
    return found


@contextmanager
def _without_collector() -> Iterator[None]:
    """No garbage collection meanwhile: it would scan all results again and again (a fifth)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
