"""Evaluating again: a whole result is kept, a damaged one repaired, another engine's not reused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import OutputError
from corobench.benchmark.evaluation import identity
from corobench.benchmark.evaluation.evaluate import evaluate
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.steps import MEMORY_LIMIT, STEP_LIMIT, Ended, Steps
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Contest, DataInfo
from corobench.benchmark.records.result_set import (
    ADVERSARIAL,
    ENDINGS,
    OUTCOMES,
    beside,
    staged,
    verify_set,
)
from corobench.benchmark.review import drift
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import Protocol, get_track

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "submissions" / "_template"
#: At this radius PGD and APGD break what is right, so that a run takes a fraction of a second.
EPSILONS = ("3/16",)


def _evaluate(out: Path, **more: Any) -> Evaluated:
    return evaluate(TEMPLATE, Settings(n=12, epsilons=EPSILONS, out=out, **more))


def _content(path: Path) -> tuple[object, ...]:
    """A whole set without times and dates."""
    result = read_result(path)
    verify_set(path, result)
    table, run = read_outcomes(beside(path, OUTCOMES))
    images = load_adversarial(path)
    return (
        result.model_dump(exclude={"seconds", "date", "files"}),
        run.model_dump(exclude={"seconds", "date"}),
        table.drop(columns="seconds").to_json(double_precision=15),
        images.tobytes(),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result file of an undisturbed run."""
    return _evaluate(tmp_path_factory.mktemp("results")).path


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A folder of results of its own with that result."""
    return Path(shutil.copytree(whole.parents[2], tmp_path / "results"))


def _path(out: Path) -> Path:
    (path,) = out.glob("*/digits/*.json")
    return path


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _swap_images(path: Path) -> None:
    with path.open("wb") as stream:  # whatever its name ends with
        np.savez_compressed(stream, images=np.zeros((99, 1, 8, 8), np.float32))


def test_a_whole_result_is_kept(whole: Path, out: Path) -> None:
    before = _path(out).read_bytes()
    assert _evaluate(out).reused
    assert _path(out).read_bytes() == before


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("damage", [Path.unlink, _cut, _swap_images])
def test_what_is_missing_or_damaged_is_mended(
    whole: Path, out: Path, ending: str, damage: Any
) -> None:
    damage(beside(_path(out), ending))
    assert not _evaluate(out).reused
    assert _content(_path(out)) == _content(whole)
    assert _evaluate(out).reused


def test_a_result_without_digests_is_mended_too(whole: Path, out: Path) -> None:
    """Nothing says that its files belong together, and the present protocol asks for that."""
    path = _path(out)
    payload = json.loads(path.read_text())
    del payload["files"]
    table, run = read_outcomes(beside(path, OUTCOMES))
    run = run.model_copy(update={"files": None})
    beside(path, OUTCOMES).write_bytes(encode_outcomes(table, run))
    path.write_bytes((json.dumps(payload, indent=1, ensure_ascii=False) + "\n").encode())
    assert not _evaluate(out).reused
    assert _content(path) == _content(whole)
    assert _evaluate(out).reused


def test_mending_is_said(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside(_path(out), ADVERSARIAL).unlink()
    command = ["evaluate", str(TEMPLATE), "--subset", "12", "--epsilons", *EPSILONS]
    assert invoke([*command, "--out", str(out), "--no-isolate"]) == 0
    said = capsys.readouterr()
    assert "repairing" in said.err and "is missing" in said.err
    assert "already there" not in said.out


def test_what_a_contest_found_is_not_thrown_away(out: Path) -> None:
    path = _path(out)
    table, run = read_outcomes(beside(path, OUTCOMES))
    contest = Contest(sha256="0" * 64, num_images=1, num_confirmed=1, broken={"3/16": 0})
    write_set(path, table, run.model_copy(update={"contests": (contest,)}))
    assert _evaluate(out).reused
    beside(path, ADVERSARIAL).unlink()
    with pytest.raises(OutputError, match="tightened by contests"):
        _evaluate(out)
    assert not _evaluate(out, force=True).result.contests


def test_a_frozen_round_is_not_mended(out: Path) -> None:
    (_path(out).parents[1] / rounds.SUMS).write_text("")
    beside(_path(out), ADVERSARIAL).unlink()
    with pytest.raises(OutputError, match="frozen"):
        _evaluate(out)


def test_an_interrupted_writing_is_finished(whole: Path, out: Path) -> None:
    """As a kill leaves it between the old result and the new one."""
    path = _path(out)
    for ending in ("json", ADVERSARIAL):
        beside(path, ending).rename(staged(path, ending))
    assert _evaluate(out).reused
    assert _content(path) == _content(whole)
    assert not any(file.name.startswith(".") for file in path.parent.iterdir())


def test_an_interrupted_writing_in_a_frozen_round_stays(out: Path) -> None:
    path = _path(out)
    path.rename(staged(path, "json"))
    (path.parents[1] / rounds.SUMS).write_text("")
    with pytest.raises(OutputError, match="frozen"):
        _evaluate(out)
    assert staged(path, "json").exists()


# ------------------------------------------------------------------------------ the engine


class _StopError(Exception):
    """A run that ends before its last stage."""


def _stop(self: Evaluation) -> None:
    raise _StopError


def _num_reused(out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks that a run takes over."""
    stores = []
    begin = ChunkStore.__init__

    def remember(self: ChunkStore, *arguments: Any) -> None:
        begin(self, *arguments)
        stores.append(self)

    monkeypatch.setattr(ChunkStore, "__init__", remember)
    _evaluate(out)
    return max(one.reused for one in stores)


