"""Which results a command makes: shares, what is there already, the order, and faults by folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import make_manifest, make_run, make_table

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.executors.costs import SECONDS, Seconds, cost_of, seconds_of
from corobench.benchmark.executors.planning import Shard, has_result, plan, plan_again
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.submission.architecture_names import NAMES as ARCHITECTURES
from corobench.benchmark.submission.manifest import format_manifest
from corobench.benchmark.tracks import PROTOCOL, get_track, round_of

NAMES = st.lists(st.text(min_size=1, max_size=30), unique=True, max_size=40)


def _folder(root: Path, entry: str, **more: object) -> Path:
    folder = root / entry
    folder.mkdir(parents=True)
    manifest = make_manifest(entry).model_copy(update=more)
    (folder / "submission.toml").write_bytes(format_manifest(manifest))
    return folder


def _result(out: Path, entry: str, n: int = 8) -> Path:
    """A result of the present protocol, at its place."""
    run = make_run().model_copy(update={"protocol": PROTOCOL, "entry": entry})
    run = run.model_copy(update={"submission": make_manifest(entry)})
    path = out / round_of(PROTOCOL) / "digits" / f"{entry}@{n}.json"
    write_set(path, make_table(run), run, np.zeros((2, 1, 8, 8), dtype=np.float32))
    return path


# ----------------------------------------------------------------------------------- shares


@given(NAMES, st.integers(1, 30))
def test_every_entry_is_in_exactly_one_share(names: list[str], count: int) -> None:
    shares = [Shard(number, count) for number in range(1, count + 1)]
    for name in names:
        assert sum(share.holds(name) for share in shares) == 1


@given(NAMES, st.text(min_size=1), st.integers(2, 9))
def test_another_entry_moves_none(names: list[str], another: str, count: int) -> None:
    share = Shard(1, count)
    before = {name for name in names if share.holds(name)}
    assert {name for name in [*names, another] if share.holds(name)} - {another} == before - {
        another
    }


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/3", "1/3/5", "1/9999999"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard: expected i/N"):
        Shard.parse(text)


def test_shares_together_are_the_whole_plan(tmp_path: Path) -> None:
    folders = [_folder(tmp_path, f"entry-{number}") for number in range(12)]
    whole = plan(folders, Settings(), (100, 500))
    parts = [plan(folders, Settings(), (100, 500), shard=Shard(i, 3)) for i in (1, 2, 3)]
    for part in parts:
        assert len(part.works) + part.num_elsewhere == len(whole.works) == 24
        names = [work.folder.name for work in part.works]
        assert all(names.count(name) == 2 for name in names)  # all subsets of an entry
    assert {work for part in parts for work in part.works} == set(whole.works)


# ------------------------------------------------------------------------- what is there already


def test_missing_only_leaves_whole_results_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    folders = [_folder(tmp_path / "s", entry) for entry in ("one", "two")]
    path = _result(out, "one")
    assert has_result(path)
    chosen = plan(folders, Settings(out=out), (8,), missing_only=True)
    assert [work.folder.name for work in chosen.works] == ["two"]
    assert chosen.there == (path,)
    assert len(plan(folders, Settings(out=out), (8,)).works) == 2  # without --missing-only
    assert len(plan(folders, Settings(out=out), (9,), missing_only=True).works) == 2


@pytest.mark.parametrize("ending", ["outcomes.parquet", "adversarial.npz"])
def test_a_result_without_one_of_its_files_is_made_again(tmp_path: Path, ending: str) -> None:
    path = _result(tmp_path, "one")
    path.with_name(f"{path.stem}.{ending}").unlink()
    assert not has_result(path)


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    path = _result(tmp_path, "one")
    path.write_text("{}")
    assert not has_result(path)
    assert not has_result(tmp_path / "nothing.json")


def test_an_interrupted_write_is_finished_by_an_evaluation(tmp_path: Path) -> None:
    path = _result(tmp_path, "one")
    path.with_name(f".{path.stem}.json.new").write_bytes(path.read_bytes())
    assert not has_result(path)


# ------------------------------------------------------------------------------ order and faults


def test_the_longest_comes_first(tmp_path: Path) -> None:
    small = _folder(tmp_path, "small")
    large = _folder(
        tmp_path,
        "large",
        model=make_manifest().model.model_copy(update={"architecture": "vgg16-bn"}),
    )
    works = plan([small, large], Settings(), (100, 500)).works
    assert [(work.folder.name, work.settings.n) for work in works] == [
        ("large", 500),
        ("large", 100),
        ("small", 500),
        ("small", 100),
    ]
    assert all(work.cost_s > 0 for work in works)


def test_faults_name_the_folder_and_leave_others_alone(tmp_path: Path) -> None:
    good = _folder(tmp_path, "good")
    strange = _folder(tmp_path, "strange", track="mnist-c")
    (tmp_path / "empty").mkdir()
    chosen = plan([good, tmp_path / "empty", strange, tmp_path / "none"], Settings(), (100, 500))
    assert [work.folder.name for work in chosen.works] == ["good", "good"]
    told = [error.message for error in chosen.refused]
    assert len(told) == 3
    assert str(tmp_path / "empty") in told[0] and "submission.toml" in told[0]
    assert str(strange) in told[1] and "mnist-c" in told[1]
    assert str(tmp_path / "none") in told[2]


def test_a_folder_named_twice_counts_once(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "one")
    link = tmp_path / "link"
    link.symlink_to(folder)
    named = [folder, folder, Path(os.path.relpath(folder)), link]
    chosen = plan(named, Settings(), (100, 100, 200))
    assert [work.folder for work in chosen.works] == [folder, folder]
    assert chosen.refused == ()


def test_two_folders_of_one_id_are_refused(tmp_path: Path) -> None:
    one = _folder(tmp_path / "a", "one")
    other = tmp_path / "b" / "one"
    shutil.copytree(one, other)
    chosen = plan([one, other], Settings())
    assert [work.folder for work in chosen.works] == [one]
    assert str(one) in chosen.refused[0].message and str(other) in chosen.refused[0].message


def test_stored_results_are_planned_by_their_own_track_and_size(tmp_path: Path) -> None:
    _folder(tmp_path / "submissions", "one")
    old = _result(tmp_path / "old", "one")
    missing = tmp_path / "old" / "none.json"
    settings = Settings(out=tmp_path / "out")
    chosen = plan_again([old, missing], tmp_path / "submissions", settings)
    (work,) = chosen.works
    assert work.settings.earlier == old and work.folder == tmp_path / "submissions" / "one"
    assert str(missing) in chosen.refused[0].message
    again = plan_again(
        [old], tmp_path / "submissions", Settings(out=tmp_path / "old"), missing_only=True
    )
    assert again.works == () and again.there == (old,)


# ------------------------------------------------------------------------------------- cost


def _cost(manifest: Manifest, folder: Path, n: int = 1000, track: str = "cifar10") -> float:
    return cost_of(manifest, folder, get_track(track), n, 2)


def test_costs_grow_with_images_width_and_size_of_a_file(tmp_path: Path) -> None:
    def named(**more: object) -> Manifest:
        manifest = make_manifest()
        return manifest.model_copy(update={"model": manifest.model.model_copy(update=more)})

    plain = named()
    assert _cost(plain, tmp_path, 10_000) > 5 * _cost(plain, tmp_path, 1000) > 0
    assert _cost(named(arguments={"width": 2.0}), tmp_path) > 2 * _cost(plain, tmp_path)
    onnx = named(architecture=None, weights="model.onnx")
    (tmp_path / "model.onnx").write_bytes(bytes(400_000))
    before = _cost(onnx, tmp_path)
    (tmp_path / "model.onnx").write_bytes(bytes(4_000_000))
    assert _cost(onnx, tmp_path) == pytest.approx(10 * before)
    assert _cost(named(architecture="unheard-of"), tmp_path) > 0
    assert _cost(plain, tmp_path, track="svhn") == pytest.approx(_cost(plain, tmp_path))


def test_the_table_names_architectures_and_is_positive() -> None:
    measured = {name for name, _ in SECONDS}
    assert {"cnn-small", "cnn-large", "vgg16-bn"} <= measured <= set(ARCHITECTURES)
    for row in SECONDS.values():
        numbers = {name: value for name, value in vars(row).items() if name != "crown_closes"}
        assert all(value is None or value > 0 for value in numbers.values())
        assert row.suite > row.apgd_ce and row.cheap > 0
    manifest = make_manifest()
    assert seconds_of(manifest, Path(), get_track("digits")) == SECONDS["cnn-small", "digits"]


def test_crown_counts_where_it_is_asked() -> None:
    """About every correct image of a small network, about open ones of a large one."""
    early = Seconds(1, *[1.0] * 11)
    late = replace(early, crown_closes=True)
    assert (early.cheap, early.closing) == (3.0, 2.0)
    assert (late.cheap, late.closing) == (2.0, 3.0)
    assert late.times(2.0).crown_closes and late.times(2.0).closing == 6.0
