"""The report says what the outcome tables say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from leaderboard_factory import write_pair

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.scoring.statistics import Kept
from corobench.leaderboard.averages import average, average_as_long, average_groups
from corobench.leaderboard.families import MEASURES, Family, find_families, in_one_round
from corobench.leaderboard.reproduction import (
    averages_of_tracks,
    budgets,
    compare,
    compare_seeds,
    report,
    tally,
)
from corobench.leaderboard.seed_tests import seed_comparisons

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "leaderboard" / "results" / "1.0" / "digits"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "1.0" / "digits"
    folder.mkdir(parents=True)
    for entry in ("dense", "lwm-10x", "mismatch-10x", "random-10x"):
        for file in RESULTS.glob(f"digits-adv-{entry}.*"):
            shutil.copy(file, folder / file.name)
    return tmp_path


def test_families_are_children_beside_their_parent(results: Path) -> None:
    (family,) = find_families([results])
    assert family.name == "digits-adv-dense"
    assert [child.uses_papers_method for child in family.children] == [True, False, False]
    assert all(child.times == pytest.approx(10, abs=0.1) for child in family.children)
    raw = json.loads((RESULTS / "digits-adv-lwm-10x.json").read_text())["epsilons"]["2/16"]
    dense = json.loads((RESULTS / "digits-adv-dense.json").read_text())["epsilons"]["2/16"]
    kept = family.children[0].kept["autoattack"]
    assert kept is not None
    assert kept.rate == pytest.approx(raw["autoattack"] / dense["autoattack"])
    assert kept.low < kept.rate < kept.high
    assert average([family], "autoattack") == kept
    assert average([family], "vra") is None, "this family is not trained to be verified"


def test_a_family_counts_once_in_the_newest_round_that_has_all_its_rows(results: Path) -> None:
    (old,) = find_families([results])

    def newer(family: Family, entries: set[str]) -> Family:
        parent = family.parent.model_copy(update={"protocol": "1.10"})
        children = [child for child in family.children if child.result.entry in entries]
        return replace(family, parent=parent, children=tuple(children))

    entries = {child.result.entry for child in old.children}
    whole = newer(old, entries)
    part = newer(old, set(sorted(entries)[1:]))
    between = replace(whole, parent=whole.parent.model_copy(update={"protocol": "1.9"}))
    assert in_one_round([old, part]) == [old]
    assert in_one_round([old, whole]) == [whole]
    assert in_one_round([whole, old, between]) == [whole]


def test_a_family_is_compared_at_the_radius_its_kind_is_trained_at() -> None:
    found = {one.name: one.epsilon for one in find_families([ROOT / "leaderboard" / "results"])}
    assert found["digits-ibp-dense"] == "2/16"
    assert found["fashion-mnist-adv-dense"] == "1/10"
    assert found["cifar10-ibp-dense"] == "2/255"


def _copy(results: Path, entry: str, new: str, **method: str) -> None:
    """Another entry with the outcomes of `entry`; `method` changes what it says of itself."""
    folder = results / "1.0" / "digits"
    raw = json.loads((folder / f"{entry}.json").read_text())
    raw["entry"] = raw["submission"]["id"] = new
    raw["submission"]["method"].update(method)
    if new.endswith("-s1"):
        raw["submission"]["training"]["seed"] = 1
        if raw["submission"]["parent"]:
            raw["submission"]["parent"] += "-s1"
    write_pair(folder / f"{new}.json", raw, folder / f"{entry}.json")


@pytest.mark.parametrize(
    "method",
    [
        {"schedule": "iterative"},
        {"scope": "global"},
        {"criterion": "lottery-ticket (least-weight-magnitude)"},
        {"criterion": "least-weight-magnitude (first and last layer dense)"},
        {"pipeline": "before"},
        {"finetune_objective": "natural"},
    ],
)
def test_variants_of_the_papers_method_are_rivals(results: Path, method: dict[str, str]) -> None:
    _copy(results, "digits-adv-lwm-10x", "variant", name="variant", **method)
    (family,) = find_families([results])
    assert [child.method for child in family.children if child.uses_papers_method] == ["LWM 10x"]
    same = [one for one in compare([family]) if one.rival == "variant"]
    assert len(same) == 2 and {one.verdict for one in same} == {"no difference shown"}


def test_the_papers_method_in_whole_numbers_is_a_rival_of_itself(results: Path) -> None:
    """Its taxonomy is the same; the format of its file tells it apart."""
    _copy(results, "digits-adv-lwm-10x", "in-int8", name="LWM 10x, int8")
    path = results / "1.0" / "digits" / "in-int8.json"
    raw = json.loads(path.read_text())
    raw["compactness"]["format"] = "onnx-qdq"
    write_pair(path, raw)
    (family,) = find_families([results])
    assert [child.method for child in family.children if child.uses_papers_method] == ["LWM 10x"]
    assert "LWM 10x, int8" in {one.rival for one in compare([family])}


def test_what_a_stranger_calls_the_papers_method_is_a_rival_of_it(results: Path) -> None:
    """A weak network with the manifest of the paper's method lowers no figure of it."""
    before = find_families([results])
    folder = results / "1.0" / "digits"
    method = json.loads((folder / "digits-adv-lwm-10x.json").read_text())["submission"]["method"]
    _copy(results, "digits-adv-random-10x", "stranger", **method)
    path = folder / "stranger.json"
    raw = json.loads(path.read_text())
    raw["submission"]["authors"] = ["Mallory", "Trudy"]
    write_pair(path, raw, folder / "digits-adv-random-10x.json")
    after = find_families([results])
    assert [child.method for child in after[0].papers] == ["LWM 10x"]
    assert average(after, "autoattack") == average(before, "autoattack")
    verdicts = {(one.rival, one.measure): one.verdict for one in compare(after)}
    assert ("LWM 10x (Mallory et al.)", "AutoAttack") in verdicts
    assert verdicts["random 10x", "AutoAttack"] == "the paper's method is better"
    assert not any(one.rival == "LWM 10x" for one in compare(after))


