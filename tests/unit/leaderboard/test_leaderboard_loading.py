"""Result files are found by their place, validated strictly, and refused with the key at fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from leaderboard_factory import make_raw, make_result, write_result

from corobench.benchmark.errors import ResultError
from corobench.leaderboard.loading import load_results, read_result


def test_a_folder_is_searched_for_results_and_other_json_is_named(tmp_path: Path) -> None:
    write_result(tmp_path / "b", make_result("second"))
    write_result(tmp_path / "a", make_result("first"))
    (tmp_path / "package.json").write_text("{}")
    loaded = load_results([tmp_path])
    assert [result.entry for result in loaded.results] == ["first", "second"]
    assert [item.path.name for item in loaded.ignored] == ["package.json"]
    assert "<protocol>/<track>/<entry>.json" in loaded.ignored[0].reason


def test_order_and_repetition_of_paths_do_not_matter(tmp_path: Path) -> None:
    first = write_result(tmp_path, make_result("first"))
    second = write_result(tmp_path, make_result("second"))
    expected = load_results([tmp_path]).results
    assert load_results([second, first, tmp_path, first]).results == expected


def test_a_named_file_may_lie_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "anything.json"
    path.write_text(json.dumps(make_raw("lwm")))
    assert read_result(path).entry == "lwm"


def test_a_file_of_another_n_carries_it_in_its_name(tmp_path: Path) -> None:
    path = write_result(tmp_path, make_raw("lwm", n=100))
    path.rename(path.with_name("lwm@100.json"))
    assert load_results([tmp_path]).results[0].n == 100
    path.with_name("lwm@100.json").rename(path.with_name("lwm@500.json"))
    with pytest.raises(ResultError, match="n: expected '500' as in the file's path, found '100'"):
        load_results([tmp_path])


def test_a_file_beside_a_result_that_belongs_to_it_is_not_a_result(tmp_path: Path) -> None:
    path = write_result(tmp_path, make_result("lwm"))
    path.with_name("lwm.run.json").write_text(json.dumps({"entry": "lwm", "chunks": 5}))
    loaded = load_results([tmp_path])
    assert len(loaded.results) == 1
    assert "belongs to another result" in loaded.ignored[0].reason


def test_no_result_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="found none"):
        load_results([tmp_path])
    with pytest.raises(ResultError, match=r"nowhere.*found nothing"):
        load_results([tmp_path / "nowhere"])
    with pytest.raises(ResultError, match="no results given"):
        load_results([])


BROKEN: list[tuple[tuple[str, ...], Any, str]] = [
    (("n",), "500", r"n: expected an integer, found '500'"),
    (("n",), 0, r"n: expected at least 1, found 0"),
    (("quick",), 1, r"quick: expected true or false, found 1"),
    (("protocol",), "../../x", r"protocol: expected a version such as '1.0'"),
    (("track",), "digit", r"track: unknown track 'digit': did you mean 'digits'\?"),
    (("entry",), "../lwm", r"entry: expected text like"),
    (("clean",), 501, r"clean: expected at most n = 500, found 501"),
    (("epsilons", "1/16", "autoattack"), 1, r"epsilons.1/16.autoattack: expected at least the"),
    (("epsilons", "1/16", "pgd50"), 481, r"epsilons.1/16.pgd50: expected at most clean = 480"),
    (("epsilons", "1/16", "counts", "certified"), 1, r"epsilons.1/16.counts: .*up to n = 500"),
    (("epsilons", "1/16", "counts", "attacked"), -1, r"counts.attacked: expected at least 0"),
    (("compactness", "num_nonzero"), 10**9, r"num_nonzero: expected at most num_parameters"),
    (("data", "kind"), "copy", r"data.kind: expected 'canonical' or 'mirror', found 'copy'"),
    (("submission", "titel"), "x", r"submission.titel: unknown key; did you mean 'title'\?"),
    (("submission", "id"), "other", r"submission.id: expected 'lwm' as in 'entry', found 'other'"),
    (("submission", "links"), ["javascript:alert(1)"], r"submission.links.0: expected text like"),
]


@pytest.mark.parametrize(("key", "value", "message"), BROKEN)
def test_a_fault_names_file_key_and_what_was_expected(
    tmp_path: Path, key: tuple[str, ...], value: Any, message: str
) -> None:
    raw = make_raw("lwm")
    place = raw
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    path = tmp_path / "lwm.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ResultError, match=message) as caught:
        read_result(path)
    assert str(path) in caught.value.message


def test_a_missing_key_and_an_epsilon_as_decimal(tmp_path: Path) -> None:
    raw = make_raw("lwm")
    del raw["weights_sha256"]
    path = write_result(tmp_path, raw)
    with pytest.raises(ResultError, match="weights_sha256: missing key"):
        read_result(path)
    raw = make_raw("lwm")
    raw["epsilons"]["0.031"] = raw["epsilons"].pop("1/16")
    path = write_result(tmp_path, raw)
    with pytest.raises(ResultError, match=r"0\.031 is not 8/255"):
        read_result(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON, found an error at line 1"),
        (b"\xff\xfe", "expected UTF-8"),
        (b'{"seconds": NaN}', "expected a finite number, found NaN"),
        (b"[" * 100_000, "expected JSON"),
        (b"[]", "found a JSON list, and no object"),
    ],
)
def test_what_is_not_json_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "lwm.json"
    path.write_bytes(content)
    with pytest.raises(ResultError, match=message):
        read_result(path)


def test_a_half_character_cannot_reach_the_page(tmp_path: Path) -> None:
    raw = make_raw("lwm", submission={"title": "\ud800"})
    path = tmp_path / "lwm.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ResultError, match=r"lwm\.json"):
        read_result(path)


def test_all_broken_files_are_listed_at_once(tmp_path: Path) -> None:
    write_result(tmp_path, make_result("good"))
    for name in ("bad-one", "bad-two"):
        path = write_result(tmp_path, make_raw(name))
        path.write_text("{")
    with pytest.raises(ResultError) as caught:
        load_results([tmp_path])
    assert "bad-one.json" in caught.value.message
    assert "bad-two.json" in caught.value.message


def test_a_file_at_the_place_of_another_entry_is_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path, make_result("lwm"))
    path.rename(path.with_name("other.json"))
    with pytest.raises(ResultError, match="entry: expected 'other' as in the file's path"):
        load_results([tmp_path])


def test_the_same_evaluation_twice_is_merged_and_a_disagreement_refused(tmp_path: Path) -> None:
    write_result(tmp_path / "a", make_result("lwm"))
    write_result(tmp_path / "b", make_raw("lwm", seconds={"clean": 9.0}))
    assert len(load_results([tmp_path]).results) == 1
    write_result(tmp_path / "c", make_raw("lwm", clean=470))
    with pytest.raises(ResultError, match="expected the same numbers as"):
        load_results([tmp_path])


def test_no_entry_is_its_own_ancestor(tmp_path: Path) -> None:
    for entry, parent in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        write_result(tmp_path, make_result(entry, submission={"id": entry, "parent": parent}))
    with pytest.raises(ResultError, match=r"submission\.parent: expected .* a <- b <- c <- a"):
        load_results([tmp_path])
