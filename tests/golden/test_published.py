"""Published results: scores follow from outcomes, pages are reproducible, entries are valid."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from corobench.benchmark.data import find
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.review.recheck import recheck
from corobench.benchmark.review.remeasure import remeasure
from corobench.benchmark.review.reprove import has_checked_proofs
from corobench.benchmark.scoring import ranking
from corobench.benchmark.scoring.scored import scored
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.validate import validate
from corobench.leaderboard.build import build_site
from corobench.leaderboard.reproduction import report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "leaderboard" / "results"
PUBLISHED = sorted(RESULTS.rglob("*.json"))
ENTRIES = sorted(path.parent for path in ROOT.glob("submissions/*/submission.toml"))


def test_there_is_something_published() -> None:
    assert len(PUBLISHED) >= 12


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_score_follows_from_its_outcomes(path: Path) -> None:
    recomputed = scored(beside(path, "outcomes.parquet"))
    assert encode_result(recomputed) == path.read_bytes()


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_score_belongs_to_the_weights_that_lie_here(path: Path) -> None:
    result = read_result(path)
    submission = load_submission(ROOT / "submissions" / result.entry)
    assert submission.weights_sha256 == result.weights_sha256
    assert not result.is_frozen
    assert not result.quick


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_sizes_are_those_of_the_weights(path: Path) -> None:
    """`corobench measure --results leaderboard/results/1.1 --write` after a key is added.

    Round 1.0 is frozen: keys that are younger are not added there.
    """
    result = read_result(path)
    done = remeasure(path, ROOT / "submissions" / result.entry)
    assert set(done.added) <= ({"num_live"} if result.protocol == "1.0" else set())


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_certified_is_never_above_attacked(path: Path) -> None:
    result = read_result(path)
    for score in result.epsilons.values():
        low, high = ranking.bracket(score)
        assert low <= high <= score.autoattack <= result.clean
        assert sum(score.counts.values()) == result.n


def _attacked() -> list[object]:
    """Results whose images are measured again: digits, and of the others every fourth by its name.

    All are with `-m slow`. Of each entry the newest result: older ones have the same images.
    """
    newest = {path.name: path for path in PUBLISHED}  # rounds come in order
    chosen = [
        path
        for path in newest.values()
        if path.parent.name == "digits"
        or ("@" not in path.stem and hashlib.sha256(path.stem.encode()).digest()[0] % 4 == 0)
    ]
    slow = [pytest.param(path, marks=pytest.mark.slow) for path in PUBLISHED if path not in chosen]
    return [*chosen, *slow]


@pytest.mark.parametrize("path", _attacked(), ids=lambda path: path.stem)
def test_every_published_adversarial_image_holds(path: Path) -> None:
    result = read_result(path)
    if not any(place.is_found for place in find(result.track)):
        pytest.skip(f"{result.track} is not on this machine")
    found = recheck(path, ROOT / "submissions" / result.entry, proofs=False)
    assert found.failures == ()
    assert found.num_rows > 0


def _certified() -> list[object]:
    """Results whose certificates the checker gave; searches of most take minutes."""
    rounds = [path for path in PUBLISHED if has_checked_proofs(path.parent.parent.name)]
    quick = [path for path in rounds if path.stem.startswith("digits-ibp-")]
    slow = [pytest.param(path, marks=pytest.mark.slow) for path in rounds if path not in quick]
    return [*quick, *slow]


@pytest.mark.parametrize("path", _certified(), ids=lambda path: path.stem)
def test_every_published_certificate_is_confirmed(path: Path) -> None:
    result = read_result(path)
    if not any(place.is_found for place in find(result.track)):
        pytest.skip(f"{result.track} is not on this machine")
    found = recheck(path, ROOT / "submissions" / result.entry)
    assert found.unproven == ()
    assert found.num_proofs == sum(
        score.counts[Outcome.CERTIFIED] for score in result.epsilons.values()
    )


def test_a_forged_adversarial_image_is_noticed(tmp_path: Path) -> None:
    source = RESULTS / "1.0" / "digits" / "digits-adv-dense.json"
    for path in source.parent.glob(f"{source.stem}.*"):
        shutil.copy(path, tmp_path)
    images = tmp_path / f"{source.stem}.adversarial.npz"
    forged = load_adversarial(source).copy()
    forged[0] = 1 - forged[0]
    forged[1] = 0.0
    np.savez(images, images=forged)
    found = recheck(tmp_path / source.name, ROOT / "submissions" / source.stem)
    assert len(found.failures) >= 2
    assert any("outside the ball" in line for line in found.failures)


def test_entries_are_valid() -> None:
    assert {path.name: faults for path, faults in validate(ENTRIES) if faults} == {}


def test_rendering_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    sites = []
    for name in ("first", "second"):
        build_site([RESULTS], tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        sites.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert sites[0] == sites[1]
    for result in map(read_result, PUBLISHED):
        start = f"boards/{result.track}-{result.protocol}-n{result.n}-"
        boards = [sites[0][name] for name in sites[0] if name.startswith(start)]
        assert boards and all(result.entry.encode() in board for board in boards)
    galleries = [
        name for name in sites[0] if name.startswith("entries/") and b"<img" in sites[0][name]
    ]
    assert len(galleries) == len(PUBLISHED)


def test_the_report_over_all_results_can_be_made() -> None:
    """A new row changes it, so that a pull request need not bring it: the site makes its own."""
    text = report([RESULTS])
    assert text == report([RESULTS])
    assert text.startswith("# ") and "fashion-mnist-ibp" in text


@pytest.mark.slow
def test_the_stored_report_follows_from_the_results() -> None:
    """`corobench report leaderboard/results --out docs/reproduction.md` after any new result."""
    assert (ROOT / "docs" / "reproduction.md").read_text("utf-8") == report([RESULTS])
