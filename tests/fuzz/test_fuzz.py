"""Files from strangers, damaged in every way: an error of the family, or a valid record.

No traceback, no hang, and nothing written. ``pytest tests/fuzz -m slow`` runs 3000 cases of each
reader; the default suite a few dozen.
"""

from __future__ import annotations

import copy
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "submission"))

from submission_factory import TABLE, make_folder, make_state

from corobench.benchmark.data import load_test
from corobench.benchmark.errors import ResultError, SubmissionError
from corobench.benchmark.evaluation.evidence import load_adversarial, read_arrays
from corobench.benchmark.records.image_coding import encode
from corobench.benchmark.records.reading.coded_images import CodedImages, read_adversarial
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.manifest import format_manifest, parse_manifest
from corobench.benchmark.submission.packed import pack
from corobench.leaderboard.discovery import Candidate
from corobench.leaderboard.loading import read_candidate

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "leaderboard" / "results" / "1.0" / "digits" / "digits-ibp-lwm-10x.json"

#: Values that readers have tripped over elsewhere.
HOSTILE: list[object] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, float("nan"),
    float("inf"), "", "\0", "../x", "/etc/passwd", "<script>", "\ud800", "9" * 400, [], {}, [[]],
    [2**62, 4], [0, -4], [-1], [1e9], {"a": {"a": {}}}, "javascript:alert(1)", "F32", "F64", "BOOL",
]  # fmt: skip

_edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["replace", "insert", "delete", "double", "cut"]),
        st.binary(min_size=1, max_size=9),
        st.integers(1, 64),
    ),
    min_size=1,
    max_size=6,
)


def _damage(content: bytes, edits: list[tuple[float, str, bytes, int]]) -> bytes:
    """A file with bytes replaced, inserted, removed, doubled, or its end cut off."""
    for place, kind, new, length in edits:
        at = int(place * len(content))
        if kind == "replace":
            content = content[:at] + new + content[at + len(new) :]
        elif kind == "insert":
            content = content[:at] + new + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + length :]
        elif kind == "double":
            content = content[:at] + content[at : at + length] * 2 + content[at + length :]
        else:
            content = content[: max(at, len(content) - length)]
    return content


@st.composite
def _tables(draw: st.DrawFn, table: object) -> object:
    """A JSON value with some of its parts replaced, removed or renamed."""
    value = json.loads(json.dumps(table))
    for _ in range(draw(st.integers(1, 4))):
        here = value
        for _ in range(draw(st.integers(0, 5))):
            inner = [
                part
                for part in (here.values() if isinstance(here, dict) else here)
                if isinstance(part, dict | list) and part
            ]
            if not inner:
                break
            here = draw(st.sampled_from(inner))
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            continue
        key = draw(st.sampled_from(keys))
        what = draw(st.sampled_from(["value", "value", "remove", "rename"]))
        if what == "value":
            here[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
        elif what == "remove":
            here.pop(key)
        elif isinstance(here, dict):
            here[draw(st.sampled_from(["", "__metadata__", "é\0", "x" * 300]))] = here.pop(key)
    return value


def _json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


class _Target:
    """One reader: how its file is damaged, and how it is read.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    cases: st.SearchStrategy[bytes]

    def read(self, content: bytes) -> None:
        raise NotImplementedError


class _Manifest(_Target):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        valid = format_manifest(parse_manifest(_toml(TABLE)))
        self.cases = st.one_of(
            _edits.map(lambda edits: _damage(valid, edits)),
            _tables(TABLE).map(_toml),
        )

    def read(self, content: bytes) -> None:
        try:
            parse_manifest(content)
        except SubmissionError as error:
            assert error.faults


def _toml(table: object) -> bytes:
    """A table as TOML; what TOML cannot say becomes text that is none."""
    import tomli_w

    try:
        return tomli_w.dumps(_without_none(table)).encode("utf-8", "surrogatepass")
    except (TypeError, AttributeError, ValueError):
        return repr(table).encode("utf-8", "surrogatepass")


def _without_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return value


class _Folder(_Target):
    """Files of a submission that only its loader knows how to read."""

    name = "model.safetensors"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entry = make_folder(folder)
        self.valid = self.make()
        self.cases = _edits.map(lambda edits: _damage(self.valid, edits))

    def make(self) -> bytes:
        return (self.entry / self.name).read_bytes()

    def read(self, content: bytes) -> None:
        (self.entry / self.name).write_bytes(content)
        try:
            loaded = load_submission(self.entry)
        except SubmissionError as error:
            assert error.faults
        else:
            assert not loaded.model.training


class _Safetensors(_Folder):
    """The header's fields are replaced, too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        size = int.from_bytes(self.valid[:8], "little")
        header, values = json.loads(self.valid[8 : 8 + size]), self.valid[8 + size :]

        def whole(table: object) -> bytes:
            text = _json(table)
            return len(text).to_bytes(8, "little") + text + values

        self.cases = st.one_of(self.cases, _tables(header).map(whole))


class _Packed(_Safetensors):
    name = "model.packed.safetensors"

    def make(self) -> bytes:
        (self.entry / "model.safetensors").unlink()
        state = make_state()
        for tensor in state.values():
            tensor.view(-1)[::2] = 0
        return pack(state)


class _Onnx(_Folder):
    name = "model.onnx"

    def make(self) -> bytes:
        from corobench.benchmark.submission.architectures import build
        from corobench.benchmark.submission.graph.exporting import export

        shutil.rmtree(self.entry)
        model = {"architecture": None, "arguments": None, "weights": self.name}
        make_folder(self.folder, model=model)
        (self.entry / "model.safetensors").unlink()
        return export(build("cnn-small", (1, 8, 8), 10, {"width": 0.1}).eval(), (1, 8, 8))


class _Result(_Target):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        content = RESULT.read_bytes()
        self.cases = st.one_of(
            _edits.map(lambda edits: _damage(content, edits)),
            _tables(json.loads(content)).map(_json),
        )

    def read(self, content: bytes) -> None:
        path = self.folder / "result.json"
        path.write_bytes(content)
        for reader in (
            read_result,
            lambda path: read_candidate(Candidate(path, named=True)),
        ):
            try:
                reader(path)
            except ResultError as error:
                assert str(path) in str(error)


class _Outcomes(_Target):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        content = beside(RESULT, "outcomes.parquet").read_bytes()
        self.cases = _edits.map(lambda edits: _damage(content, edits))

    def read(self, content: bytes) -> None:
        from corobench.benchmark.scoring.score import score

        path = self.folder / "table.outcomes.parquet"
        path.write_bytes(content)
        try:
            score(*read_outcomes(path))
        except ResultError as error:
            assert str(error)


class _Npz(_Target):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=np.zeros((3, 1, 8, 8), dtype=np.float32))
        content = buffer.getvalue()
        self.cases = _edits.map(lambda edits: _damage(content, edits))

    def read(self, content: bytes) -> None:
        path = self.folder / "images.npz"
        path.write_bytes(content)
        try:
            read_arrays(path, ("images",))
        except ResultError as error:
            assert str(path) in str(error)