def test_a_parent_of_other_authors_is_no_further_training_of_this_one(results: Path) -> None:
    (family,) = find_families([results])
    submission = family.parent.submission.model_copy(update={"authors": ("Mallory",)})
    other = replace(family, parent=family.parent.model_copy(update={"submission": submission}))
    assert other.series != family.series


def test_a_small_network_counts_by_its_weights(results: Path) -> None:
    """Nothing in it is zero, and yet it is ten times smaller than the dense entry."""
    path = results / "1.0" / "digits" / "digits-adv-random-10x.json"
    raw = json.loads(path.read_text())
    raw["compactness"]["sparsity"] = 0.0
    for layer in raw["compactness"]["layers"]:
        layer["num_weights"] = layer["num_nonzero"]
    raw["compactness"]["num_parameters"] = raw["compactness"]["num_nonzero"]
    raw["compactness"]["bytes_dense"] = 4 * raw["compactness"]["num_nonzero"]
    raw["compactness"]["bytes_packed"] = raw["compactness"]["bytes_dense"]
    raw["compactness"]["bytes_coded"] = raw["compactness"]["bytes_dense"]
    raw["compactness"]["magnitudes"]["num_zeros"] = 0
    write_pair(path, raw)
    (family,) = find_families([results])
    assert {round(child.times) for child in family.children} == {10}
    assert len(compare([family])) == 4


def test_seeds_of_a_family_count_once(results: Path) -> None:
    alone = average(find_families([results]), "autoattack")
    for entry in ("dense", "lwm-10x"):
        _copy(results, f"digits-adv-{entry}", f"digits-adv-{entry}-s1")
    families = find_families([results])
    assert [family.name for family in families] == ["digits-adv-dense", "digits-adv-dense-s1"]
    both = average(families, "autoattack")
    assert alone is not None and both is not None
    assert both.rate == pytest.approx(alone.rate)
    assert both.high - both.low == pytest.approx((alone.high - alone.low) / 2**0.5)
    rows = compare_seeds(families)
    assert [row.method for row in rows] == ["dense", "LWM 10x"]
    assert [len(row.values["vra"]) for row in rows] == [2, 2]
    text = report([results])
    assert "| digits-adv-dense | LWM 10x | 98.8, 98.8 (98.8 ± 0.0) |" in text
    assert "seeds of one family are averaged first" in text


