"""The packed format as anybody reads it: committed vectors, and one file that needs only numpy."""

from __future__ import annotations

import ast
import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import packed_vectors
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import corobench
from corobench.benchmark.submission.files import FileFaultError
from corobench.benchmark.submission.packed import pack
from corobench.benchmark.submission.weights import read_tensors
from corobench.packed_reader import PackedFileError, load_packed

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "docs" / "packed-vectors.json").read_text(encoding="utf-8"))
READER = ROOT / "corobench" / "packed_reader.py"


def test_the_committed_vectors_are_those_that_are_built_by_hand() -> None:
    assert json.loads(packed_vectors.as_json()) == VECTORS


@pytest.mark.parametrize("vector", VECTORS["works"], ids=lambda one: one["name"])
def test_a_vector_gives_its_tensors(vector: dict[str, object]) -> None:
    content = base64.b64decode(str(vector["file"]))
    found, ours = load_packed(content), read_tensors(content)
    wanted = dict(vector["tensors"])  # type: ignore[call-overload]
    assert sorted(found) == list(found) == sorted(ours) == sorted(wanted)
    for name, tensor in wanted.items():
        data, shape = bytes.fromhex(tensor["bytes"]), tuple(tensor["shape"])
        assert found[name].shape == tuple(ours[name].shape) == shape
        assert ours[name].reshape(-1).view(torch.uint8).numpy().tobytes() == data
        if tensor["dtype"] == "BF16":
            data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
        assert found[name].tobytes() == data
        assert found[name].flags.writeable


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda one: one["name"])
def test_a_damaged_vector_is_refused_by_both_readers(vector: dict[str, object]) -> None:
    content = base64.b64decode(str(vector["file"]))
    with pytest.raises(PackedFileError):
        load_packed(content)
    if vector["name"] == "no version":  # an ordinary file of that format, for the other reader
        return
    with pytest.raises(FileFaultError):
        read_tensors(content)


def test_what_we_write_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {"a.weight": torch.randn(7, 5) * (torch.rand(7, 5) < 0.3), "a.bias": torch.randn(7)}
    path = tmp_path / "model.packed.safetensors"
    path.write_bytes(pack(state))
    found = corobench.load_packed(path)
    assert list(found) == ["a.bias", "a.weight"]
    assert all((found[name] == state[name].numpy()).all() for name in state)
    assert found["a.weight"].dtype == np.float32
    with pytest.raises(PackedFileError, match="has more than 50 bytes"):
        load_packed(path, max_bytes=50)
    with pytest.raises(PackedFileError, match="once unpacked"):
        load_packed(path.read_bytes(), max_bytes=200)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(base64.b64decode(VECTORS["works"][5]["file"]))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = load_packed(bytes(content), max_bytes=10_000)
    except PackedFileError:
        return
    assert sum(array.nbytes for array in found.values()) <= 20_000


def test_the_reader_is_one_file_that_needs_numpy_alone(tmp_path: Path) -> None:
    """Copied away, it works where nothing of corobench can be imported."""
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(READER.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert modules - set(sys.stdlib_module_names) == {"numpy"}
    (tmp_path / "their_reader.py").write_bytes(READER.read_bytes())
    script = (
        "import sys; sys.modules['corobench'] = None\n"
        "import base64, their_reader\n"
        f"print(their_reader.load_packed(base64.b64decode({VECTORS['works'][0]['file']!r}))['w'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[[", "0.", "1.5", "0.", "]", "[", "0.", "0.", "-2.", "]]"]


def test_plain_tensors_of_any_type_are_read_or_named() -> None:
    from safetensors.torch import save

    values = torch.tensor([1.0, -2.0, 0.5])
    metadata = {"format": "corobench-packed-1", "shapes": "{}"}
    for dtype in (torch.complex64, torch.uint16, torch.int8, torch.bool, torch.float64):
        tensor = values.abs().to(dtype)
        found = load_packed(save({"x": tensor}, metadata=metadata))["x"]
        assert found.tolist() == tensor.tolist()
    for dtype, name in ((torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2")):
        with pytest.raises(PackedFileError, match=f"`x`: numpy has no type for '{name}'"):
            load_packed(save({"x": values.to(dtype)}, metadata=metadata))