@pytest.mark.parametrize("is_other", [False, True])
def test_chunks_of_another_engine_are_never_reused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_other: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "autoattack", _stop)
        with pytest.raises(_StopError):
            _evaluate(tmp_path)
    assert list(tmp_path.glob(".chunks/*/*.chunk"))
    if is_other:
        monkeypatch.setattr(identity, "ENGINE", "another")
    reused = _num_reused(tmp_path, monkeypatch)
    assert (reused == 0) == is_other
    if not is_other:
        assert _content(_path(tmp_path)) == _content(whole)


def test_the_result_of_another_engine_is_another_result(
    whole: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = read_result(whole)
    assert old.versions["engine"] == identity.ENGINE
    assert old.constants is not None
    monkeypatch.setattr(identity, "ENGINE", "another")
    with pytest.raises(OutputError, match="holds another result"):
        _evaluate(out)
    new = _evaluate(out, force=True)
    assert new.result.identity != old.identity
    found = drift.between(whole, new.path, 5.0)
    assert found.versions == {"engine": (identity.engine.version(), "another")}
    assert found.moved_too_much == ()


def test_results_without_an_engine_are_compared_as_before(
    whole: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`drift`, `check` and `recheck` on a result from before, beside one of today."""
    path = _path(out)
    table, run = read_outcomes(beside(path, OUTCOMES))
    versions = {name: text for name, text in run.versions.items() if name != "engine"}
    run = run.model_copy(update={"versions": versions, "constants": None})
    write_set(path, table, run)
    assert b'"constants"' not in path.read_bytes()
    for old, new in ((path, whole), (whole, path)):
        assert invoke(["drift", str(old), str(new)]) == 0
        assert "engine" in capsys.readouterr().out
        assert invoke(["check", str(new), "--baseline", str(old)]) == 0
        assert invoke(["recheck", str(new), "--submission", str(TEMPLATE), "--no-isolate"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize(
    "reason", [f"no answer within 1 s ({STEP_LIMIT})", f"used more than 1 GiB ({MEMORY_LIMIT})"]
)
def test_what_lower_limits_cut_short_is_evaluated_again_without_them(
    tmp_path: Path, reason: str
) -> None:
    """It has the identity of the whole result, and lost all certifiers."""
    ended = {
        f"certify-{name}-3_16-0000": Ended(reason, by_clock=STEP_LIMIT in reason)
        for name in ("IBP", "CROWN-IBP", "CROWN")
    }
    settings = Settings(n=12, epsilons=EPSILONS, out=tmp_path, is_limited=True)
    short = evaluate(TEMPLATE, settings, steps=Steps(ended=ended))
    assert short.result.quick and "IBP" in short.result.not_asked
    assert evaluate(TEMPLATE, settings).reused
    whole = _evaluate(tmp_path)
    assert not whole.reused and "IBP" not in whole.result.not_asked
    assert whole.result.identity == short.result.identity
    assert _evaluate(tmp_path).reused


def test_a_manifest_that_changed_is_brought_into_the_result(tmp_path: Path) -> None:
    """A title or a parent changes no number, and nothing is computed again."""
    folder = tmp_path / TEMPLATE.name
    shutil.copytree(TEMPLATE, folder)
    settings = Settings(n=12, epsilons=EPSILONS, out=tmp_path / "results")
    first = evaluate(folder, settings)
    before = _content(first.path)
    assert evaluate(folder, settings).reused and _content(first.path) == before
    manifest = folder / "submission.toml"
    text, old = manifest.read_text(), first.result.submission.title
    assert text.count(old) == 1
    manifest.write_text(text.replace(old, "Another title"))
    again = evaluate(folder, settings)
    assert again.reused and again.result.submission.title == "Another title"
    found = read_result(first.path)
    verify_set(first.path, found)
    _, run = read_outcomes(beside(first.path, OUTCOMES))
    assert run.submission == found.submission == again.result.submission
    manifest.write_text(text)
    evaluate(folder, settings)
    assert _content(first.path) == before


def test_another_track_is_that_of_the_manifest_in_the_result(tmp_path: Path) -> None:
    """Else the result names two, and every reader refuses it."""
    folder = ROOT / "submissions" / "cifar10-ibp-lwm-10x"
    asked = load_submission(folder, "svhn")
    data = SimpleNamespace(info=DataInfo(kind="canonical", fingerprint="ab" * 32))
    settings, track = Settings(n=4, out=tmp_path), get_track("svhn")
    run = identity.identify(asked, data, 4, track.epsilons, settings, Protocol(), "cpu")
    assert (run.track, run.submission.track) == ("svhn", "svhn")
    assert asked.manifest.track == "cifar10"
