"""Published results as results of the present protocol, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corobench.benchmark.evaluation import engine
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.evaluation.identity import versions
from corobench.benchmark.evaluation.outcomes import drop_unused
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result_set import OUTCOMES, beside
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.tracks import PROTOCOL, Protocol, get_track, round_of, settings_of

#: Folder of the results that are evaluated today.
ROUND = round_of(PROTOCOL)


def reissue(source: Path, results: Path, stem: str = "", **more: object) -> Path:
    """Write a published result as a set of the present round; nothing of it is measured anew.

    Args:
        source: result file of any round.
        results: folder of the rounds.
        stem: of the new file; that of the old one by default.
        more: keys of the run that are other ones.
    """
    table, run = read_outcomes(beside(source, OUTCOMES))
    settings = settings_of(Protocol(), get_track(run.track))
    today = {
        "protocol": PROTOCOL,
        "settings": settings,
        "versions": versions(),
        "constants": dict(engine.constants()),
        "files": None,
    }
    run = run.model_copy(update=today | more)
    run = run.model_copy(update={"identity": identity_of(run)})
    path = results / ROUND / run.track / f"{stem or source.stem}.json"
    rows = table[table["position"] < run.n].reset_index(drop=True)
    rows, images = drop_unused(rows, list(load_adversarial(source)))
    write_set(path, rows, run, images)
    return path


@contextmanager
def unchecked() -> Iterator[None]:
    """Scorecards of whatever a table says, as a forger's own program counts them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corobench.benchmark.scoring.score.require_belonging", lambda *_: None)
        patch.setattr("corobench.benchmark.scoring.score.require_rows", lambda *_: None)
        yield