def test_budgets_are_told_where_manifests_tell_them(results: Path) -> None:
    assert budgets(find_families([results])) == []
    for entry, epochs in (("dense", 12), ("lwm-10x", 20), ("random-10x", 20)):
        path = results / "1.0" / "digits" / f"digits-adv-{entry}.json"
        raw = json.loads(path.read_text())
        raw["submission"]["training"]["epochs"] = epochs
        write_pair(path, raw)
    found = budgets(find_families([results]))
    assert found == [("digits-adv-dense", {"12": ["dense"], "20": ["LWM 10x", "random 10x"]})]
    assert "| digits-adv-dense | 20 | LWM 10x; random 10x |" in report([results])


def test_averages_are_also_told_for_each_track(results: Path) -> None:
    families = find_families([results])
    found = averages_of_tracks(families)
    assert list(found) == ["digits"] and found["digits"]["number"] == 1
    assert found["digits"]["averages"] == {key: average(families, key) for key in MEASURES}
    assert "| on digits alone (1 family) |" in report([results])


def test_a_rival_is_tested_over_seeds_where_both_have_two(results: Path) -> None:
    assert seed_comparisons(find_families([results])) == []
    assert "Would other trainings show the same?" not in report([results])
    for entry in ("dense", "lwm-10x", "mismatch-10x"):
        _copy(results, f"digits-adv-{entry}", f"digits-adv-{entry}-s1")
    families = find_families([results])
    found = seed_comparisons(families)
    natural = next(
        one for one in found if "natural" in one.rival and one.measure == MEASURES["autoattack"]
    )
    first = next(child for child in families[0].children if child.uses_papers_method)
    rival = next(child for child in families[0].children if child.is_natural)
    gap = first.flags["autoattack"].mean() - rival.flags["autoattack"].mean()
    assert natural.test.difference == pytest.approx(gap)
    assert natural.test.num_seeds == (2, 2) and natural.test.is_paired
    assert natural.is_shown and natural.p_holm >= natural.test.p_value
    assert "Would other trainings show the same?" in report([results])


def test_a_rival_is_averaged_beside_the_papers_method_on_the_same_families(results: Path) -> None:
    """A second family that lacks one rival counts for the others and their pair alone."""
    for entry in ("dense", "lwm-10x", "random-10x"):
        for file in RESULTS.glob(f"digits-ibp-{entry}.*"):
            shutil.copy(file, results / "1.0" / "digits" / file.name)
    families = find_families([results])
    both, alone = average_groups(families)
    assert both.num_seeds == {"digits-adv-dense": 1, "digits-ibp-dense": 1}
    assert alone.num_seeds == {"digits-adv-dense": 1}
    assert [one.method for one in both.rivals] == ["random 10x"]
    assert [one.method for one in alone.rivals] == ["LWM 10x, natural fine-tuning"]
    assert both.papers.kept == {key: average(families, key) for key in MEASURES}
    assert alone.papers.kept["clean"] == families[0].children[0].kept["clean"]
    assert alone.papers.kept["vra"] is None, "this family is not trained to be verified"
    randoms = [
        child.kept["autoattack"]
        for family in families
        for child in family.children
        if child.method == "random 10x"
    ]
    kept = both.rivals[0].kept["autoattack"]
    assert kept is not None and all(one is not None for one in randoms)
    assert kept.rate == pytest.approx(sum(one.rate for one in randoms if one) / 2)
    text = report([results])
    assert "Over 2 families: digits-adv-dense, digits-ibp-dense.\n" in text
    assert "Over 1 family: digits-adv-dense.\n" in text


def test_a_rival_of_one_seed_stands_beside_that_seed_of_the_papers_method(results: Path) -> None:
    for entry in ("dense", "lwm-10x"):
        _copy(results, f"digits-adv-{entry}", f"digits-adv-{entry}-s1")
    (group,) = average_groups(find_families([results]))
    assert group.num_seeds == {"digits-adv-dense": 1}
    assert len(group.rivals) == 2
    _copy(results, "digits-adv-random-10x", "digits-adv-random-10x-s1")
    first, second = average_groups(find_families([results]))
    assert (first.num_seeds, second.num_seeds) == ({"digits-adv-dense": 1}, {"digits-adv-dense": 2})
    assert [one.method for one in second.rivals] == ["random 10x"]
    assert "Over 1 family: digits-adv-dense (2 seeds).\n" in report([results])


