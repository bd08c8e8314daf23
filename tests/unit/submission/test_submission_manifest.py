"""Manifests that people write with the editors they have: what is refused, and what is told."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from submission_factory import TABLE, make_folder, make_state, merge

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.submission.headers import find_header_faults, intake_warnings
from corobench.benchmark.submission.load import load_submission
from corobench.benchmark.submission.manifest import (
    check_manifest,
    load_manifest,
    parse_manifest,
)


def _faults(**over: object) -> tuple[str, ...]:
    with pytest.raises(SubmissionError) as caught:
        check_manifest(merge(TABLE, over))
    return caught.value.faults


def test_a_sparsity_that_is_left_out_is_measured(tmp_path: Path) -> None:
    state = make_state()
    name = max(state, key=lambda key: state[key].numel())
    state[name].view(-1)[::2] = 0.0
    submission = load_submission(make_folder(tmp_path, state, sparsity=None))
    assert load_manifest(tmp_path / "entry").sparsity is None
    assert 0.1 < submission.sparsity < 0.9
    assert submission.manifest.sparsity == pytest.approx(submission.sparsity, abs=1e-6)
    # Whoever declares it is held to it, also where it is nothing.
    (tmp_path / "other").mkdir()
    with pytest.raises(SubmissionError, match=r"declared 0\.0000, but the weights have"):
        load_submission(make_folder(tmp_path / "other", state))


@pytest.mark.parametrize(
    "name",
    ["con", "nul.model", "com1", "lpt9.x-y", "aux", "ends.", "prn.json"],
)
def test_names_that_windows_cannot_store_are_refused(name: str) -> None:
    for key in ("id", "parent"):
        (fault,) = _faults(**{key: name})
        assert f"`{key}`" in fault and "Windows" in fault and repr(name) in fault


@pytest.mark.parametrize("name", ["console", "com10", "nulled.con", "a.con", "lpt"])
def test_names_that_only_look_like_devices_are_fine(name: str) -> None:
    assert check_manifest(merge(TABLE, {"id": name})).id == name


def test_a_weights_file_is_named_for_windows_too() -> None:
    (fault,) = _faults(model={"weights": "AUX.onnx"})
    assert "`model.weights`" in fault and "Windows" in fault


@pytest.mark.parametrize(
    "hidden", ["\x1b[2J", "\x07", "\u202e", "\u2066", "\u200b", "\ufeff", "\u061c", "\x7f", "\x85"]
)
@pytest.mark.parametrize(
    ("key", "over"),
    [
        ("title", lambda text: {"title": text}),
        ("authors.0", lambda text: {"authors": [text]}),
        ("description", lambda text: {"description": text}),
        ("licence", lambda text: {"licence": text}),
        ("method.name", lambda text: {"method": {"name": text}}),
        ("method.finetune_objective", lambda text: {"method": {"finetune_objective": text}}),
        ("training.extra_data_source", lambda text: {"training": {"extra_data_source": text}}),
        ("links.0", lambda text: {"links": [f"https://example.org/{text}"]}),
    ],
)
def test_nothing_is_hidden_in_a_text(key: str, over, hidden: str) -> None:
    (fault,) = _faults(**over(f"a{hidden}b"))
    assert f"`{key}`" in fault
    assert hidden not in fault


@pytest.mark.parametrize(
    "text", ["Zoë Çelik", "علی رضایی", "नरेंद्र", "王小明", "Ⅻ – ½", "👩‍🔬 lab", "می‌خواهم"]
)
def test_text_of_every_script_is_fine(text: str) -> None:
    assert check_manifest(merge(TABLE, {"title": text, "authors": [text]})).title == text


def test_a_description_may_have_lines() -> None:
    text = "First line.\n\tsecond line"
    assert check_manifest(merge(TABLE, {"description": text})).description == text


def test_a_blank_title_is_refused() -> None:
    (fault,) = _faults(title="   ")
    assert "`title`" in fault and "not blank" in fault


@pytest.mark.parametrize(
    ("encoding", "mark", "name"),
    [
        ("utf-8", codecs.BOM_UTF8, "UTF-8 with BOM"),
        ("utf-16-le", codecs.BOM_UTF16_LE, "UTF-16"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "UTF-16"),
        ("utf-32-le", codecs.BOM_UTF32_LE, "UTF-32"),
    ],
)
def test_a_byte_order_mark_is_named(tmp_path: Path, encoding: str, mark: bytes, name: str) -> None:
    folder = make_folder(tmp_path)
    path = folder / "submission.toml"
    path.write_bytes(mark + path.read_text(encoding="utf-8").encode(encoding))
    with pytest.raises(SubmissionError) as caught:
        load_manifest(folder)
    (fault,) = caught.value.faults
    assert "byte order mark (BOM)" in fault and name in fault and 'save it as "UTF-8"' in fault
    assert find_header_faults(folder) == [fault]


def test_a_byte_order_mark_is_named_in_other_files(tmp_path: Path) -> None:
    from corobench.baselines.recipe_file import load_recipe
    from corobench.benchmark.errors import ConfigError, ResultError
    from corobench.benchmark.records.reading.result_file import read_scorecard
    from corobench.benchmark.review.vnnlib_files import read_verdicts

    for read, name, error in (
        (load_recipe, "r.toml", ConfigError),
        (read_scorecard, "r.json", ResultError),
        (read_verdicts, "r.csv", ResultError),
    ):
        path = tmp_path / name
        path.write_bytes(codecs.BOM_UTF8 + b"{}")
        with pytest.raises(error, match=r"byte order mark \(BOM\)"):
            read(path)


def test_what_an_intake_refuses_is_a_warning_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(
        tmp_path,
        licence="unknown",
        parent="nobody",
        method={"pretrain_objective": "unknown"},
        training={"data": "Unknown"},
    )
    found = intake_warnings(folder)
    keys = ("licence", "method.pretrain_objective", "training.data", "parent")
    assert [f"`{key}`" in line for key, line in zip(keys, found, strict=True)] == [True] * 4
    for more in (["--headers"], ["--no-certifiers", "--no-isolate"]):
        assert invoke(["validate", *more, str(folder)]) == 0
        said = capsys.readouterr().out
        assert said.count("warning: an intake refuses this") == 4
    (tmp_path / "nobody").mkdir()
    assert not any("`parent`" in line for line in intake_warnings(folder))


def test_nothing_is_warned_of_a_complete_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["validate", "--headers", str(make_folder(tmp_path))]) == 0
    assert "warning" not in capsys.readouterr().out


def test_the_manifest_of_a_new_folder_declares_no_sparsity(tmp_path: Path) -> None:
    from corobench.benchmark.cli.starting import start

    start(tmp_path / "mine", track="digits", architecture="cnn-small", arguments={"width": 0.1})
    manifest = parse_manifest((tmp_path / "mine" / "submission.toml").read_bytes())
    assert isinstance(manifest, Manifest) and manifest.sparsity is None
