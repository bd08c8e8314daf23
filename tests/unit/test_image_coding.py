"""Coded adversarial images: the exact bits come back, in a fraction of the space, or one error."""

from __future__ import annotations

import io
import json
import lzma
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corobench.benchmark.attacks.base import Seats
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.data import Dataset, load_test
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.records.image_coding import code, encode
from corobench.benchmark.records.reading import attack_values
from corobench.benchmark.records.reading.arrays_file import count_images
from corobench.benchmark.records.reading.code_packing import pack, pack_codes, unpack_codes
from corobench.benchmark.records.reading.coded_images import (
    ARRAYS,
    CodedImages,
    is_coded,
    read_adversarial,
    read_coded,
)
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Run
from corobench.benchmark.referee import threat
from corobench.benchmark.tracks import derive_seed, parse_epsilon

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "leaderboard" / "results" / "1.0" / "digits" / "digits-ibp-dense.json"
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_test("digits")


@pytest.fixture(scope="module")
def run() -> Run:
    return read_outcomes(beside(RESULT, "outcomes.parquet"))[1]


def _table(indices: list[int], epsilon: str, decided_by: str = "pgd50") -> pd.DataFrame:
    """The columns of an outcome table that coding looks at."""
    return pd.DataFrame(
        {
            "image": np.array(indices, dtype=np.int32),
            "epsilon": epsilon,
            "adversarial": np.arange(len(indices), dtype=np.int32),
            "decided_by": decided_by,
        }
    )


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _back(content: bytes, folder: Path, clean: Dataset) -> np.ndarray:
    return read_coded(_written(folder / "a.npz", content), SHAPE).decode(clean)


# ------------------------------------------------------------------------------ the bits


@settings(max_examples=60, deadline=None)
@given(
    bits=st.lists(st.integers(0, 0x3F800000), min_size=128, max_size=128),
    kinds=st.lists(st.integers(0, 6), min_size=128, max_size=128),
    epsilon=st.sampled_from(["1/16", "2/16"]),
    index=st.integers(-1, 498),
)
def test_any_images_come_back_bit_by_bit(
    bits: list[int],
    kinds: list[int],
    epsilon: str,
    index: int,
    run: Run,
    digits: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Borders, clean values, steps from them and any other float32 in [0, 1], in any mixture."""
    indices = [index, index + 1]
    known = [max(one, 0) for one in indices]
    clean = digits.take(known).reshape(2, 64)
    radius = parse_epsilon(epsilon)
    lower, upper = attack_values.borders(clean, radius)
    step = attack_values.step_length(radius, 0.1)
    values = np.array(bits, dtype=np.uint32).view(np.float32).reshape(2, 64)
    for kind, other in enumerate(
        [lower, upper, clean, np.minimum(lower + step, 1), np.minimum(clean + step, upper)], 1
    ):
        values = np.where(np.array(kinds).reshape(2, 64) == kind, other, values)
    values[0, 0] = -0.0  # equal to 0, and other bits
    table = _table(indices, epsilon)
    images = values.astype(np.float32).reshape(2, *SHAPE)
    folder = tmp_path_factory.mktemp("coded")
    found = _back(encode(images, table[table["image"] >= 0], run, digits), folder, digits)
    assert found.tobytes() == images.tobytes()


def test_no_images_at_all(run: Run, digits: Dataset, tmp_path: Path) -> None:
    content = encode(np.array([], dtype=np.float32), _table([], "1/16"), run, digits)
    assert _back(content, tmp_path, digits).shape == (0, *SHAPE)
    assert count_images(tmp_path / "a.npz") == 0


@pytest.mark.parametrize("restarts", [1, 3])
def test_what_pgd_leaves_is_nearly_all_codes(
    restarts: int, run: Run, digits: Dataset, tmp_path: Path
) -> None:
    """The start is found among the random numbers of the run, whatever the restart and the seat."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    attack = PGD(steps=3, restarts=restarts)
    indices = list(range(20, 60))
    x = torch.from_numpy(digits.take(indices))
    with torch.no_grad():
        labels = model(x).argmax(dim=1)
    seed = derive_seed(run.seed, "digits", "pgd50:2/16", 0)
    seats = Seats(300, torch.arange(100, 100 + len(indices)))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(restarts):  # the last one is taken
        noise = seats.draw(lambda shape: torch.rand(shape, generator=generator), SHAPE) * 2 - 1
    _, images, _ = attack._one_restart(model, x, labels, noise, Fraction("2/16"))
    coded = code(images.numpy(), _table(indices, "2/16"), run, digits)
    assert coded.decode(digits).tobytes() == images.numpy().tobytes()
    has_start = coded.rows[:, 3] >= 0
    assert has_start.mean() > 0.9
    assert (coded.codes[has_start] == attack_values.EXCEPTION).mean() < 0.01


def test_borders_and_centre_are_those_of_the_measuring_stick(digits: Dataset) -> None:
    generator = np.random.default_rng(0)
    flat = [digits.images.reshape(len(digits), 64), generator.random((50, 64), dtype=np.float32)]
    flat.append((generator.integers(0, 256, (50, 64)) / np.float32(255)).astype(np.float32))
    for clean in flat:
        for text in ("1/16", "2/255", "8/255", "1/20", "1/3", "1/1"):
            radius, x = parse_epsilon(text), torch.from_numpy(clean)
            lower, upper = attack_values.borders(clean, radius)
            assert lower.tobytes() == threat.project(x - 9, x, radius).numpy().tobytes()
            assert upper.tobytes() == threat.project(x + 9, x, radius).numpy().tobytes()
            low, high = threat.box(x, radius)
            middle = threat.project(((low + high) / 2).clamp(low, high), x, radius)
            found = attack_values.centre(clean, radius)
            assert found.tobytes() == middle.numpy().tobytes()


@given(seed=st.integers(0, 2**31 - 1), num=st.integers(16, 300))
@settings(max_examples=25, deadline=None)
def test_random_numbers_are_those_of_torch(seed: int, num: int) -> None:
    expected = torch.rand(num, generator=torch.Generator().manual_seed(seed)).numpy()
    assert attack_values.draw(seed, num).tobytes() == expected.tobytes()


def test_rows_of_a_stream_are_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attack_values.draw(7, 50 * 6).reshape(50, 6)
    monkeypatch.setattr(attack_values, "_BLOCK", 25)
    rows = np.array([49, 0, 3, 3, 20, 4])
    assert np.array_equal(attack_values.draw_rows(7, rows, 6), whole[rows])


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    content=st.binary(max_size=300),
)
def test_codes_come_back_from_blocks_of_any_shape(
    shape: tuple[int, int, int], content: bytes
) -> None:
    size = shape[0] * shape[1] * shape[2]
    num = len(content) // size
    codes = np.frombuffer(content[: num * size], np.uint8).reshape(num, size)
    blocks, others = pack_codes(codes, shape)
    assert np.array_equal(unpack_codes({"blocks": blocks, "others": others}, num, shape), codes)