def test_the_first_seed_of_a_family_is_tested(results: Path) -> None:
    (family,) = find_families([results])
    alone = compare([family])
    later = _with_seed(family, 3, "later")
    assert compare([later, family]) == compare([family, later]) == alone
    assert {one.family for one in compare([later])} == {"later"}
    unsaid = _with_seed(family, None, "unsaid")  # no seed stands before all seeds
    assert {one.family for one in compare([family, unsaid])} == {"unsaid"}


def _with_seed(family: Family, seed: int | None, name: str) -> Family:
    submission = family.parent.submission
    training = submission.training.model_copy(update={"seed": seed})
    other = submission.model_copy(update={"training": training})
    return replace(
        family, parent=family.parent.model_copy(update={"submission": other, "entry": name})
    )


def test_of_two_subsets_the_larger_one_counts(results: Path) -> None:
    """500 images of this family, and 100 that are no seeds of it."""
    (family,) = find_families([results])
    small = [
        replace(
            family,
            parent=family.parent.model_copy(update={"n": 100}),
            flags={key: flags[:100] for key, flags in family.flags.items()},
            children=tuple(
                replace(child, kept={key: Kept(0.5, 0.4, 0.6) for key in child.kept})
                for child in family.children
            ),
        )
    ]
    assert average([*small, family], "autoattack") == average([family], "autoattack")
    assert compare_seeds([*small, family]) == []


def test_two_entries_are_tested_once_on_the_largest_subset(results: Path) -> None:
    (family,) = find_families([results])
    small = replace(
        family,
        parent=family.parent.model_copy(update={"n": 100}),
        children=tuple(
            replace(child, flags={key: flags[:100] for key, flags in child.flags.items()})
            for child in family.children
        ),
    )
    assert compare([small, family]) == compare([family, small]) == compare([family])
    alone = replace(family, children=family.children[:2])
    both = compare([small, alone])
    assert {(one.rival, one.n) for one in both} == {
        (family.children[1].method, 500),
        (family.children[2].method, 100),
    }


def _says(results: Path, entry: str, epochs: int | None = None, live: int | None = None) -> None:
    path = results / "1.0" / "digits" / f"{entry}.json"
    raw = json.loads(path.read_text())
    if epochs is not None:
        raw["submission"]["training"]["epochs"] = epochs
    if live is not None:
        raw["compactness"]["num_live"] = live
    write_pair(path, raw)


def test_a_rival_of_far_fewer_live_weights_is_not_of_the_same_size(results: Path) -> None:
    _says(results, "digits-adv-lwm-10x", live=2000)
    _says(results, "digits-adv-random-10x", live=1000)
    (family,) = find_families([results])
    rivals = {one.rival: one.live for one in compare([family])}
    assert rivals["random 10x"] == (2000, 1000)
    assert rivals["LWM 10x, natural fine-tuning"] == (2000, None)
    assert "Not compared" not in report([results])
    _says(results, "digits-adv-random-10x", live=999)
    (family,) = find_families([results])
    assert {one.rival for one in compare([family])} == {"LWM 10x, natural fine-tuning"}
    assert "| digits-adv-dense | random 10x | 2,000 : 999 |" in report([results])


def test_budgets_stand_beside_the_tests(results: Path) -> None:
    _says(results, "digits-adv-lwm-10x", epochs=28)
    _says(results, "digits-adv-random-10x", epochs=16)
    text = report([results])
    assert "| random 10x | 28 : 16 | 1 | 0 | 1 | one seed |" in text
    assert "| – : – | 28 : 16 |" in text


def test_the_summary_tells_what_holds_over_trainings(results: Path) -> None:
    for entry in ("dense", "lwm-10x", "mismatch-10x"):
        _copy(results, f"digits-adv-{entry}", f"digits-adv-{entry}-s1")
    families = find_families([results])
    found = {one.rival: one for one in tally(compare(families), seed_comparisons(families))}
    assert found["LWM 10x, natural fine-tuning"].over_seeds == (2, 2)
    assert found["random 10x"].over_seeds == (0, 0)


