"""The class that a broken image is taken for: named beside a result, read strictly, shown."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from leaderboard_factory import make_result, write_evidence, write_result

from corobench.benchmark.cli.results import pictures
from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.taken_file import MAX_BYTES, read_taken
from corobench.benchmark.records.result_set import sha256_of
from corobench.benchmark.records.taken import NO_CLASS, taken_path
from corobench.benchmark.tracks import get_track
from corobench.leaderboard.build import build_site

ROOT = Path(__file__).parents[2]
ENTRY = "digits-ibp-lwm-10x"
CLASSES = get_track("digits").classes


@pytest.fixture
def result_path(tmp_path: Path) -> Path:
    """A copy of a published result."""
    folder = tmp_path / "results" / "1.0" / "digits"
    folder.mkdir(parents=True)
    published = ROOT / "leaderboard" / "results" / "1.0" / "digits"
    for path in (*published.glob(f"{ENTRY}.*"), *published.glob("clean-images.*")):
        shutil.copy(path, folder)
    return folder / f"{ENTRY}.json"


def test_the_classes_are_those_of_the_network_and_the_result_stays(
    result_path: Path, tmp_path: Path
) -> None:
    """Every image of the file is asked alone; no byte of the result changes."""
    from corobench.benchmark.evaluation.evidence import load_evidence
    from corobench.benchmark.referee.judge import predict_one_by_one
    from corobench.benchmark.review.taken import name_classes

    before = {path: path.read_bytes() for path in result_path.parent.iterdir()}
    path = name_classes(result_path, ROOT / "submissions" / ENTRY)
    assert path == taken_path(result_path)
    assert {one: one.read_bytes() for one in result_path.parent.iterdir()} == before
    result = read_result(result_path)
    taken = read_taken(result_path, result)
    assert taken is not None
    evidence = load_evidence(result_path, ROOT / "submissions" / ENTRY)
    import torch

    logits = predict_one_by_one(evidence.submission.model, torch.from_numpy(evidence.adversarial))
    assert taken.predicted == tuple(logits.argmax(dim=1).tolist())
    attacked = evidence.table[evidence.table["outcome"] == "attacked"]
    assert len(attacked)
    assert all(
        taken.predicted[row] != label
        for row, label in zip(attacked["adversarial"], attacked["label"], strict=True)
    )
    content = path.read_bytes()
    path.write_text("damaged", encoding="utf-8")
    assert name_classes(result_path, ROOT / "submissions" / ENTRY).read_bytes() == content
    entry = shown(result_path.parents[2], tmp_path / "site", ENTRY)
    assert "every adversarial one as the class behind the arrow" in entry
    told = re.findall(r"<p>([^<]+?) → ([^<]+?) <span", entry)
    assert len(told) > 3 and all(right != wrong for right, wrong in told)
    assert {name for pair in told for name in pair} <= set(CLASSES)


def test_a_tie_with_the_true_class_is_another_class_and_infinity_is_none(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torch import nn

    from corobench.benchmark.review import taken as naming

    class Tied(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            values = torch.zeros(len(images), 10)
            return values + torch.inf if images.mean() > 0.6 else values

    class Evidence:
        submission = type("S", (), {"model": Tied()})
        path = made
        table = pd.DataFrame({"outcome": ["attacked"] * 2, "adversarial": [0, 1], "label": [0, 3]})
        adversarial = np.stack([np.full((1, 8, 8), mean, np.float32) for mean in (0.5, 0.75)])

    assert naming.predictions(Evidence()).tolist() == [1, NO_CLASS]  # type: ignore[arg-type]

    Evidence.submission.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # type: ignore[attr-defined]
    nn.init.zeros_(Evidence.submission.model[1].weight)  # type: ignore[attr-defined]
    Evidence.submission.model[1].bias.data = torch.eye(10)[0]  # type: ignore[attr-defined]
    with pytest.raises(ResultError, match="is classified correctly"):
        naming.predictions(Evidence())  # type: ignore[arg-type]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = write_result(tmp_path / "results", make_result("entry"))
    write_evidence(path)
    return path


def raw_taken(path: Path, **changed: Any) -> dict[str, Any]:
    result = read_result(path)
    images = beside(path, "adversarial.npz")
    num = len(np.load(images)["images"])
    return {
        "schema": 1,
        "entry": result.entry,
        "track": result.track,
        "n": result.n,
        "fingerprint": result.data.fingerprint,
        "weights_sha256": result.weights_sha256,
        "adversarial_sha256": sha256_of(images),
        "predicted": [11] * num,
        **changed,
    }


def written(path: Path, taken: dict[str, Any] | str) -> Path:
    place = taken_path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(taken if isinstance(taken, str) else json.dumps(taken), encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"entry": "other"}, "entry: expected 'entry'"),
        ({"weights_sha256": "0" * 64}, "weights_sha256: expected"),
        ({"adversarial_sha256": "0" * 64}, "adversarial_sha256: expected"),
        ({"schema": 2}, "schema"),
        ({"predicted": [-2]}, "predicted"),
        ({"predicted": [0.5]}, "predicted"),
        ({"predicted": ["1"]}, "predicted"),
    ],
)
def test_a_file_of_something_else_is_refused(
    made: Path, changed: dict[str, Any], words: str
) -> None:
    place = written(made, raw_taken(made, **changed))
    with pytest.raises(ResultError, match=re.escape(words)) as caught:
        read_taken(made, read_result(made))
    assert str(place) in caught.value.message
    assert "corobench pictures RESULTS --submissions DIR" in caught.value.message


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 1, "schema": 1}', " " * MAX_BYTES + "{"]
)
def test_damaged_files_are_one_clear_error(made: Path, text: str) -> None:
    written(made, text)
    with pytest.raises(ResultError, match="write it again"):
        read_taken(made, read_result(made))


@pytest.mark.parametrize("kind", ["true class", "no such class", "too few"])
def test_a_page_names_no_impossible_class(made: Path, tmp_path: Path, kind: str) -> None:
    """What the record cannot know by itself is held against the table and the track."""
    table = pd.read_parquet(beside(made, "outcomes.parquet"))
    attacked = table[table["adversarial"] >= 0].sort_values("adversarial")
    classes = {
        "true class": attacked["label"].tolist(),
        "no such class": [len(CLASSES)] * len(attacked),
        "too few": [],
    }
    written(made, raw_taken(made, predicted=classes[kind]))
    with pytest.raises(ResultError, match="expected one of 10 that is not its true class"):
        build_site([made.parents[2]], tmp_path / "site")


def test_an_unknown_class_is_said_to_be_unknown(made: Path, tmp_path: Path) -> None:
    entry = shown(made.parents[2], tmp_path / "site", "entry")
    assert "as another class; which one was not recorded for this entry" in entry
    assert "→ another class" in entry
    num = len(raw_taken(made)["predicted"])
    written(made, raw_taken(made, predicted=[NO_CLASS] * num))
    entry = shown(made.parents[2], tmp_path / "site", "entry")
    assert "→ another class" not in entry
    assert "→ no class: a logit is not finite" in entry


def no_network(*given: object) -> None:
    raise ResultError("a network is loaded")


def test_the_command_names_the_classes_of_entries_at_hand(
    result_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = result_path.parents[2]
    stranger = json.loads(result_path.read_text())
    stranger["entry"] = stranger["submission"]["id"] = "stranger"
    result_path.with_name("stranger.json").write_text(json.dumps(stranger))
    given = [str(root), "--submissions", str(ROOT / "submissions"), "--no-isolate"]
    done = CliRunner().invoke(pictures, given)
    assert done.exit_code == 0, done.output
    assert str(taken_path(result_path)) in done.output.replace("\n", "")
    assert "left out, without a folder in" in done.output and "submissions: 1" in done.output
    assert read_taken(result_path, read_result(result_path)) is not None
    # Again: what fits stays, and no network is loaded; what is damaged is written anew.
    path = taken_path(result_path)
    content, written = path.read_bytes(), path.stat().st_mtime_ns
    monkeypatch.setattr("corobench.benchmark.review.taken.load_evidence", no_network)
    assert CliRunner().invoke(pictures, given).exit_code == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, written)
    path.write_text("damaged", encoding="utf-8")
    assert isinstance(CliRunner().invoke(pictures, given).exception, ResultError)


def shown(results: Path, site: Path, entry: str) -> str:
    """The page of an entry, its text on one line."""
    build_site([results], site)
    (page,) = site.glob(f"entries/1.0/digits/{entry}.n500.html")
    return " ".join(page.read_text("utf-8").split())