def test_a_block_that_reaches_beyond_its_image_is_refused() -> None:
    arrays = {"blocks": pack(bytes([1 + 3])), "others": pack(b"")}
    with pytest.raises(ValueError, match="beyond the border"):
        unpack_codes(arrays, 1, (1, 1, 1))


# ------------------------------------------------------------------- stored files


@pytest.mark.parametrize("name", ["digits-ibp-dense", "digits-adv-mismatch-10x"])
def test_a_stored_result_in_both_layouts(name: str, digits: Dataset, tmp_path: Path) -> None:
    path = RESULT.with_name(f"{name}.json")
    images = load_adversarial(path)
    table, run = read_outcomes(beside(path, "outcomes.parquet"))
    content = encode(images, table, run, digits)
    assert encode(images, table, run, digits) == content
    plain = tmp_path / "plain.npz"
    np.savez_compressed(plain, images=images)
    coded = _written(tmp_path / "coded.npz", content)
    assert len(content) < 0.7 * plain.stat().st_size
    assert is_coded(coded) and not is_coded(plain)
    assert count_images(coded) == count_images(plain) == len(images)
    assert read_adversarial(plain, SHAPE).tobytes() == images.tobytes()
    stored = read_adversarial(coded, SHAPE)
    assert isinstance(stored, CodedImages)
    assert stored.decode(digits).tobytes() == images.tobytes()
    some = np.array([5, 0, 7])
    assert stored.some(some, digits).tobytes() == images[some].tobytes()


# ------------------------------------------------------------------ hostile files


@pytest.fixture
def arrays(run: Run, digits: Dataset) -> dict[str, np.ndarray]:
    table = read_outcomes(beside(RESULT, "outcomes.parquet"))[0]
    content = encode(load_adversarial(RESULT), table, run, digits)
    with np.load(io.BytesIO(content)) as archive:
        return {name: archive[name] for name in archive.files}


def _about(**changes: object) -> object:
    def change(arrays: dict[str, np.ndarray]) -> None:
        about = json.loads(arrays["about"].tobytes()) | changes
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)

    return change


def _cell(column: int, value: int) -> object:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["rows"][3, column] = value

    return change


def _set(name: str, value: np.ndarray) -> object:
    return lambda arrays: arrays.update({name: value})


