"""TOML of strangers is read in time and memory that its size explains."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.files.toml import MAX_KEY_PARTS, read_toml
from corobench.benchmark.submission.manifest import parse_manifest

ENTRY = Path(__file__).parents[2] / "submissions" / "digits-ibp-dense" / "submission.toml"


def _key(num: int, part: str = "a", dot: str = ".") -> str:
    return dot.join([part] * num)


@pytest.mark.parametrize("part", ["a", "'a'", '"a b"', "a-1"])
@pytest.mark.parametrize("dot", [".", " . ", "\t.\t"])
@pytest.mark.parametrize("form", ["{} = 1", "[{}]", "[[{}]]", "x = {{ {} = 1 }}"])
def test_a_long_dotted_key_is_refused_before_it_is_parsed(part: str, dot: str, form: str) -> None:
    read_toml(form.format(_key(MAX_KEY_PARTS, part, dot)))
    with pytest.raises(ValueError, match=r"parts joined by dots \(at line 2\)"):
        read_toml("\n" + form.format(_key(MAX_KEY_PARTS + 1, part, dot)))


def test_a_key_of_thirty_thousand_parts_takes_no_memory() -> None:
    """It took 5 GiB and a minute."""
    content = ENTRY.read_bytes() + f"\n{_key(30_000)} = 1\n".encode()
    tracemalloc.start()
    with pytest.raises(SubmissionError, match="parts joined by dots"):
        parse_manifest(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * len(content)


def test_looking_for_long_keys_takes_time_in_proportion() -> None:
    """One word of 4 MB; a pattern that begins anew at every letter would not end."""
    assert read_toml(f"{'a' * 4_000_000} = 1")
    assert read_toml(f'x = "{"a " * 2_000_000}"')


def test_prose_links_and_numbers_are_no_keys() -> None:
    text = 'x = "See https://a.b.example.org/1.2.3/c.d.html. Then. And so on. ' + "e. f g. " * 99
    assert read_toml(text + '"')


@pytest.mark.parametrize("number", ["9" * 40, "0x" + "f" * 400, "-" + "9" * 20, str(2**63)])
def test_a_whole_number_has_64_bits(number: str) -> None:
    """It was valid, evaluated, and then refused in its own result."""
    content = ENTRY.read_text().replace("seed = 0", f"seed = {number}")
    assert content != ENTRY.read_text()
    with pytest.raises(SubmissionError, match=r"more than 64 bits \(`training\.seed`\)"):
        parse_manifest(content.encode())
    assert read_toml(f"a = {2**63 - 1}\nb = [{{ c = {-(2**63)} }}]")["a"] == 2**63 - 1
    with pytest.raises(ValueError, match=r"`b\.c`"):
        read_toml(f"b = [{{ c = {number} }}]")
