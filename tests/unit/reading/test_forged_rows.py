"""Forged results: whichever command reads one says what is forged, and none comes to a verdict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from leaderboard_factory import write_pair

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evidence import load_adversarial, load_evidence
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Run
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.scored import require_join

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "leaderboard" / "results" / "1.0" / "digits"
ENTRY, PARENT = "digits-ibp-random-10x", "digits-ibp-dense"
Change = Callable[[pd.DataFrame, Run], tuple[pd.DataFrame, Run]]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A board of two entries, one of them the other's parent."""
    place = tmp_path / "leaderboard" / "results" / "1.0" / "digits"
    place.mkdir(parents=True)
    for entry in (ENTRY, PARENT):
        for path in PUBLISHED.glob(f"{entry}.*"):
            shutil.copy(path, place)
    return place


def _everything_certified(table: pd.DataFrame) -> pd.DataFrame:
    """As good as a table can be: it agrees with itself."""
    columns = ["ibp", "crown_ibp", "crown", "alpha_crown", "bab", "pgd50", "autoattack"]
    table = table.assign(outcome="certified", decided_by="IBP", carried_from="", adversarial=-1)
    return table.assign(predicted=table["label"], **dict.fromkeys(columns, True))


def _forge(board: Path, change: Change) -> Path:
    """Rewrite an entry's table, and its result so that the counts agree with it."""
    path = board / f"{ENTRY}.json"
    outcomes = beside(path, "outcomes.parquet")
    table, run = read_outcomes(outcomes)
    table, run = change(table, run)
    content = encode_outcomes(table, run)
    raw = json.loads(path.read_text())
    for epsilon, rows in table.groupby("epsilon", sort=False):
        if epsilon not in raw["epsilons"]:
            continue
        score = raw["epsilons"][epsilon]
        score["counts"] = {name: int((rows["outcome"] == name).sum()) for name in score["counts"]}
        decided = rows.loc[rows["decided_by"] != "", "decided_by"].value_counts()
        score["decided_by"] = {str(name): int(decided[name]) for name in sorted(decided.index)}
        for name in ("pgd50", "autoattack"):
            score[name] = int(rows[name].fillna(False).sum())
        for name in score["certified_by"]:
            column = name.lower().replace("-", "_")
            certified = rows["outcome"] == "certified" if name == "cascade" else rows[column]
            score["certified_by"][name] = int(certified.sum())
        raw["clean"] = int((rows["predicted"] == rows["label"]).sum())
    raw |= {"weights_sha256": run.weights_sha256, "seed": run.seed}
    raw["compactness"] = run.compactness.model_dump()
    path.write_text(json.dumps(raw))
    outcomes.write_bytes(content)
    return path


def _commands(board: Path) -> dict[str, list[str]]:
    forged, honest = str(board / f"{ENTRY}.json"), str(board / f"{PARENT}.json")
    folder, results = str(ROOT / "submissions" / ENTRY), str(board.parents[1])
    here = ["--submission", folder, "--no-isolate"]
    return {
        "score": ["score", forged.replace(".json", ".outcomes.parquet")],
        "render": ["render", results, "--out", str(board / "site")],
        "report": ["report", results],
        "freeze": ["freeze", str(board.parent)],
        "migrate": ["migrate", forged],
        "check, baseline": ["check", honest, "--baseline", forged, "--no-isolate"],
        "check, candidate": ["check", forged, "--baseline", honest, "--no-isolate"],
        "drift": ["drift", forged, honest],
        "drift, again": ["drift", forged, folder, "--no-isolate"],
        "recheck": ["recheck", forged, *here],
        "contest": ["contest", forged, forged.replace(".json", ".adversarial.npz"), *here],
    }


def _shifted(table: pd.DataFrame, run: Run) -> tuple[pd.DataFrame, Run]:
    return _everything_certified(table).assign(image=table["image"] + 100_000), run


def _relabelled(table: pd.DataFrame, run: Run) -> tuple[pd.DataFrame, Run]:
    """Every wrong prediction becomes the true class."""
    wrong = table["outcome"] == "misclassified"
    table = table.assign(label=table["predicted"])
    table.loc[wrong, ["outcome", "decided_by"]] = ["undecided", ""]
    table.loc[wrong, ["pgd50", "autoattack"]] = True
    return table, run


def _others(table: pd.DataFrame, run: Run) -> tuple[pd.DataFrame, Run]:
    """The images that it holds instead of those that come first."""
    images = table["image"].to_numpy().reshape(len(run.epsilons), -1)
    return table.assign(image=images[:, ::-1].reshape(-1)), run


def _moved(table: pd.DataFrame, run: Run) -> tuple[pd.DataFrame, Run]:
    return table.assign(position=table["position"].to_numpy()[::-1]), run


def _carried(table: pd.DataFrame, run: Run) -> tuple[pd.DataFrame, Run]:
    """Proofs that come from a radius that has none."""
    rows = (table["epsilon"] == run.epsilons[-1]) & (table["outcome"] == "certified")
    table.loc[rows, "carried_from"] = run.epsilons[0]
    return table, run


