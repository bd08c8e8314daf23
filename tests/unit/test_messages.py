"""What a command says when something is not there or of another kind: what it is, what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from leaderboard_factory import make_raw

from corobench.benchmark.cli.importing import no_architecture
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.data.sources import list_places
from corobench.benchmark.errors import (
    ConfigError,
    DatasetError,
    ResultError,
    SubmissionError,
    nearest,
)
from corobench.benchmark.records.reading.arrays_file import read_arrays
from corobench.benchmark.records.reading.consistency import contradictions
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Result
from corobench.benchmark.submission.packing import repack
from corobench.benchmark.tracks import distinct_epsilons, get_track

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "leaderboard" / "results" / "1.0" / "digits"


def test_of_many_names_a_few_are_named() -> None:
    known = [f"name-{number:03}" for number in range(80)]
    said = nearest("zzz", known)
    assert "80 known ones" in said and said.count("'") == 6
    assert nearest("name-0077", known) == "did you mean 'name-077'?"


def test_weights_without_an_architecture_lead_to_onnx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80weights")
    code = invoke(["import", str(path), "--track", "digits", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 2 and str(path) in said
    assert "Your own network? Export it to ONNX" in said and "--architecture NAME" in said
    assert "external_data=False" in no_architecture(path)


@pytest.mark.parametrize("command", ["evaluate", "import", "doctor", "train"])
def test_a_data_root_that_is_not_there_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "evaluate": ["submissions/_template"],
        "import": ["m.onnx", "--track", "digits", "--out", str(tmp_path / "out")],
        "doctor": [],
        "train": ["digits/adv-dense"],
    }[command]
    assert invoke([command, *given, "--data-root", str(tmp_path / "no")]) == 2
    said = capsys.readouterr().err
    assert "--data-root" in said and str(tmp_path / "no") in said


def test_a_data_root_that_is_not_there_is_named_in_python(tmp_path: Path) -> None:
    from corobench.benchmark.submission.writing import sample_images

    track = get_track("digits")
    for look in (
        lambda: list(list_places(track, "test", tmp_path / "no")),
        lambda: sample_images(track, tmp_path / "no"),
    ):
        with pytest.raises(DatasetError, match="is not one"):
            look()


def test_a_radius_twice_is_named() -> None:
    assert distinct_epsilons(["1/2", "1/8"]) == ("1/8", "1/2")
    for texts in (["1/8", "2/16"], ["1/8", " 1/8"]):
        with pytest.raises(ConfigError, match="is the same radius as 1/8"):
            distinct_epsilons(texts)
    raw = make_raw()
    (first, *_) = raw["epsilons"]
    above, below = first.split("/")
    again = f"{2 * int(above)}/{2 * int(below)}"
    raw["epsilons"][again] = raw["epsilons"][first]
    faults = contradictions(Result.model_validate(raw))
    assert any("is the same radius as" in fault for fault in faults)


def test_coded_images_are_no_images_of_a_contest(tmp_path: Path) -> None:
    path = PUBLISHED / "digits-adv-lwm-10x.adversarial.npz"
    with pytest.raises(ResultError, match=r"give images of your own: np\.savez") as caught:
        read_arrays(path, ("images", "indices"))
    assert "as codes" in caught.value.message
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros(1), y=np.zeros(1))
    with pytest.raises(ResultError, match="no array named images; it has x, y"):
        read_arrays(other, ("images", "indices"))


@pytest.mark.parametrize("to_packed", [True, False])
def test_only_safetensors_are_packed(tmp_path: Path, to_packed: bool) -> None:
    for name, said in (("model.onnx", "is an ONNX file"), ("model.pt", "`corobench import`")):
        path = tmp_path / name
        path.write_bytes(b"something")
        with pytest.raises(SubmissionError, match=said):
            repack(path, to_packed=to_packed)
        assert path.read_bytes() == b"something"


def test_a_result_without_its_images_is_no_result(tmp_path: Path) -> None:
    """From protocol 1.1 on the three files are one set, and a verdict needs all of them."""
    from reissue import reissue

    from corobench.benchmark.scoring.scored import read_scored

    made = reissue(PUBLISHED / "digits-adv-lwm-10x.json", tmp_path)
    read_scored(made)
    images = made.with_name("digits-adv-lwm-10x.adversarial.npz")
    shutil.move(images, tmp_path / "elsewhere")
    with pytest.raises(ResultError, match=r"adversarial\.npz: is missing"):
        read_scored(made)


def test_words_between_colons_are_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    """Texts of users hold names such as `nets:boom:`, which a console would draw as a picture."""
    assert invoke(["validate", "--headers", "a:boom:"]) == 2
    assert "a:boom:: 1 fault" in capsys.readouterr().out
    code = invoke(["train", "digits/adv-lwm-10x", "--parent", "no_such:boom", "--out", "x"])
    assert code == 2 and "no_such:boom: no Python module" in capsys.readouterr().err


def test_every_console_is_the_one_that_draws_no_pictures() -> None:
    root = Path(__file__).parents[2]
    folders = ("benchmark", "baselines", "leaderboard", "corobench")
    paths = [path for name in folders for path in (root / name).rglob("*.py")]
    calls = {path: len(re.findall(r"\b(?:Console|_Plain)\(", path.read_text())) for path in paths}
    assert {path: count for path, count in calls.items() if count} == {
        root / "benchmark" / "files" / "console.py": 2  # its class, and the one call
    }


def test_weights_alone_are_no_candidate(tmp_path: Path) -> None:
    from corobench.benchmark.errors import ConfigError
    from corobench.benchmark.gate.run import is_result

    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 weights")
    with pytest.raises(ConfigError, match=r"model\.pt: weights alone are no candidate"):
        is_result(tmp_path / "model.pt")


def test_a_folder_is_no_result_file(tmp_path: Path) -> None:
    (tmp_path / "model.json").touch()
    with pytest.raises(ResultError, match=r"name the result file in it, such as model\.json"):
        read_result(tmp_path)


def test_a_pointer_of_git_lfs_is_named_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = Path(__file__).parents[2] / "submissions" / "_template"
    folder = tmp_path / "template"
    shutil.copytree(template, folder)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert invoke(["validate", "--headers", str(folder)]) == 2
    assert "git lfs pull" in capsys.readouterr().out
    assert invoke(["validate", "--headers", str(folder / "submission.toml")]) == 2
    assert "this is a file; name the folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["x\x1b]0;pwned\x07\x1b[31m", "x\n::error::from a name", "a\n ##[group]"]
)
def test_names_of_files_write_nothing_else(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not into a terminal, and no command into the log of a job."""
    folder = tmp_path / "1.1" / "digits"
    folder.mkdir(parents=True)
    (folder / f"{name}.json").write_text("{}")
    (tmp_path / name).mkdir()
    for command in (
        ["render", str(tmp_path), "--out", str(tmp_path / "site")],
        ["leaderboard", "--results", str(tmp_path)],
        ["score", str(folder / f"{name}.json")],
        ["check", str(folder / f"{name}.json"), "--baseline", str(folder / f"{name}.json")],
        ["validate", "--headers", str(tmp_path / name)],
    ):
        assert invoke(command) == 2
        said = "".join(capfd.readouterr())
        assert "\x1b]" not in said and "\x07" not in said
        assert not [line for line in said.splitlines() if line.lstrip().startswith(("::", "##["))]
