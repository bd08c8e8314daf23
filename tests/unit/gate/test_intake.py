"""A new entry by pull request: what is refused, and what is said of one that is fine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from leaderboard_factory import make_raw, write_result
from reissue import ROUND, reissue
from safetensors.torch import load_file, save_file

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.cli import intake
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ConfigError, ResultError, SubmissionError
from corobench.benchmark.evaluation.evaluate import evaluate
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.reading.result_file import read_result, read_scorecard
from corobench.benchmark.records.result import Result
from corobench.benchmark.submission import intake_faults, load_submission
from corobench.benchmark.tracks import TRACKS, Protocol

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "leaderboard" / "results"
ENTRY = "digits-ibp-lwm-10x"
PUBLISHED = RESULTS / "1.0" / "digits" / f"{ENTRY}.json"


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    """A board with the dense parent, and the entry that is handed in."""
    folder = tmp_path / "submissions"
    for name in ("digits-ibp-dense", ENTRY):
        shutil.copytree(ROOT / "submissions" / name, folder / name)
    return folder


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short attack in AutoAttack's place: the tests are about what follows."""

    def short(self: Evaluation) -> PGD:
        attack = PGD(10, 1, 0.25)
        attack.name = "autoattack"
        return attack

    monkeypatch.setattr(Evaluation, "autoattack", short)


