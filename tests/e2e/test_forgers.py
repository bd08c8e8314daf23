"""Results that a submitter changed: each is refused by `corobench intake`, by name.

Every forgery starts from a real result of a real entry, and the forger is careful: scorecard,
identity and counts are computed anew from what was forged, so that all files agree with each other.
docs/security.md has the table of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from reissue import ROUND, unchecked
from safetensors.torch import load_file, save_file

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import Prover
from corobench.benchmark.cli.intake import _compare
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.data import load_test
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation import pipeline, proving, recognition
from corobench.benchmark.evaluation.closing import too_large
from corobench.benchmark.evaluation.evaluate import evaluate
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import (
    CERTIFIER_COLUMNS,
    Audit,
    Contest,
    Earlier,
    Manifest,
    Recognition,
    Run,
    Seconds,
)
from corobench.benchmark.records.result_set import ADVERSARIAL, OUTCOMES, beside, sha256_of
from corobench.benchmark.review.verification import proofs
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import PROTOCOL, TRACKS, Protocol

ROOT = Path(__file__).parents[2]
ENTRY, PARENT = "digits-ibp-lwm-10x", "digits-ibp-dense"
N = 60
PROVEN = [*CERTIFIER_COLUMNS.values(), "pgd50", "autoattack"]


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """A track of 60 images, a short attack in AutoAttack's place, and flags that always rise."""

    def short(self: Evaluation) -> PGD:
        attack = PGD(10, 1, 0.25)
        attack.name = "autoattack"
        return attack

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "autoattack", short)
        patch.setitem(TRACKS, "digits", replace(TRACKS["digits"], subsets=(20, N)))
        patch.setattr(recognition, "MIN_GAP", -1.0)
        patch.setattr(recognition, "MAX_CHANCE", 2.0)
        yield