class _Coded(_Target):
    """A file of coded images, damaged as a whole and within what its arrays pack."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        table, run = read_outcomes(beside(RESULT, "outcomes.parquet"))
        self.clean = load_test("digits")
        content = encode(load_adversarial(RESULT), table, run, self.clean)
        with np.load(io.BytesIO(content)) as archive:
            arrays = {name: archive[name] for name in archive.files}

        def within(name: str, edits: list[tuple[float, str, bytes, int]]) -> bytes:
            flat = _damage(arrays[name].tobytes(), edits)
            size = len(flat) - len(flat) % arrays[name].itemsize
            damaged = np.frombuffer(flat[:size], arrays[name].dtype)
            if damaged.size == arrays[name].size:
                damaged = damaged.reshape(arrays[name].shape)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{**arrays, name: damaged})
            return buffer.getvalue()

        whole = _edits.map(lambda edits: _damage(content, edits))
        self.cases = whole | st.builds(within, st.sampled_from(sorted(arrays)), _edits)

    def read(self, content: bytes) -> None:
        path = self.folder / "coded.npz"
        path.write_bytes(content)
        try:
            stored = read_adversarial(path, (1, 8, 8))
            if isinstance(stored, CodedImages):
                stored.decode(self.clean)
        except ResultError as error:
            assert str(path) in str(error)


TARGETS: dict[str, Callable[[Path], _Target]] = {
    "manifest": _Manifest,
    "safetensors": _Safetensors,
    "packed safetensors": _Packed,
    "onnx": _Onnx,
    "result": _Result,
    "outcomes": _Outcomes,
    "npz": _Npz,
    "coded images": _Coded,
}


def _fuzz(name: str, folder: Path, num_cases: int) -> None:
    beside = folder / "beside"
    work = folder / "work"
    beside.mkdir()
    work.mkdir()
    target = TARGETS[name](work)

    @settings(
        max_examples=num_cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def run(content: bytes) -> None:
        target.read(content)

    run()
    before = {"beside", "work"}
    assert {path.name for path in folder.iterdir()} == before
    assert not list(beside.iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_one_error(name: str, tmp_path: Path) -> None:
    _fuzz(name, tmp_path, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_damaged_files_are_errors(name: str, tmp_path: Path) -> None:
    _fuzz(name, tmp_path, 3000)
