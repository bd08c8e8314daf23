"""Packed weights: the same bits come back, the size is what it should be, bad files are refused."""

from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from submission_factory import make_folder, make_state, raw_safetensors

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import OutputError, SubmissionError
from corobench.benchmark.network.compactness import packed_bytes
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.files import FileFaultError
from corobench.benchmark.submission.packed import FORMAT, pack
from corobench.benchmark.submission.packing import repack
from corobench.benchmark.submission.validate import validate
from corobench.benchmark.submission.weights import read_tensors


def _sparse_state(keep: int = 10) -> dict[str, torch.Tensor]:
    state = make_state()
    for name, tensor in state.items():
        if name.endswith("weight"):
            tensor.view(-1)[torch.arange(tensor.numel()) % keep != 0] = 0.0
    return state


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.dtype == second.dtype and first.numpy().tobytes() == second.numpy().tobytes()


@settings(max_examples=50, deadline=None)
@given(
    shape=st.lists(st.integers(0, 7), max_size=4),
    keep=st.floats(0, 1),
    seed=st.integers(0, 9),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
)
def test_all_bits_come_back(shape, keep, seed, dtype):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape) * (generator.uniform(size=shape) < keep)
    tensor = torch.from_numpy(np.asarray(values)).to(dtype)
    tensor = torch.where(torch.rand_like(tensor) < 0.1, torch.tensor(-0.0, dtype=dtype), tensor)
    (found,) = read_tensors(pack({"a.weight": tensor})).values()
    assert found.shape == tensor.shape
    assert _same_bits(found, tensor)


def test_the_layout_byte_by_byte():
    tensor = torch.zeros(2, 9)
    tensor[0, 0], tensor[1, 8] = 1.5, -2.0  # bits 0 and 17
    content = pack({"w": tensor, "b": torch.ones(2)})
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert header["__metadata__"] == {"format": FORMAT, "shapes": '{"w":[2,9]}'}
    body = content[8 + size :]
    begin, end = header["w#mask"]["data_offsets"]
    assert body[begin:end] == bytes([0b00000001, 0, 0b00000010])
    begin, end = header["w#values"]["data_offsets"]
    assert body[begin:end] == struct.pack("<2f", 1.5, -2.0)
    assert header["b"]["dtype"] == "F32"  # smaller as it is


def test_the_file_is_as_large_as_compactness_says():
    state = _sparse_state()
    values = sum(
        len(tensor.numpy().tobytes()) for tensor in safetensors.torch.load(pack(state)).values()
    )
    assert values == sum(packed_bytes(tensor) for tensor in state.values())


def test_a_folder_is_packed_and_unpacked_in_place(tmp_path, capsys):
    folder = make_folder(tmp_path, _sparse_state(), sparsity=0.9)
    before = load_submission(folder)
    content = (folder / "model.safetensors").read_bytes()
    assert invoke(["pack", str(folder)]) == 0
    assert "equal bit by bit" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.packed.safetensors",
        "submission.toml",
    ]
    after = load_submission(folder)
    assert after.weights_sha256 == before.weights_sha256
    assert validate([folder]) == [(folder, [])]
    assert (folder / "model.packed.safetensors").stat().st_size < len(content)
    assert invoke(["unpack", str(folder)]) == 0
    assert load_submission(folder).weights_sha256 == before.weights_sha256
    assert not (folder / "model.packed.safetensors").exists()


def test_a_packed_file_may_be_named(tmp_path):
    folder = make_folder(tmp_path, model={"weights": "small.packed.safetensors"})
    (folder / "small.packed.safetensors").write_bytes(pack(make_state()))
    (folder / "model.safetensors").unlink()
    assert validate([folder]) == [(folder, [])]


def test_two_weight_files_are_one_too_many(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "model.packed.safetensors").write_bytes(pack(make_state()))
    with pytest.raises(SubmissionError, match="keep one"):
        load_submission(folder)


def test_nothing_is_replaced_or_packed_twice(tmp_path):
    source = tmp_path / "m.safetensors"
    safetensors.torch.save_file(_sparse_state(), source)
    done = repack(source, to_packed=True)
    assert source.exists()
    assert done.target == tmp_path / "m.packed.safetensors"
    with pytest.raises(OutputError, match="already exists"):
        repack(source, to_packed=True)
    with pytest.raises(SubmissionError, match="packed already"):
        repack(done.target, to_packed=True, out=tmp_path / "other")
    assert invoke(["unpack", str(tmp_path / "none.safetensors")]) == 2


def test_negative_zeros_are_kept_and_named(tmp_path):
    source = tmp_path / "m.safetensors"
    tensor = torch.zeros(64)
    tensor[3] = -0.0
    safetensors.torch.save_file({"w": tensor}, source)
    done = repack(source, to_packed=True)
    assert (done.num_kept, done.num_negative_zeros) == (0, 1)
    assert "-0.0" in str(done)


def _packed(mask: bytes, shapes: str, count: int = 1, **over: object) -> bytes:
    end = len(mask) + 4 * count
    header = {
        "__metadata__": {"format": FORMAT, "shapes": shapes},
        "w#values": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]},
        "w#mask": {"dtype": "U8", "shape": [len(mask)], "data_offsets": [4 * count, end]},
    } | over
    return raw_safetensors(header, b"\0\0\x80?" * count + mask)


REFUSED = {
    "too many ones": (_packed(b"\3", '{"w":[8]}'), "as many ones as there are values, 1"),
    "ones behind the end": (_packed(b"\x80", '{"w":[7]}'), "within the first 7 bits"),
    "shape and mask differ": (_packed(b"\1", '{"w":[9]}'), r"expected U8 of shape \[2\]"),
    "a bomb": (_packed(b"\1", '{"w":[70000,70000]}'), "metadata `shapes`"),
    "overflow": (_packed(b"\1", '{"w":[4294967296,4294967296]}'), "metadata `shapes`"),
    "negative": (_packed(b"\1", '{"w":[-8]}'), "metadata `shapes`"),
    "listed twice": (_packed(b"\1", '{"w":[8],"w":[8]}'), "listed twice"),
    "no shapes": (_packed(b"\1", "{}"), "unexpected tensor"),
    "a tensor too few": (_packed(b"\1", '{"w":[8],"v":[8]}'), "missing tensor `v#mask`"),
    "deep": (_packed(b"\1", "[" * 2000), "deeper than"),
    "more values than places": (_packed(b"\1", '{"w":[1]}', 2), "at most 1 values"),
    "another version": (
        _packed(b"\1", '{"w":[8]}', __metadata__={"format": "corobench-packed-2"}),
        "metadata `format`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_files_are_refused(name):
    content, message = REFUSED[name]
    with pytest.raises(FileFaultError, match=message):
        read_tensors(content)


def test_a_good_file_of_that_make_is_read():
    (found,) = read_tensors(_packed(b"\4", '{"w":[8]}')).values()
    assert found.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_a_fault_or_another_tensor(position, byte):
    content = bytearray(pack({"w": torch.arange(40.0) * (torch.arange(40) % 5 == 0)}))
    content[position % len(content)] = byte
    with contextlib.suppress(FileFaultError):
        read_tensors(bytes(content))


def test_equal_weights_give_equal_bytes() -> None:
    state = {"w": torch.tensor([0.0] * 30 + [1.5, -2.0]), "b": torch.ones(3)}
    assert len({pack(state) for _ in range(20)}) == 1  # the library draws an order anew each time