@pytest.fixture(scope="module")
def honest(_small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board with the parent, the entry, and the entry's result as `evaluate` wrote it."""
    board = tmp_path_factory.mktemp("board")
    for name in (PARENT, ENTRY):
        shutil.copytree(ROOT / "submissions" / name, board / "submissions" / name)
    out = board / "results"
    evaluate(board / "submissions" / ENTRY, Settings(n=N, out=out))
    return board


@dataclass
class Forger:
    """What a forger works on: `sign` writes the files so that they agree."""

    board: Path
    table: pd.DataFrame
    run: Run
    images: NDArray[np.float32]
    payload: dict[str, object] | None = None

    @property
    def folder(self) -> Path:
        return self.board / "submissions" / ENTRY

    @property
    def path(self) -> Path:
        return self.board / "results" / ROUND / "digits" / f"{ENTRY}.json"

    def update(self, **keys: object) -> None:
        self.run = self.run.model_copy(update=keys)

    def rows(self, outcome: str, epsilon: str = "2/16") -> pd.Index:
        table = self.table
        return table.index[(table["outcome"] == outcome) & (table["epsilon"] == epsilon)]

    def set(self, rows: pd.Index, **columns: object) -> None:
        for name, value in columns.items():
            self.table.loc[rows, name] = value

    def sign(self) -> None:
        """Unused images go, and everything that is computed is computed from what was forged."""
        used = sorted({int(one) for one in self.table["adversarial"] if one >= 0})
        if max(used, default=-1) < len(self.images):
            place = {old: new for new, old in enumerate(used)}
            column = self.table["adversarial"]
            self.table["adversarial"] = column.map(lambda one: place.get(int(one), -1))
            self.table["adversarial"] = self.table["adversarial"].astype("int32")
            self.images = self.images[used]
        self.update(identity=identity_of(self.run))
        self.write()

    def write(self) -> None:
        """The three files as a set, whatever they say."""
        with unchecked():
            written = write_set(self.path, self.table, self.run, self.images)
        assert written.files is not None
        self.update(files={ADVERSARIAL: written.files[ADVERSARIAL]})

    def replace_table(self, table: pd.DataFrame, run: Run) -> None:
        """Another table beside the result, which names its digest."""
        content = encode_outcomes(table, run)
        beside(self.path, OUTCOMES).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.rewrite_json(lambda said: said["files"].update({OUTCOMES: digest}))

    def write_as_it_is(self, change: Callable[[dict], object], **keys: object) -> None:
        """Both records with values that no record of corobench can hold."""
        self.rewrite_json(change)
        self.replace_table(self.table, self.run.model_copy(update=keys))

    def rewrite_json(self, change: Callable[[dict], object]) -> None:
        content = json.loads(self.path.read_text())
        change(content)
        self.path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@pytest.fixture
def forger(honest: Path, tmp_path: Path) -> Forger:
    board = tmp_path / "board"
    shutil.copytree(honest, board)
    path = board / "results" / ROUND / "digits" / f"{ENTRY}.json"
    table, run = read_outcomes(beside(path, OUTCOMES))
    return Forger(board, table, run, load_adversarial(path).copy())


def take_in(forger: Forger, *more: str) -> int:
    """The command on the board; nothing of it runs in another process, where no patch reaches."""
    out = ["--out", str(forger.board.parent / "out"), "--results", str(forger.board / "results")]
    return invoke(["intake", str(forger.folder), *out, "--no-isolate", *more])


def test_what_honestly_costs_too_much_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each open image is beyond the budget of arithmetic, here of none, here as there."""
    search = Prover.search

    def none(self: Prover, *given: Any) -> Any:
        return search(self, *given[:5], 0)

    monkeypatch.setattr(Prover, "search", none)
    board = tmp_path / "board"
    for name in (PARENT, ENTRY):
        shutil.copytree(ROOT / "submissions" / name, board / "submissions" / name)
    done = evaluate(board / "submissions" / ENTRY, Settings(n=N, out=board / "results"))
    reasons = read_result(done.path).not_asked
    assert reasons == {name: too_large(Protocol(), name) for name in ("alpha-CROWN", "BaB")}
    table, run = read_outcomes(beside(done.path, OUTCOMES))
    assert take_in(Forger(board, table, run, load_adversarial(done.path).copy())) == 0


def test_the_honest_result_is_taken_in(forger: Forger, capsys: pytest.CaptureFixture[str]) -> None:
    assert take_in(forger) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert f"{ENTRY}.json is confirmed: all {N} predictions" in said
    report = json.loads((forger.board.parent / "out" / f"{ENTRY}.intake.json").read_text())
    (one,) = report["verified"]
    assert one["n"] == N and one["num_drawn"] == one["population"] > 0
    assert one["seed"] > 0 and str(one["seed"]) in said
    assert one["contradictions"] == []
    counted = read_result(forger.path)
    certified = sum(at.counts["certified"] for at in counted.epsilons.values())
    attacked = sum(at.counts["attacked"] for at in counted.epsilons.values())
    assert (one["num_certified"], one["num_rechecked"]) == (certified, attacked)


def test_a_seed_repeats_an_intake(forger: Forger) -> None:
    reports = []
    for _ in range(2):
        assert take_in(forger, "--seed", "4711") == 0
        report = forger.board.parent / "out" / f"{ENTRY}.intake.json"
        reports.append(report.read_bytes())
    assert reports[0] == reports[1] and json.loads(reports[0])["verified"][0]["seed"] == 4711


# ------------------------------------------------------------------------------ the forgeries


def broken_becomes_certified(forger: Forger) -> None:
    rows = forger.rows("attacked")
    columns = dict.fromkeys(PROVEN, True)
    forger.set(rows, outcome="certified", decided_by="IBP", carried_from="", adversarial=-1)
    forger.set(rows, margin=0.5, **columns)
    small = forger.rows("attacked", "1/16")
    forger.set(small, outcome="certified", decided_by="IBP", carried_from="2/16", adversarial=-1)
    forger.set(small, margin=0.5, **columns)
    forger.sign()


def one_more_certificate(forger: Forger) -> None:
    """Of a certifier that did not prove an image, on one that another proved."""
    table = forger.table
    rows = table.index[table["ibp"].fillna(False) & ~table["crown_ibp"].fillna(False)][:1]
    assert len(rows)
    forger.set(rows, crown_ibp=True)
    forger.sign()


def shifted_margins(forger: Forger) -> None:
    rows = forger.rows("certified")
    forger.set(rows, margin=forger.table.loc[rows, "margin"] * 1.01)
    forger.sign()


def a_margin_no_bound_can_have(forger: Forger) -> None:
    forger.update(versions=forger.run.versions | {"auto_LiRPA": "0.9"})
    rows = forger.rows("certified")[:3]
    forger.set(rows, margin=1000.0)
    forger.sign()


def ids_beyond_the_test_set(forger: Forger) -> None:
    forger.table["image"] += 100_000
    forger.sign()


def other_images(forger: Forger) -> None:
    """Easier ones of the same test set, with their own labels."""
    table = forger.table
    taken = set(table["image"])
    wrong = table.loc[table["outcome"] == "misclassified", "image"].unique()
    labels = load_test("digits").labels
    free = [image for image in range(500) if image not in taken][: len(wrong)]
    for old, new in zip(wrong, free, strict=True):
        rows = table.index[table["image"] == old]
        forger.set(rows, image=new, label=labels[new], predicted=labels[new])
        forger.set(rows, outcome="undecided", decided_by="", pgd50=True, autoattack=True)
    forger.sign()


def labels_as_predicted(forger: Forger) -> None:
    rows = forger.table.index[forger.table["outcome"] == "misclassified"]
    forger.set(rows, label=forger.table.loc[rows, "predicted"])
    forger.set(rows, outcome="undecided", decided_by="", pgd50=True, autoattack=True)
    forger.sign()


def predictions_as_labels(forger: Forger) -> None:
    rows = forger.table.index[forger.table["outcome"] == "misclassified"]
    forger.set(rows, predicted=forger.table.loc[rows, "label"])
    forger.set(rows, outcome="undecided", decided_by="", pgd50=True, autoattack=True)
    forger.sign()


def counts_in_the_json(forger: Forger) -> None:
    def change(content: dict) -> None:
        counts = content["epsilons"]["2/16"]["counts"]
        counts["certified"] += 1
        counts["attacked"] -= 1

    forger.rewrite_json(change)


def a_key_more_in_the_json(forger: Forger) -> None:
    forger.rewrite_json(lambda content: content.update(note="the best entry of all"))


def compactness(forger: Forger) -> None:
    size = forger.run.compactness
    forger.update(compactness=size.model_copy(update={"num_nonzero": size.num_nonzero - 12}))
    forger.sign()


def sizes_left_out(forger: Forger) -> None:
    """As results were written before live weights and codes were counted."""
    left = dict.fromkeys(("num_live", "bytes_coded"))
    forger.update(compactness=forger.run.compactness.model_copy(update=left))
    forger.sign()


def weights_of_another_entry(forger: Forger) -> None:
    other = forger.board / "submissions" / "digits-ibp-random-10x"
    shutil.copytree(ROOT / "submissions" / other.name, other)
    shutil.copy(other / "model.safetensors", forger.folder / "model.safetensors")
    forger.update(weights_sha256=load_submission(forger.folder).weights_sha256)
    forger.sign()


def other_weights_than_the_result(forger: Forger) -> None:
    weights = load_file(forger.folder / "model.safetensors")
    save_file({k: v * 0.999 for k, v in weights.items()}, forger.folder / "model.safetensors")


def weights_a_hair_changed(forger: Forger) -> None:
    """The old table under the new weights' name."""
    weights = load_file(forger.folder / "model.safetensors")
    last = sorted(weights)[-2:]
    changed = {k: v * 1.001 if k in last else v for k, v in weights.items()}
    save_file(changed, forger.folder / "model.safetensors")
    entry = load_submission(forger.folder)
    forger.update(weights_sha256=entry.weights_sha256, compactness=entry.measure())
    forger.sign()


def another_text_for_epsilon(forger: Forger) -> None:
    forger.table["epsilon"] = forger.table["epsilon"].str.replace("2/16", "1/8")
    forger.table["carried_from"] = forger.table["carried_from"].str.replace("2/16", "1/8")
    flags = {"1/16": forger.run.flags["1/16"], "1/8": forger.run.flags["2/16"]}
    forger.update(epsilons=("1/16", "1/8"), flags=flags)
    forger.sign()


def a_smaller_epsilon(forger: Forger) -> None:
    forger.table["epsilon"] = forger.table["epsilon"].str.replace("2/16", "2/17")
    forger.table["carried_from"] = forger.table["carried_from"].str.replace("2/16", "2/17")
    flags = {"1/16": forger.run.flags.get("1/16", ())}
    forger.update(epsilons=("1/16", "2/17"), flags=flags)
    forger.sign()


def swapped_adversarial_images(forger: Forger) -> None:
    forger.images = forger.images[::-1].copy()
    forger.write()


def outside_the_ball_by_one_step(forger: Forger) -> None:
    """Of a float32, at the value where the image is farthest from the clean one."""
    row = forger.table.loc[forger.rows("attacked")[0]]
    clean = load_test("digits").take([int(row["image"])])[0].astype(np.float64)
    image = forger.images[row["adversarial"]]
    inner = np.abs(image - clean) * ((image > 0.2) & (image < 0.8))
    place = np.unravel_index(np.argmax(inner), image.shape)
    side = np.sign(float(image[place]) - clean[place])
    edge = np.float32(clean[place] + side * 2 / 16)
    while abs(float(edge) - clean[place]) <= 2 / 16:
        edge = np.nextafter(edge, np.float32(side * 9))
    image[place] = edge
    forger.write()


def clean_images_as_adversarial(forger: Forger) -> None:
    table = forger.table[forger.table["adversarial"] >= 0]
    clean = load_test("digits").take(table["image"].to_numpy())
    forger.images[table["adversarial"].to_numpy()] = clean
    forger.write()


def more_adversarial_images(forger: Forger) -> None:
    forger.images = np.concatenate([forger.images, forger.images[:1]])
    forger.write()


def missing_rows(forger: Forger) -> None:
    forger.replace_table(forger.table.drop(forger.rows("attacked")[:1]), forger.run)


def duplicate_rows(forger: Forger) -> None:
    """A broken image's row replaced by a second one of an image with a proof."""
    good, bad = forger.rows("certified")[0], forger.rows("attacked")[0]
    table = forger.table.copy()
    table.loc[bad] = table.loc[good]
    forger.replace_table(table, forger.run)


def rows_of_a_third_radius(forger: Forger) -> None:
    more = forger.table[forger.table["epsilon"] == "1/16"].copy()
    more["epsilon"] = "1/32"
    forger.table = pd.concat([forger.table, more], ignore_index=True)
    forger.write()


def one_position_twice(forger: Forger) -> None:
    forger.table.loc[forger.table["position"] == 7, "position"] = 8
    forger.sign()


def identity_of_another_run(forger: Forger) -> None:
    forger.update(identity=hashlib.sha256(b"another").hexdigest())
    forger.write()


def another_seed_under_the_old_identity(forger: Forger) -> None:
    forger.update(seed=99)
    forger.write()


def metadata_that_differs(forger: Forger) -> None:
    other = {"weights_sha256": "0" * 64, "date": "2020-02-02"}
    forger.replace_table(forger.table, forger.run.model_copy(update=other))


def a_table_of_other_digests(forger: Forger) -> None:
    """The table of another run, and a result file that still names its own."""
    run = forger.run.model_copy(update={"date": "2020-02-02"})
    beside(forger.path, OUTCOMES).write_bytes(encode_outcomes(forger.table, run))


def no_digests(forger: Forger) -> None:
    """As results of before were, so that any files may lie beside it."""
    run = forger.run.model_copy(update={"files": None})
    beside(forger.path, OUTCOMES).write_bytes(encode_outcomes(forger.table, run))
    forger.rewrite_json(lambda content: content.pop("files"))


def huge_texts(forger: Forger) -> None:
    forger.update(versions=forger.run.versions | {"torch": "2" * 1_000_000})
    forger.sign()


def flags_removed(forger: Forger) -> None:
    assert all(forger.run.flags.values())
    forger.update(flags=dict.fromkeys(forger.run.epsilons, ()))
    forger.sign()


def recognition_improved(forger: Forger) -> None:
    found = forger.run.recognition
    assert found is not None
    forger.update(recognition=found.model_copy(update={"shifted": found.num_images}))
    forger.sign()


def contradictions_removed(forger: Forger) -> None:
    """A row that is proven and broken, and an audit that says nothing of it."""
    forger.set(forger.rows("attacked")[:1], **dict.fromkeys(CERTIFIER_COLUMNS.values(), True))
    forger.update(audit=Audit(num_images=forger.run.audit.num_images, contradictions=("image 0",)))
    forger.sign()


def a_smaller_audit(forger: Forger) -> None:
    assert forger.run.audit.num_images > 0
    forger.update(audit=Audit(num_images=0))
    forger.sign()


def errors_hidden(forger: Forger) -> None:
    rows = forger.rows("attacked")[:2]
    forger.set(rows, outcome="error", decided_by="", adversarial=-1, carried_from="")
    forger.set(rows, pgd50=pd.NA, autoattack=pd.NA)
    forger.sign()


def quick_is_false(forger: Forger) -> None:
    """A result on the quick subset that says it is none, under the standard one's name."""
    forger.table = forger.table[forger.table["position"] < 20].reset_index(drop=True)
    forger.update(n=20, quick=False)
    forger.sign()


def a_quick_result(forger: Forger) -> None:
    forger.update(quick=True)
    forger.sign()


def n_is_larger(forger: Forger) -> None:
    forger.rewrite_json(lambda content: content.update(n=500))


def other_settings(forger: Forger) -> None:
    forger.update(settings=forger.run.settings | {"pgd_steps": 1})
    forger.sign()


def a_setting_more(forger: Forger) -> None:
    forger.update(settings=forger.run.settings | {"tuned": True})
    forger.sign()


def negative_seconds(forger: Forger) -> None:
    seconds = Seconds.model_construct(clean=-1.0, attack=1.0, certify=1.0)
    forger.write_as_it_is(lambda said: said["seconds"].update(clean=-1.0), seconds=seconds)


def negative_seconds_of_an_image(forger: Forger) -> None:
    forger.set(forger.rows("certified")[:1], seconds=-1.0)
    forger.sign()


def a_date_to_come(forger: Forger) -> None:
    forger.update(date="9999-01-01")
    forger.sign()


def a_contest_that_was_none(forger: Forger) -> None:
    contest = Contest(sha256="0" * 64, by="rivals", num_images=9, num_confirmed=3, broken={})
    forger.update(contests=(contest.model_copy(update={"broken": {"2/16": 3}}),))
    forger.sign()


def _contest(forger: Forger, rows: list[int], **columns: object) -> None:
    """Rows are said to be broken by somebody's image, as `contest --write` would note it."""
    forger.set(rows, decided_by="contest", carried_from="", **columns)
    here = forger.table.loc[rows]
    small = {*here.loc[here["epsilon"] == "1/16", "image"]}
    carried = here.index[(here["epsilon"] == "2/16") & here["image"].isin(small)]
    forger.set([*carried], carried_from="1/16")
    broken = {e: int((here["epsilon"] == e).sum()) for e in forger.run.epsilons}
    most = max(broken.values())
    one = Contest(sha256="a" * 64, by="rivals", num_images=most, num_confirmed=most, broken=broken)
    flags = {e: (*sorted({*at, "non-monotone-steps"}),) for e, at in forger.run.flags.items()}
    forger.update(contests=(one,), flags=flags)
    forger.sign()


def a_contest_takes_all_credit(forger: Forger) -> None:
    """Whatever broke an image is said to have failed: a better ERA, and rivals in the record."""
    _contest(forger, forger.rows("attacked"), pgd50=True, autoattack=True)


def a_contest_removed(forger: Forger) -> None:
    forger.set(forger.rows("attacked")[:1], decided_by="contest")
    forger.sign()


def a_symlink(forger: Forger) -> None:
    target = forger.board.parent / "elsewhere.json"
    shutil.move(forger.path, target)
    forger.path.symlink_to(target)


def a_symlink_to_nowhere(forger: Forger) -> None:
    forger.path.unlink()
    forger.path.symlink_to("/nowhere/at/all")


def another_subset(forger: Forger) -> None:
    """A second result beside the first, of fewer images, under the name of a larger subset."""
    for ending in ("json", "outcomes.parquet", ADVERSARIAL):
        source = beside(forger.path, ending) if ending != "json" else forger.path
        shutil.copy(source, forger.path.with_name(f"{ENTRY}@500.{ending}"))


def a_table_without_a_result(forger: Forger) -> None:
    forger.path.unlink()


def broken_becomes_undecided(forger: Forger) -> None:
    for epsilon in ("1/16", "2/16"):
        rows = forger.rows("attacked", epsilon)
        forger.set(rows, outcome="undecided", decided_by="", carried_from="", adversarial=-1)
        forger.set(rows, pgd50=True, autoattack=True)
    forger.sign()


def broken_becomes_timeout(forger: Forger) -> None:
    for epsilon in ("1/16", "2/16"):
        rows = forger.rows("attacked", epsilon)
        forger.set(rows, outcome="timeout", decided_by="", carried_from="", adversarial=-1)
        forger.set(rows, pgd50=True, autoattack=True)
    forger.sign()


def survived_pgd(forger: Forger) -> None:
    """Broken all the same, but by a stronger attack: a better ERA."""
    table = forger.table
    rows = table.index[(table["decided_by"] == "pgd50") & (table["outcome"] == "attacked")]
    assert len(rows)
    forger.set(rows, decided_by="apgd-ce", pgd50=True, autoattack=False)
    flags = {e: (*sorted({*at, "non-monotone-steps"}),) for e, at in forger.run.flags.items()}
    forger.update(flags=flags)  # which the health checks raise for it
    forger.sign()


def a_certifier_that_was_not_asked(forger: Forger) -> None:
    """CROWN proves less than IBP here; the forger says that it was not asked."""
    forger.table["crown"] = pd.array([pd.NA] * len(forger.table), dtype="boolean")
    forger.update(not_asked={"CROWN": "too-large: 30000 hidden units"})
    forger.sign()


def proofs_lost(forger: Forger) -> None:
    """Fewer proofs of one certifier, to make another look better."""
    table = forger.table
    rows = table.index[table["crown_ibp"].fillna(False) & table["ibp"].fillna(False)]
    forger.set(rows, crown_ibp=False)
    forger.sign()


def another_prover(forger: Forger) -> None:
    table = forger.table
    rows = table.index[table["ibp"].fillna(False) & table["crown"].fillna(False)][:1]
    forger.set(rows, decided_by="CROWN")
    forger.sign()


def carried_from_nowhere(forger: Forger) -> None:
    forger.set(forger.rows("certified")[:1], carried_from="1/16")
    forger.sign()


def broken_in_the_small_ball_only(forger: Forger) -> None:
    table = forger.table
    small = set(table.loc[forger.rows("attacked", "1/16"), "image"])
    rows = table.index[table["image"].isin(small) & (table["epsilon"] == "2/16")]
    forger.set(rows, outcome="undecided", decided_by="", carried_from="", adversarial=-1)
    forger.set(rows, pgd50=True, autoattack=True)
    forger.sign()


def another_manifest(forger: Forger) -> None:
    claimed = forger.run.submission.model_dump(by_alias=True)
    claimed["title"] = "The best of all"
    forger.update(submission=Manifest.model_validate(claimed))
    forger.sign()


def another_network_searched(forger: Forger) -> None:
    other = "submitted" if forger.run.searched_on != "submitted" else "compacted"
    forger.update(searched_on=other)
    forger.sign()


def other_data(forger: Forger) -> None:
    data = forger.run.data.model_copy(update={"fingerprint": "0" * 64})
    forger.update(data=data)
    forger.sign()


def not_from_here(forger: Forger) -> None:
    """Nobody's entry: the result is another's, with the name changed."""
    forger.update(entry="digits-ibp-best")
    forger.sign()


def attacks_taken_from_nowhere(forger: Forger) -> None:
    """`recertify` took them over, it says; the result that they would be from is nowhere."""
    where = {"device": "cpu", "versions": forger.run.versions}
    forger.update(earlier=Earlier(protocol="1.0", identity="f" * 64, **where))
    forger.sign()


def attacks_taken_from_itself(forger: Forger) -> None:
    run = forger.run
    where = {"protocol": run.protocol, "device": run.device, "versions": run.versions}
    forger.update(earlier=Earlier(identity=run.identity, **where))
    forger.sign()


def attacks_taken_from_no_protocol(forger: Forger) -> None:
    where = {"protocol": "../../other", "device": "cpu", "versions": forger.run.versions}
    forger.update(earlier=Earlier(identity="f" * 64, **where))
    forger.sign()


def attacks_said_to_have_run_elsewhere(forger: Forger) -> None:
    """The earlier result is there, and ran on another device than is said."""
    then = forger.path.parents[2] / "1.0" / "digits" / forger.path.name
    shutil.copytree(forger.path.parent, then.parent)
    run = forger.run
    where = {"protocol": "1.0", "identity": run.identity, "versions": run.versions}
    then.write_text(then.read_text().replace('"protocol": "1.1"', '"protocol": "1.0"'))
    forger.update(earlier=Earlier(device="a quantum computer", **where))
    forger.sign()


def another_constant_of_the_same_engine(forger: Forger) -> None:
    name = min(forger.run.constants or {})
    forger.update(constants={**(forger.run.constants or {}), name: 99})
    forger.sign()


def constants_left_out(forger: Forger) -> None:
    forger.update(constants=None)
    forger.sign()


def a_version_that_is_none(forger: Forger) -> None:
    forger.update(versions={**forger.run.versions, "torch": "<b>3</b>"})
    forger.sign()


def a_device_that_looks_like_one(forger: Forger) -> None:
    forger.update(device="cp\u0443")  # a Cyrillic letter
    forger.sign()


def another_array_in_the_archive(forger: Forger) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, images=forger.images, notes=np.arange(9))
    beside(forger.path, ADVERSARIAL).write_bytes(content.getvalue())
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    run = forger.run.model_copy(update={"files": {ADVERSARIAL: digest}})
    forger.rewrite_json(lambda said: said["files"].update({ADVERSARIAL: digest}))
    forger.replace_table(forger.table, run)