_BAD = {
    "a bomb": (_set("blocks", pack(bytes(10**7))), "blocks: expected 1184 bytes"),
    "too few codes": (_set("blocks", pack(bytes(64))), "blocks: expected 1184 bytes"),
    "no xz": (_set("blocks", np.zeros(99, np.uint8)), "Input format not supported"),
    "a cut end": (lambda a: a.update(blocks=a["blocks"][:-9]), "blocks: expected 1184 bytes"),
    "more behind": (
        lambda a: a.update(blocks=np.concatenate([a["blocks"], pack(b"more")])),
        "blocks: expected 1184 bytes",
    ),
    "much memory": (
        _set(
            "blocks",
            np.frombuffer(
                lzma.compress(bytes(1184), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]),
                np.uint8,
            ),
        ),
        "Memory usage limit",
    ),
    "no block": (_set("blocks", pack(bytes([81]) * 1184)), "blocks: expected numbers below 81"),
    "more others": (_set("blocks", pack(bytes([80]) * 1184)), "others: expected 4736 bytes"),
    "an unknown code": (
        lambda a: a.update(blocks=pack(bytes([80]) * 1184), others=pack(bytes([200]) * 4736)),
        "codes: expected at most 84",
    ),
    "no other": (
        lambda a: a.update(blocks=pack(bytes([80]) * 1184), others=pack(bytes([1]) * 4736)),
        "others: expected codes from 2 on",
    ),
    "other numbers": (_set("blocks", np.zeros(9, np.float32)), "blocks: expected bytes"),
    "fewer exceptions": (_set("exceptions", pack(b"")), "exceptions: expected"),
    "rows of another kind": (lambda a: a.update(rows=a["rows"].astype(float)), "rows: expected"),
    "a row too few": (lambda a: a.update(rows=a["rows"][:-1]), "rows: expected"),
    "an index": (_cell(0, -2), "rows: index: expected"),
    "a radius": (_cell(1, 2), "rows: radius: expected"),
    "no steps": (_cell(2, 0), "rows: steps: expected"),
    "too many steps": (_cell(2, 21), "rows: steps: expected"),
    "a stream": (_cell(3, 9), "rows: stream: expected"),
    "no row of the stream": (_cell(4, -1), "rows: drawn: expected"),
    "endless numbers": (_cell(4, 2**31 - 1), "rows: drawn: expected at most"),
    "a version": (_about(version=3), "about: version: expected 2"),
    "a shape": (_about(shape=[74, 1, 8, 9]), "about.shape: expected"),
    "a huge shape": (_about(shape=[10**12, 1, 8, 8]), "about.shape: expected"),
    "a negative shape": (_about(shape=[-1, 1, 8, 8]), "about.shape: expected"),
    "a decimal": (_about(epsilons=["0.1", "0.2"]), "expected an exact fraction"),
    "a seed": (_about(seeds=[-1, 5]), "about.seeds: expected"),
    "no step": (_about(step_rate=0.0), "about: step_rate: "),
    "most steps": (_about(most_steps=63), "about: most_steps: expected"),
    "another key": (_about(note="hidden"), "about: note: unknown key"),
    "no JSON": (_set("about", np.zeros(9, np.uint8)), "about: "),
    "a key twice": (
        lambda a: a.update(
            about=np.frombuffer(
                a["about"].tobytes().replace(b"{", b'{"version": 2, ', 1), dtype=np.uint8
            )
        ),
        "about: .*twice",
    ),
    "a long text": (_set("about", np.zeros(10**6, np.uint8)), "about: expected JSON in at most"),
}


@pytest.mark.parametrize("what", _BAD)
def test_what_no_writer_writes_is_refused(
    what: str, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    change, message = _BAD[what]
    change(arrays)  # type: ignore[operator]
    path = tmp_path / "a.adversarial.npz"
    np.savez_compressed(path, **arrays)
    with pytest.raises(ResultError, match=message) as caught:
        read_adversarial(path, SHAPE)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ARRAYS[1:])
def test_a_missing_array_is_named(name: str, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    del arrays[name]
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    with pytest.raises(ResultError, match=f"no array named {name}"):
        read_adversarial(tmp_path / "a.npz", SHAPE)


def test_what_only_the_clean_images_tell(
    arrays: dict[str, np.ndarray], digits: Dataset, tmp_path: Path
) -> None:
    """Other data, an index that they have not, a code that its image has not, other bits."""

    def refused(message: str, **changes: np.ndarray) -> None:
        path = tmp_path / "a.npz"
        np.savez_compressed(path, **{**arrays, **changes})
        with pytest.raises(ResultError, match=message) as caught:
            read_coded(path, SHAPE).decode(digits)
        assert str(path) in caught.value.message

    rows = arrays["rows"].copy()
    rows[0, 0] = 10**6
    refused("a clean image that the data have not", rows=rows)
    rows = arrays["rows"].copy()
    rows[0, 0] = (rows[0, 0] + 1) % 500
    refused("expected images of sha256", rows=rows)
    rows = arrays["rows"].copy()
    rows[0, 0] = -1
    refused("codes: expected codes of the table", rows=rows)
    rows = arrays["rows"].copy()
    rows[:, 2] = 1
    refused("codes: expected codes of the table", rows=rows)
    forged: dict[str, np.ndarray] = dict(arrays)
    _about(fingerprint="ab" * 32)(forged)  # type: ignore[operator]
    refused("name the same data with --data-root", about=forged["about"])


def test_exceptions_outside_of_zero_to_one_are_refused(run: Run, digits: Dataset) -> None:
    images = np.full((1, *SHAPE), 0.3, np.float32)
    images[0, 0, 0, 0] = 1.5
    with pytest.raises(ResultError, match=r"values in \[0, 1\]"):
        encode(images, _table([3], "1/16"), run, digits)