@pytest.fixture
def _quick(_short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are fewer images, too, and no costly certifier."""
    track = replace(TRACKS["digits"], subsets=(60, 500))
    monkeypatch.setitem(TRACKS, "digits", track)
    weak = Protocol(closing_certifiers=())
    monkeypatch.setattr(Settings, "protocol", property(lambda self: weak))


def _faults(folder: Path, changed: tuple[str, ...] = ()) -> list[str]:
    return list(intake.examine(folder, sorted(folder.parent.iterdir()), changed).faults)


def _take_in(entries: Path, results: Path, out: Path) -> intake.Intake:
    others = sorted(entries.iterdir())
    return intake.take_in(entries / ENTRY, others=others, results=results, out=out)


def test_a_good_entry_has_no_fault(entries: Path) -> None:
    own = (
        f"submissions/{ENTRY}/model.safetensors",
        f"leaderboard/results/{ROUND}/digits/{ENTRY}.json",
        f"leaderboard/results/{ROUND}/digits/{ENTRY}.outcomes.parquet",
    )
    assert _faults(entries / ENTRY, own) == []


def test_a_broken_manifest_does_not_hide_files_outside_the_entry(entries: Path) -> None:
    (entries / ENTRY / "submission.toml").write_text("no = [")
    faults = _faults(entries / ENTRY, (f"submissions/{ENTRY}/submission.toml", "setup.py"))
    assert any("submission.toml" in fault for fault in faults)
    foreign = [fault for fault in faults if "not part of the entry" in fault]
    assert len(foreign) == 1 and foreign[0].startswith("setup.py:")


def test_files_outside_the_entry_are_refused(entries: Path) -> None:
    foreign = (
        "benchmark/scoring/score.py",
        f"submissions/{ENTRY}-2/model.safetensors",
        "leaderboard/results/1.0/digits/digits-ibp-dense.json",
        f"leaderboard/results/{ROUND}/digits/../../{ENTRY}.json",
    )
    faults = _faults(entries / ENTRY, foreign)
    assert len(faults) == 4 and all("is not part of the entry" in fault for fault in faults)


def test_another_entrys_weights_are_refused_however_they_are_stored(entries: Path) -> None:
    copy = entries / "copied"
    shutil.copytree(entries / ENTRY, copy)
    manifest = (copy / "submission.toml").read_text().replace(f'"{ENTRY}"', '"copied"')
    (copy / "submission.toml").write_text(manifest)
    weights = load_file(copy / "model.safetensors")
    save_file(dict(reversed(weights.items())), copy / "model.safetensors", {"note": "mine"})
    assert any(f"same effective weights as {ENTRY}" in fault for fault in _faults(copy))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('licence = "MIT"', 'licence = "unknown"', "licence"),
        ('licence = "MIT"', 'licence = ""', "licence"),
        ('licence = "MIT"\n', "", "`licence`"),
        ("title = ", "titel = ", "did you mean 'title'"),
        ('parent = "digits-ibp-dense"', 'parent = "nobody"', "'nobody' is not an entry here"),
        ("sparsity = 0.8", "sparsity = 0.5", "sparsity"),
        ('pretrain_objective = "ibp"', 'pretrain_objective = "unknown"', "pretrain_objective"),
    ],
)
def test_faults_of_the_folder(entries: Path, old: str, new: str, said: str) -> None:
    path = entries / ENTRY / "submission.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert any(said in fault for fault in _faults(entries / ENTRY))


@pytest.mark.usefixtures("_short")
def test_an_entry_is_measured_and_compared_with_what_it_claims(
    entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKS, "digits", replace(TRACKS["digits"], subsets=(20, 60)))
    results = tmp_path / "results"
    evaluate(entries / ENTRY, Settings(n=60, out=results))
    found = intake.take_in(
        entries / ENTRY,
        others=sorted(entries.iterdir()),
        results=results,
        out=tmp_path / "out",
        limits=None,
    )
    assert found.evaluated.result.quick and found.evaluated.result.n == 20
    assert found.claim is not None and found.claim.n == 20
    (one,) = found.verified
    assert (one.n, one.num_drawn, one.contradictions, one.notes) == (60, one.population, (), ())
    text = intake.markdown(found)
    assert "never ranked" in text and "agrees with it on 20 images" in text
    marked = [line for line in text.splitlines() if line.startswith("+ ")]
    assert len(marked) == 1 and ENTRY in marked[0]
    assert "that of the handed-in result" in text


def test_the_entry_is_loaded_once_and_never_here(
    entries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison runs in a process of its own, where this process' patches do not reach."""
    loaded = []
    monkeypatch.setattr(
        intake_faults, "load_submission", lambda folder: (loaded.append(folder), load(folder))[1]
    )
    load = load_submission
    assert _faults(entries / ENTRY) == []
    assert loaded == []
    others = sorted(entries.iterdir())
    assert intake.examine(entries / ENTRY, others, (), limits=None).faults == ()
    assert loaded.count(entries / ENTRY) == 1


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("stem", "more", "said"),
    [
        (ENTRY, {"quick": True}, "quick: true"),
        (
            f"{ENTRY}@60",
            {"quick": False, "n": 60, "recognition": None},
            "n: expected a ranked subset",
        ),
        (ENTRY, {"settings": {}}, "settings: not those of protocol"),
        (ENTRY, {"clean": 500}, "misclassified: expected at most n - clean = 0"),
        (ENTRY, {"seed": 5}, "differs from the scorecard of its outcome table"),
    ],
)
def test_a_handed_in_result_that_may_not_be_published(
    entries: Path, tmp_path: Path, stem: str, more: dict[str, object], said: str
) -> None:
    """Nothing is evaluated for it: neither quick results nor files that say more than theirs."""
    only_said = {key: value for key, value in more.items() if key in ("clean", "seed")}
    others = {key: value for key, value in more.items() if key not in only_said}
    path = reissue(PUBLISHED, tmp_path / "results", stem, **others)
    result = read_scorecard(path).model_copy(update=only_said)
    path.write_bytes(encode_result(result))
    with pytest.raises(ResultError, match=said):
        _take_in(entries, tmp_path / "results", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_larger_ranked_subset_is_the_entrys_own(entries: Path) -> None:
    name = "fashion-mnist-ibp-dense"
    shutil.copytree(ROOT / "submissions" / name, entries / name)
    place = f"leaderboard/results/{ROUND}/fashion-mnist"
    assert _faults(entries / name, (f"{place}/{name}@10000.json",)) == []
    assert len(_faults(entries / name, (f"{place}/{name}@100.json",))) == 1


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("spoil", ["", "other images", "other data", "no file", "no npz"])
def test_clean_images_may_come_along_where_they_are_the_tracks_own(
    entries: Path, tmp_path: Path, spoil: str
) -> None:
    """`evaluate` writes them beside the first result on new data; nobody may put others there."""
    name = "clean-images.2859c621.npz"
    place = Path("leaderboard/results", ROUND, "digits")
    results = tmp_path / "results"
    (results / ROUND / "digits").mkdir(parents=True)
    path = results / ROUND / "digits" / name
    with np.load(RESULTS / "1.0" / "digits" / name) as stored:
        arrays = dict(stored)
    if spoil == "other images":
        arrays["images"] = arrays["images"].copy()
        arrays["images"][7, 0, 3, 3] += 0.5
    if spoil == "other data":
        arrays["fingerprint"] = np.asarray("2859c621" * 8)
    if spoil != "no file":
        np.savez_compressed(path, **arrays)
    if spoil == "no npz":
        path.write_text("nothing")
    others = sorted(entries.iterdir())

    def take() -> intake.Intake:
        return intake.take_in(
            entries / ENTRY,
            others=others,
            results=results,
            out=tmp_path / "out",
            changed=[f"submissions/{ENTRY}/model.safetensors", str(place / name)],
            limits=None,
        )

    if spoil:
        with pytest.raises(ResultError, match=name):
            take()
        assert not (tmp_path / "out").exists()
    else:
        assert take().evaluated.result.n == 60


def test_an_entry_that_is_there_is_not_replaced(entries: Path, tmp_path: Path) -> None:
    """The entries of the base branch are compared, so that nobody takes another's id."""
    request = tmp_path / "request" / "submissions" / ENTRY
    shutil.copytree(ROOT / "submissions" / "digits-adv-dense", request)
    path = request / "submission.toml"
    path.write_text(path.read_text().replace('"digits-adv-dense"', f'"{ENTRY}"'))
    faults = intake.examine(request, sorted(entries.iterdir()), ()).faults
    assert any("already exists" in fault for fault in faults)


def test_the_templates_weights_are_no_entry(tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    shutil.copytree(ROOT / "submissions" / "_template", folder / "_template")
    shutil.copytree(ROOT / "submissions" / "_template", folder / "mine")
    path = folder / "mine" / "submission.toml"
    path.write_text(path.read_text().replace('id = "template"', 'id = "mine"'))
    assert any("same effective weights as _template" in fault for fault in _faults(folder / "mine"))


@pytest.mark.usefixtures("_quick")
def test_a_result_of_other_weights_is_refused(entries: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    other = PUBLISHED.with_name("digits-ibp-dense.json")
    manifest = load_submission(entries / ENTRY).manifest
    reissue(other, results, ENTRY, entry=ENTRY, submission=manifest)
    with pytest.raises(ResultError, match="does not belong to the weights of"):
        _take_in(entries, results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_quick")
def test_a_claim_beyond_what_is_measured_is_refused(
    entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest table, but of a stronger model: the handed-in outcomes do not hold."""
    weights = load_file(entries / ENTRY / "model.safetensors")
    last = sorted(name for name in weights if name.endswith("bias"))[-1]
    weights[last] = weights[last] + 20.0 * (weights[last] == weights[last].max())
    save_file(weights, entries / ENTRY / "model.safetensors")
    results = tmp_path / "results"
    entry = load_submission(entries / ENTRY)
    reissue(PUBLISHED, results, weights_sha256=entry.weights_sha256, compactness=entry.measure())
    with pytest.raises(ResultError, match=r"json: predicted, images .* and .* more: claimed"):
        _take_in(entries, results, tmp_path / "out")


def test_the_board_around_a_new_result() -> None:
    place = RESULTS / "1.0" / "digits"
    new = read_result(place / f"{ENTRY}.json")
    board = intake.board_of(new, RESULTS)
    assert new in board and len(board) == len(list(place.glob("*.json")))
    assert intake.board_of(new.model_copy(update={"quick": True}), RESULTS) == ()
    low = [one.epsilons["2/16"].counts["certified"] for one in board]
    assert low == sorted(low, reverse=True)


def test_results_of_another_n_are_on_no_board_of_this_one(tmp_path: Path) -> None:
    for entry, n in (("small", 1000), ("large", 10_000), ("quick", 100)):
        write_result(tmp_path, make_raw(entry, "fashion-mnist", n=n))
    new = Result.model_validate(make_raw("new", "fashion-mnist", n=1000))
    assert {one.entry for one in intake.board_of(new, tmp_path)} == {"new", "small"}


def test_changed_files_come_from_git(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    git("init", "--quiet", "--initial-branch=main")
    (tmp_path / "old").touch()
    git("add", "--all")
    git("commit", "--quiet", "--message", "old")
    git("checkout", "--quiet", "-b", "request")
    (tmp_path / "new").touch()
    git("add", "--all")
    git("commit", "--quiet", "--message", "new")
    assert intake.changed_files("main", tmp_path) == ["new"]
    for wrong in ("nowhere", "--output=owned"):
        with pytest.raises(ConfigError, match="git cannot compare"):
            intake.changed_files(wrong, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".git", "old", "new"}


def test_a_refused_entry_ends_with_exit_code_2(
    entries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(entries / "digits-ibp-dense")
    assert invoke(["intake", str(entries / ENTRY)]) == 2
    assert "is not an entry here" in capsys.readouterr().err
    with pytest.raises(SubmissionError):
        intake.take_in(entries / ENTRY, others=[], results=RESULTS, out=entries / "out")


def test_a_parent_must_be_able_to_be_one(entries: Path) -> None:
    dense = entries / "digits-ibp-dense" / "submission.toml"
    text = dense.read_text()
    dense.write_text(text.replace('track = "digits"', f'track = "digits"\nparent = "{ENTRY}"'))
    (fault,) = _faults(dense.parent)
    assert "has 2,384 non-zero parameters and this one 22,406" in fault
    pruned = entries / ENTRY / "submission.toml"
    shutil.copytree(ROOT / "submissions" / "fashion-mnist-ibp-dense", entries / "other")
    pruned.write_text(pruned.read_text().replace('"digits-ibp-dense"', '"other"'))
    (fault,) = _faults(pruned.parent)
    assert "is an entry of fashion-mnist, not of digits" in fault


def test_a_parent_that_was_compressed_itself_is_refused(entries: Path) -> None:
    """Retention is the share of a dense network's accuracy; a weak parent would flatter it."""
    shutil.copytree(ROOT / "submissions" / "digits-ibp-random-10x", entries / "weak")
    pruned = entries / ENTRY / "submission.toml"
    pruned.write_text(pruned.read_text().replace('"digits-ibp-dense"', '"weak"'))
    (fault,) = _faults(pruned.parent)
    assert "expected a dense entry, but 'digits-ibp-random-10x' was compressed itself" in fault


@pytest.mark.parametrize(("factor", "summand"), [(2.0, 0.0), (1.001, 0.0), (1.0, 0.5)])
def test_logits_that_decide_alike_are_another_entrys(
    entries: Path, factor: float, summand: float
) -> None:
    copied = entries / "copied"
    shutil.copytree(entries / ENTRY, copied)
    manifest = (copied / "submission.toml").read_text().replace(f'"{ENTRY}"', '"copied"')
    (copied / "submission.toml").write_text(manifest.replace("seed = 0", "seed = 7"))
    entry = load_submission(copied)
    last = [one for one in entry.model.modules() if isinstance(one, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.mul_(factor).add_(summand)
    save_file(entry.model.state_dict(), copied / "model.safetensors")
    (fault,) = _faults(copied)
    assert f"computes the same as, and is not smaller than, {ENTRY}" in fault


def test_another_entry_in_another_format_is_noticed(entries: Path) -> None:
    from corobench.benchmark.submission.converting import compact, to_onnx

    copied = to_onnx(entries / ENTRY, entries / "copied").folder
    (fault,) = _faults(copied)
    assert f"computes the same as, and is not smaller than, {ENTRY}" in fault
    shutil.rmtree(copied)
    smaller = compact(entries / ENTRY, entries / "smaller").folder
    assert _faults(smaller) == []