def too_large_for_what_is_small(forger: Forger) -> None:
    """Searches that prove little here; the forger says that they cost too much to be asked."""
    table = forger.table
    cheap = table["ibp"].fillna(False) | table["crown_ibp"].fillna(False)
    cheap |= table["crown"].fillna(False)
    rows = table.index[(table["outcome"] == "certified") & ~cheap]
    forger.set(rows, outcome="undecided", decided_by="", carried_from="")
    for column in ("alpha_crown", "bab"):
        table[column] = pd.array([pd.NA] * len(table), dtype="boolean")
    closing = Protocol().closing_certifiers
    forger.update(not_asked={name: too_large(Protocol(), name) for name in closing})
    forger.sign()


def a_certifier_that_there_is_not(forger: Forger) -> None:
    forger.update(not_asked={"MyCert": "a fault of corobench hides that it proves all"})
    forger.sign()


def a_day_that_never_was(forger: Forger) -> None:
    forger.write_as_it_is(lambda said: said.update(date="2025-99-99"), date="2025-99-99")


def another_release_of_the_protocol(forger: Forger) -> None:
    forger.update(protocol="1.1.7", settings=forger.run.settings | {"version": "1.1.7"})
    forger.sign()


def a_seed_below_0(forger: Forger) -> None:
    forger.write_as_it_is(lambda said: said.update(seed=-1), seed=-1)