def test_what_is_kept_of_a_dense_network_that_was_trained_as_long(results: Path) -> None:
    """The dense outcomes under another name: then it is what is kept of the parent itself."""
    _copy(results, "digits-adv-dense", "long", name="dense, trained longer")
    path = results / "1.0" / "digits" / "long.json"
    raw = json.loads(path.read_text())
    raw["submission"]["parent"] = "digits-adv-dense"
    write_pair(path, raw)
    _says(results, "long", epochs=28)
    families = find_families([results])
    assert average_as_long(families, "autoattack") == (None, [])
    _says(results, "digits-adv-lwm-10x", epochs=28)
    families = find_families([results])
    kept, names = average_as_long(families, "autoattack")
    plain = average(families, "autoattack")
    assert names == ["digits-adv-dense"] and kept is not None and plain is not None
    assert kept.rate == pytest.approx(plain.rate)
    assert "of a dense network trained as long as both steps together (1 family)" in report(
        [results]
    )
    _says(results, "long", epochs=27)
    assert average_as_long(find_families([results]), "autoattack") == (None, [])


def test_every_claim_is_corrected_for_all_of_them(results: Path) -> None:
    comparisons = compare(find_families([results]))
    assert len(comparisons) == 4
    assert all(one.p_holm >= one.p_value for one in comparisons)
    assert sum(one.p_holm > one.p_value for one in comparisons) == 3
    mismatch = [one for one in comparisons if "natural" in one.rival]
    assert all(one.verdict == "the paper's method is better" for one in mismatch)


def test_the_summary_counts_every_test_once(results: Path) -> None:
    comparisons = compare(find_families([results]))
    counts = {one.rival: (one.ours, one.theirs, one.neither) for one in tally(comparisons)}
    assert counts == {"random 10x": (1, 0, 1), "LWM 10x, natural fine-tuning": (2, 0, 0)}
    text = report([results])
    assert "| random 10x | not told | 1 | 0 | 1 | one seed |" in text
    assert "worse in 2 of 2 corrected tests" in text
    assert "- The paper's 92.5 % ERA (PGD-50): **held**, 97.7 % here." in text


def test_the_command_prints_or_writes(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["report", str(results)]) == 0
    printed = capsys.readouterr().out
    assert invoke(["report", str(results), "--out", str(tmp_path / "r.md")]) == 0
    assert (tmp_path / "r.md").read_text("utf-8") == printed == report([results])
    assert "| LWM 10x (the paper's) | 1/9.99 |" in printed
    assert invoke(["report", str(results), "--out", str(tmp_path / "no" / "r.md")]) == 2


def test_what_is_missing_is_named(results: Path) -> None:
    table = results / "1.0" / "digits" / "digits-adv-lwm-10x.outcomes.parquet"
    table.unlink()
    with pytest.raises(ResultError, match=r"digits-adv-lwm-10x\.outcomes\.parquet"):
        report([results])
    only = results / "1.0" / "digits" / "digits-adv-random-10x.json"
    with pytest.raises(ResultError, match="beside the results of their parents"):
        report([only])


def test_text_of_a_submission_stays_text(results: Path) -> None:
    path = results / "1.0" / "digits" / "digits-adv-random-10x.json"
    raw = json.loads(path.read_text())
    raw["submission"]["method"]["name"] = "a|b <script> `x` [l](u)"
    write_pair(path, raw)
    text = report([results])
    assert "a\\|b &lt;script&gt; \\`x\\` \\[l\\](u)" in text
    assert "<script>" not in text


def test_where_neither_has_an_image_to_its_credit_there_is_no_test(results: Path) -> None:
    (family,) = find_families([results])
    papers, first, second = (
        replace(child, flags={**child.flags, "vra": child.flags["vra"] & False})
        for child in family.children
    )
    assert {one.measure for one in compare([family])} == {"AutoAttack", "VRA"}
    bare = replace(family, children=[papers, first, second])
    assert {(one.rival, one.measure) for one in compare([bare])} == {
        (first.method, "AutoAttack"),
        (second.method, "AutoAttack"),
    }
    half = replace(family, children=[papers, first, family.children[2]])
    assert (second.method, "VRA") in {(one.rival, one.measure) for one in compare([half])}


def test_a_share_of_next_to_nothing_is_told_as_two_counts(results: Path) -> None:
    """As on boards: of a parent that was not made to be verified no VRA in percent."""
    (family,) = find_families([results])
    assert not family.has_vra_shares
    child = family.children[0]
    counts = f"{family.flags['vra'].sum()} → {child.flags['vra'].sum()} |"
    lines = report([results]).splitlines()
    row = next(line for line in lines if line.startswith(f"| {child.method} (the paper's) | 1/"))
    assert row.endswith(counts)
    (verified,) = [one for one in find_families([RESULTS]) if one.is_verifiable]
    assert verified.has_vra_shares