FORGED: dict[str, tuple[Change, str]] = {
    "carried": (_carried, "carried_from at 2/16: expected a radius with such a decision"),
    "shifted": (_shifted, "image: expected the published order of digits"),
    "others": (_others, "image: expected the published order of digits"),
    "relabelled": (_relabelled, "label: expected"),
    "moved": (_moved, "position: expected 0 to 499"),
}


@pytest.mark.parametrize("how", FORGED)
def test_every_command_names_what_is_forged(
    board: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = FORGED[how]
    _forge(board, change)
    for name, command in _commands(board).items():
        code = invoke(command)
        said = capsys.readouterr().err.replace("\n", " ")
        assert code == 2, name
        assert message in said and f"{ENTRY}.outcomes.parquet" in said, (name, said)
    assert not rounds.is_frozen(board.parent)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights_sha256", "ab" * 32),
        ("seed", 7),
        ("device", "a faster one"),
        ("date", "2020-01-01"),
        ("clean", 231),
        ("versions", {"torch": "9"}),
    ],
)
def test_a_result_that_is_not_its_table_s_is_named_key_by_key(
    board: Path, key: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the result file is changed; the run inside the table says what it always said."""
    path = board / f"{ENTRY}.json"
    raw = json.loads(path.read_text())
    raw[key] = value
    for score in raw["epsilons"].values():
        if key == "clean":
            score["counts"]["error"] = score["counts"]["misclassified"] - (500 - 231)
            score["counts"]["misclassified"] = 500 - 231
    path.write_text(json.dumps(raw))
    commands = _commands(board)
    for name in ("render", "freeze", "migrate", "check, baseline", "drift", "recheck"):
        code = invoke(commands[name])
        said = capsys.readouterr().err
        assert code == 2, name
        assert key in said and str(path) in said, (name, said)
    assert invoke(commands["score"]) == 2


@pytest.mark.parametrize("key", ["num_nonzero", "macs_nonzero", "bytes_packed", "layers"])
def test_a_network_that_weighs_something_else_is_named_with_both_values(
    board: Path, key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Result and table agree with each other; the weights do not agree with either."""
    path = board / f"{ENTRY}.json"
    raw = json.loads(path.read_text())
    if key == "layers":
        raw["compactness"]["layers"][0]["macs_nonzero"] -= 1
    else:
        raw["compactness"][key] += 1
    write_pair(path, raw)
    assert read_result(path).entry == ENTRY
    monkeypatch.chdir(ROOT)
    commands = _commands(board)
    for name in ("recheck", "contest", "drift, again", "check, baseline", "check, candidate"):
        code = invoke(commands[name])
        said = capsys.readouterr().err
        assert code == 2, name
        assert f"{path}: compactness.{key}" in said and "but the weights of" in said, (name, said)


def test_weights_beside_the_results_are_at_hand(
    board: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the current folder is; other weights of that name are not these weights."""
    path = board / f"{ENTRY}.json"
    raw = json.loads(path.read_text())
    raw["compactness"]["num_nonzero"] -= 1
    write_pair(path, raw)
    command = _commands(board)["check, baseline"]
    monkeypatch.chdir(tmp_path)
    assert invoke(command) in (0, 1)
    folder = tmp_path / "submissions" / ENTRY
    shutil.copytree(ROOT / "submissions" / PARENT, folder)
    manifest = (folder / "submission.toml").read_text()
    (folder / "submission.toml").write_text(manifest.replace(f'"{PARENT}"', f'"{ENTRY}"'))
    assert invoke(command) in (0, 1)
    shutil.copytree(ROOT / "submissions" / ENTRY, folder, dirs_exist_ok=True)
    capsys.readouterr()
    assert invoke(command) == 2
    assert "compactness.num_nonzero: the result says" in capsys.readouterr().err


def test_adversarial_images_that_are_too_few_or_no_images(board: Path) -> None:
    path = board / f"{ENTRY}.json"
    stored = beside(path, "adversarial.npz")
    images = load_adversarial(path)
    for content, message in (
        (images[:-1], "expected row"),
        (images.astype(np.float64), "images: expected float32"),
        (images[:, :, :4], "images: expected float32"),
        (images * 2, r"images: expected values in \[0, 1\]"),
        (np.full_like(images, np.nan), r"images: expected values in \[0, 1\]"),
    ):
        np.savez(stored, images=content)
        with pytest.raises(ResultError, match=message) as caught:
            load_evidence(path, ROOT / "submissions" / ENTRY)
        assert str(stored) in caught.value.message


def test_tables_of_different_images_are_never_compared() -> None:
    """Each is well-formed by itself; a join of the two is empty, or smaller than both."""
    rows = {"epsilon": "1/16", "label": [1, 2, 3], "image": [7, 8, 9]}
    first = pd.DataFrame(rows)
    require_join(first, first.iloc[:2], Path("a.json"), Path("b.json"))
    for other in (
        first.assign(image=[1, 2, 3]),
        first.assign(image=[7, 8, 1]),
        first.assign(label=[1, 2, 4]),
        first.assign(epsilon="2/16"),
        first.iloc[:0],
    ):
        with pytest.raises(ResultError, match=r"b\.json: .*a\.json"):
            require_join(first, other, Path("a.json"), Path("b.json"))