def halved_on_a_processor(forger: Forger) -> None:
    forger.update(halved_batches=1_000_000_000)
    forger.sign()


def a_text_that_writes_to_a_terminal(forger: Forger) -> None:
    data = forger.run.data.model_copy(update={"source": "here\x1b[2J\n::warning::there"})
    forger.update(data=data)
    forger.sign()


def a_flag_that_is_markup(forger: Forger) -> None:
    flags = {at: (*had, "[/x]") for at, had in forger.run.flags.items()}

    def change(said: dict) -> None:
        for at, names in flags.items():
            said["epsilons"][at]["flags"] = sorted(names)

    forger.write_as_it_is(change, flags=flags)


def contests_that_broke_nothing(forger: Forger) -> None:
    """Rivals who tried in vain: `contest --write` writes no such record."""
    one = Contest(sha256="0" * 64, by="rivals", num_images=9999, num_confirmed=0, broken={})
    forger.update(contests=(one, one))
    forger.sign()


def more_right_than_there_are(forger: Forger) -> None:
    """Under versions that nobody has, so that the numbers are not compared."""
    found = Recognition(num_images=3, right=999, shifted=999, num_unseen=1, unseen=5)
    forger.update(versions=forger.run.versions | {"torch": "9.9"}, recognition=found)
    forger.sign()


def attacks_taken_from_what_was_put_there(forger: Forger) -> None:
    """An earlier result beside it, made for the purpose."""
    then = forger.path.parents[2] / "1.0" / "digits" / forger.path.name
    shutil.copytree(forger.path.parent, then.parent)
    said = json.loads(then.read_text()) | {"protocol": "1.0", "identity": "f" * 64}
    then.write_text(json.dumps(said))
    where = {"device": said["device"], "versions": said["versions"]}
    forger.update(earlier=Earlier(protocol="1.0", identity="f" * 64, **where))
    forger.sign()


def attacks_taken_from_what_was_changed(forger: Forger) -> None:
    """An earlier result of a frozen round, in which a file is another one than was frozen."""
    attacks_taken_from_what_was_put_there(forger)
    folder = forger.path.parents[2] / "1.0"
    digests = {path: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    digests[folder / "digits" / beside(forger.path, OUTCOMES).name] = "0" * 64
    lines = [f"{digest}  {path.relative_to(folder)}\n" for path, digest in digests.items()]
    (folder / rounds.SUMS).write_text("".join(lines))


def a_reason_that_is_not_the_measured_one(forger: Forger) -> None:
    """A search that proves little here; the forger says that the network is none for it."""
    table = forger.table
    proven = [table[one].fillna(False) for one in CERTIFIER_COLUMNS.values() if one != "bab"]
    rows = table.index[(table["outcome"] == "certified") & ~pd.concat(proven, axis=1).any(axis=1)]
    forger.set(rows, outcome="undecided", decided_by="", carried_from="")
    table["bab"] = pd.array([pd.NA] * len(table), dtype="boolean")
    forger.update(not_asked={"BaB": "not-a-relu-net: only the signs of ReLUs are split"})
    forger.sign()


def another_set_that_waits(forger: Forger) -> None:
    """An honest result, and hidden files of a forged one that the next writer would finish."""
    names = (forger.path.name, *(beside(forger.path, one).name for one in (OUTCOMES, ADVERSARIAL)))
    honest = {name: (forger.path.parent / name).read_bytes() for name in names}
    broken_becomes_certified(forger)
    for name, content in honest.items():
        place = forger.path.parent / name
        place.rename(place.with_name(f".{name}.new"))
        place.write_bytes(content)


def a_setting_of_another_type(forger: Forger) -> None:
    forger.update(settings=forger.run.settings | {"pgd_steps": 50.0})
    forger.sign()


def its_own_parent(forger: Forger) -> None:
    manifest = (forger.folder / "submission.toml").read_text()
    (forger.folder / "submission.toml").write_text(manifest.replace(PARENT, ENTRY))
    forger.update(submission=forger.run.submission.model_copy(update={"parent": ENTRY}))
    forger.sign()


def sizes_that_deny_each_other(forger: Forger) -> None:
    forger.update(compactness=forger.run.compactness.model_copy(update={"sparsity": 0.99}))
    forger.sign()


#: forgery -> what the refusal says: the column or key, and where it can be, both sides.
FORGERIES: dict[Callable[[Forger], None], str] = {
    attacks_taken_from_nowhere: "earlier: claimed a result of protocol 1.0, but measured no",
    attacks_taken_from_itself: "earlier: claimed a result of protocol 1.1, but measured no",
    attacks_taken_from_no_protocol: "earlier.protocol: expected a version, found",
    attacks_said_to_have_run_elsewhere: "earlier.device: claimed a quantum computer, but measured",
    too_large_for_what_is_small: "not_asked.alpha-CROWN: claimed not asked (too-large",
    a_certifier_that_there_is_not: "not_asked: 'MyCert' is not a certifier",
    a_day_that_never_was: "date: Value error, a day such as 2026-11-28",
    another_release_of_the_protocol: f"protocol: claimed 1.1.7, but measured {PROTOCOL}",
    a_seed_below_0: "seed: expected at least 0, found -1",
    halved_on_a_processor: "halved_batches: expected none on a processor",
    a_text_that_writes_to_a_terminal: "data.source: expected text without control characters",
    a_flag_that_is_markup: "expected text like ^[a-z0-9][a-z0-9-]{0,63}$, found '[/x]'",
    contests_that_broke_nothing: "contests.broken: claimed none",
    more_right_than_there_are: "recognition.right: expected at most num_images = 3, found 999",
    attacks_taken_from_what_was_put_there: "but measured a round that is not frozen",
    attacks_taken_from_what_was_changed: "outcomes.parquet: differs from the frozen round",
    a_reason_that_is_not_the_measured_one: "not_asked.BaB: claimed not asked (not-a-relu-net",
    another_set_that_waits: "files of an interrupted writing lie beside it",
    a_setting_of_another_type: "settings: not those of protocol 1.1: pgd_steps",
    its_own_parent: f"`parent`: '{ENTRY}' is not an entry here",
    sizes_that_deny_each_other: "compactness.sparsity: expected 0.",
    another_constant_of_the_same_engine: "constants.",
    constants_left_out: "constants.",
    a_version_that_is_none: "versions.torch: claimed <b>3</b>, but measured no version",
    a_device_that_looks_like_one: "device: claimed cp\u0443, but measured not the name of a device",
    another_array_in_the_archive: "arrays of",
    broken_becomes_certified: "ibp at 2/16, image",
    one_more_certificate: "crown_ibp at 2/16, image",
    shifted_margins: "margin at 2/16, images",
    a_margin_no_bound_can_have: "margin at 2/16, images",
    ids_beyond_the_test_set: "image: expected the published order of digits, so test image",
    other_images: "image: expected the published order of digits, so test image",
    labels_as_predicted: "as in the published images of digits, found",
    predictions_as_labels: "predicted, image",
    counts_in_the_json: "epsilons.2/16.certified_by.cascade: expected the",
    a_key_more_in_the_json: "note: claimed the best entry of all, but measured no such key",
    compactness: "compactness.num_nonzero: the result says",
    sizes_left_out: "compactness.num_live: claimed missing, but measured",
    weights_of_another_entry: "the same effective weights as digits-ibp-random-10x",
    other_weights_than_the_result: "does not belong to the weights of",
    weights_a_hair_changed: "margin at 1/16, images",
    another_text_for_epsilon: "epsilons: expected 1/16, 2/16, but found 1/16, 1/8",
    a_smaller_epsilon: "epsilons: expected 1/16, 2/16, but found 1/16, 2/17",
    swapped_adversarial_images: "its adversarial image is outside the ball",
    outside_the_ball_by_one_step: "its adversarial image is outside the ball",
    clean_images_as_adversarial: "the model classifies its adversarial image correctly",
    more_adversarial_images: "adversarial: claimed",
    missing_rows: "expected one row for each of 60 images",
    duplicate_rows: "position: expected 0 to 59 in this order at 2/16",
    rows_of_a_third_radius: "epsilon: expected one of '1/16', '2/16', found '1/32'",
    one_position_twice: "position: expected 0 to 59 in this order at 1/16",
    identity_of_another_run: "identity: not that of its protocol, track, n",
    another_seed_under_the_old_identity: "identity: not that of its protocol, track, n",
    metadata_that_differs: "differs from the scorecard of its outcome table",
    a_table_of_other_digests: "the three files of this result do not belong together",
    no_digests: "files.outcomes.parquet: expected its sha256",
    huge_texts: "versions.torch: expected a text of at most 4000 characters, found 1000000",
    flags_removed: "flags at 1/16: claimed none, but measured",
    recognition_improved: "recognition.shifted: claimed 60, but measured",
    contradictions_removed: "audit.contradictions: expected the 1 rows",
    a_smaller_audit: "audit.num_images: claimed 0, but measured",
    errors_hidden: "errors at 2/16: claimed 0 images without an answer, but measured 2",
    quick_is_false: "n: expected '60' as in the file's path, found '20'",
    a_quick_result: "quick: true",
    n_is_larger: "expected counts that add up to n = 500, found 60",
    other_settings: f"settings: not those of protocol {PROTOCOL}: pgd_steps",
    a_setting_more: f"settings: not those of protocol {PROTOCOL}: tuned",
    negative_seconds: "seconds.clean: ",
    negative_seconds_of_an_image: "seconds that are no time of at least 0",
    a_date_to_come: "date: claimed 9999-01-01",
    a_contest_that_was_none: "contests at 2/16: claimed 3 rows broken, but measured 0 rows",
    a_contest_takes_all_credit: "pgd50 at ",
    a_contest_removed: "contests at 2/16: claimed 0 rows broken, but measured 1 rows",
    a_symlink: "expected a regular file, but found a symbolic link",
    a_symlink_to_nowhere: "expected the result file of the files beside it",
    another_subset: "n: expected '500' as in the file's path, found '60'",
    a_table_without_a_result: "expected the result file of the files beside it",
    broken_becomes_undecided: "still right, but measured broken by",
    broken_becomes_timeout: "still right, but measured broken by",
    survived_pgd: "pgd50 at ",
    a_certifier_that_was_not_asked: "not_asked.CROWN: claimed not asked (too-large",
    proofs_lost: "crown_ibp at 2/16, images",
    another_prover: "another certifier decided than the cheapest that proved it",
    carried_from_nowhere: "carried_from at 2/16: expected a radius with such a decision",
    broken_in_the_small_ball_only: "outcome at 2/16: expected attacked as at 1/16",
    another_manifest: "submission.title: claimed The best of all",
    another_network_searched: "searched_on: claimed",
    other_data: "data.kind: expected 'canonical' for the fingerprint",
    not_from_here: f"entry: expected '{ENTRY}' as in the file's path, found 'digits-ibp-best'",
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forged_result_is_refused_by_name(
    forge: Callable[[Forger], None], forger: Forger, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(forger)
    capsys.readouterr()
    assert take_in(forger) == 2
    said = capsys.readouterr().err
    assert FORGERIES[forge] in said
    assert "Traceback" not in said
    assert not (forger.board.parent / "out" / ROUND).exists(), "nothing is evaluated for it"


#: The same as intake says.
_SAID = ""
_NOT_READ = {"recheck": _SAID, "render": _SAID}
_NOT_SCORED = {"score": _SAID, **_NOT_READ}
#: forgery -> other commands that refuse it, too: command -> what it says.
ELSEWHERE: dict[Callable[[Forger], None], dict[str, str]] = {
    counts_in_the_json: {"score": "differs from the scorecard", **_NOT_READ},
    a_key_more_in_the_json: {"score": "differs from the scorecard"},
    n_is_larger: {"score": "differs from the scorecard", **_NOT_READ},
    metadata_that_differs: {"score": "differs from the scorecard", **_NOT_READ},
    a_table_of_other_digests: {"score": "differs from the scorecard", **_NOT_READ},
    no_digests: _NOT_READ,
    huge_texts: _NOT_SCORED,
    **dict.fromkeys(
        (
            missing_rows,
            duplicate_rows,
            rows_of_a_third_radius,
            one_position_twice,
            ids_beyond_the_test_set,
            other_images,
            labels_as_predicted,
            contradictions_removed,
            negative_seconds_of_an_image,
            another_prover,
            carried_from_nowhere,
            broken_in_the_small_ball_only,
            a_seed_below_0,
            a_text_that_writes_to_a_terminal,
            a_flag_that_is_markup,
        ),
        _NOT_SCORED,
    ),
    **dict.fromkeys(
        (
            other_data,
            not_from_here,
            quick_is_false,
            a_certifier_that_there_is_not,
            halved_on_a_processor,
            more_right_than_there_are,
            sizes_that_deny_each_other,
        ),
        _NOT_READ,
    ),
    a_day_that_never_was: _NOT_SCORED,
    its_own_parent: {"render": "submission.parent: expected another entry than"},
    another_subset: {"render": _SAID},
    swapped_adversarial_images: {"recheck": _SAID},
    outside_the_ball_by_one_step: {"recheck": _SAID},
    clean_images_as_adversarial: {"recheck": _SAID},
    other_weights_than_the_result: {"recheck": _SAID},
    compactness: {"recheck": _SAID},
    another_text_for_epsilon: {"render": _SAID},
    a_quick_result: {"render": _SAID},
    other_settings: {"render": _SAID},
    a_setting_more: {"render": _SAID},
}


@pytest.mark.parametrize("forge", ELSEWHERE, ids=lambda forge: forge.__name__)
def test_other_commands_refuse_what_they_can_see(
    forge: Callable[[Forger], None], forger: Forger, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(forger)
    commands = {
        "score": [str(beside(forger.path, OUTCOMES))],
        "recheck": [str(forger.path), "--submission", str(forger.folder), "--no-isolate"],
        "render": [str(forger.board / "results"), "--out", str(forger.board / "site")],
    }
    for name, said in ELSEWHERE[forge].items():
        said = said or FORGERIES[forge]
        capsys.readouterr()
        assert invoke([name, *commands[name]]) == 2, name
        captured = capsys.readouterr()
        assert said in captured.err + captured.out, name


# --------------------------------------------------------------- what is no forgery, and more


def test_other_versions_are_told_and_their_proofs_asked_again(
    forger: Forger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Margins then may differ; what is claimed to be proven must hold all the same."""
    forger.update(versions=forger.run.versions | {"torch": "9.9"})
    certified = forger.rows("certified")
    forger.set(certified, margin=forger.table.loc[certified, "margin"] * 0.99)
    forger.sign()
    assert take_in(forger) == 0, capsys.readouterr().err
    assert "Note: evaluated with torch 9.9, here" in capsys.readouterr().out
    broken_becomes_certified(forger)
    assert take_in(forger) == 2
    assert FORGERIES[broken_becomes_certified] in capsys.readouterr().err


def test_constants_of_another_engine_are_told(
    forger: Forger, capsys: pytest.CaptureFixture[str]
) -> None:
    name = min(forger.run.constants or {})
    forger.update(versions=forger.run.versions | {"engine": "000000000000"})
    forger.update(constants={**(forger.run.constants or {}), name: 99})
    forger.sign()
    assert take_in(forger) == 0, capsys.readouterr().err
    out = " ".join(capsys.readouterr().out.split())
    assert f"Note: constants that are not those of the engine here: {name} 99, here" in out


def test_removed_contradictions_come_back(
    forger: Forger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong certifier proves everything; the forger calls what its audit broke certified."""
    certify = proving.certify

    def wrong(self: Evaluation, certifier: str) -> None:
        certify(self, certifier)
        for known in self.facts.epsilons.values():
            new = self.facts.correct & ~known.proven
            known.certified[certifier] = self.facts.correct.copy()
            known.proven_by[new] = certifier
            known.proven_from[new] = ""
            known.margin[new] = np.fmax(known.margin[new], 0.0)

    for asks in (pipeline, proofs):
        monkeypatch.setattr(asks, "certify", wrong)
    out = forger.board / "results"
    evaluate(forger.folder, Settings(n=N, out=out, force=True))
    table, run = read_outcomes(beside(forger.path, OUTCOMES))
    lines = run.audit.contradictions
    assert lines and run.flags
    forger.table, forger.run = (
        table,
        run.model_copy(update={"audit": Audit(num_images=run.audit.num_images)}),
    )
    rows = table.index[table["outcome"] == "attacked"]
    forger.set(rows, outcome="certified", decided_by="IBP", carried_from="", adversarial=-1)
    forger.set(rows, pgd50=True, autoattack=True)
    forger.sign()
    capsys.readouterr()
    assert take_in(forger) == 3
    said = capsys.readouterr().err
    assert any(line.split(", broken")[0] in said for line in lines), said


@pytest.mark.parametrize("ending", ["json", "outcomes.parquet", "adversarial.npz"])
@pytest.mark.parametrize("how", ["cut", "emptied", "zeros", "text", "folder"])
def test_a_damaged_file_is_one_clear_error(
    forger: Forger, ending: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = forger.path if ending == "json" else beside(forger.path, ending)
    content = path.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "emptied": b"",
        "zeros": content[:100] + bytes(200) + content[300:],
        "text": b"hello" * 100,
    }
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes(damaged[how])
    assert take_in(forger) == 2
    said = capsys.readouterr().err
    assert path.name in said and "Traceback" not in said


def test_a_join_without_an_image_agrees_with_nothing(honest: Path, forger: Forger) -> None:
    """ "Agrees on n images" is counted, also where everything before let it pass."""
    source = honest / "results" / ROUND / "digits" / f"{ENTRY}.json"
    evaluated = Evaluated(read_result(source), source, reused=False)
    claim = _compare(evaluated, forger.path)
    assert claim.n == N
    ids_beyond_the_test_set(forger)
    with pytest.raises(ResultError, match="image: expected the published order"):
        _compare(evaluated, forger.path)


def test_every_forgery_is_in_the_table_of_the_documentation() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    missing = [forge.__name__ for forge in FORGERIES if f"`{forge.__name__}`" not in text]
    assert missing == []
