"""Files that hold no weights that are read here: named for what they are, with the way out."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from submission_factory import make_state

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.checkpoint import read_checkpoint
from corobench.benchmark.submission.importing import import_checkpoint
from corobench.benchmark.submission.strangers import shard, stranger

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def _zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    return stream.getvalue()


def _arrays(save: object) -> bytes:
    stream = io.BytesIO()
    save(stream, np.zeros(3))  # type: ignore[operator]
    return stream.getvalue()


FILES = {
    "pointer": (POINTER, "git lfs pull"),
    "empty": (b"", "is empty"),
    "page": (b"\n<!DOCTYPE html><html>log in</html>", "web page"),
    "gzip": (gzip.compress(b"x" * 900), "unpack it"),
    "npy": (_arrays(np.save), "torch.as_tensor"),
    "npz": (_arrays(np.savez), "torch.as_tensor"),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(600), "export the network to ONNX"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(600), "export the network to ONNX"),
    "ort": (b"\x18\0\0\0ORTM" + bytes(600), "the ONNX file that it was made of"),
    "xml": (b"<?xml version='1.0'?><net/>", "export the network to ONNX"),
    "keras": (_zip({"config.json": b"", "model.weights.h5": b""}), "export the network to ONNX"),
    "zip": (_zip({"model.pt": b"x"}), "unpack it"),
    "tar": (_tar(), "unpack it"),
    "index": (json.dumps({"weight_map": {"0.weight": "a"}}).encode(), "merge the parts"),
    "json": (b'{"config": 1}', "name the file of weights"),
}


@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".safetensors"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_named_for_what_it_is(
    tmp_path: Path, name: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, way = FILES[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert way in stranger(path)
    with pytest.raises(SubmissionError):
        read_checkpoint(path)
    arguments = ["import", str(path), "--track", "digits", "--out", str(tmp_path / "out")]
    assert invoke(arguments) == 2
    said = capsys.readouterr().err
    assert way in " ".join(said.split()) and str(path) in said and "run code" not in said


def test_files_that_are_read_are_no_strangers(tmp_path: Path) -> None:
    state = make_state()
    torch.save(state, tmp_path / "new.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "own.safetensors")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x09" + bytes(20))
    for name in ("new.pt", "old.pt", "own.safetensors", "net.onnx"):
        assert stranger(tmp_path / name) == ""


def test_folders_say_which_file_to_name(tmp_path: Path) -> None:
    assert stranger(tmp_path / "nothing.pt") == "expected a file, but there is none"
    assert stranger(tmp_path) == "is a folder; name a file"
    (tmp_path / "weights.pth").touch()
    assert stranger(tmp_path).endswith("such as weights.pth")
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    assert "merge the parts" in stranger(tmp_path)
    (tmp_path / ".metadata").touch()
    assert "dcp_to_torch_save" in stranger(tmp_path)
    (tmp_path / "submission.toml").touch()
    assert "corobench validate" in stranger(tmp_path)


def bring(path: Path) -> None:
    """Import a file into a folder beside it."""
    out, arguments = path.parent / "out", {"width": 0.1}
    import_checkpoint(path, out, architecture="cnn-small", track="digits", arguments=arguments)


def test_one_file_of_several_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file({"0.weight": make_state()["0.weight"]}, path)
    assert shard(path).startswith("it is one of 2 files")
    with pytest.raises(SubmissionError, match=r"missing from the checkpoint.*one of 2 files"):
        bring(path)


@pytest.mark.parametrize(
    ("dtype", "value", "fault"),
    [
        (torch.float16, float("inf"), "expected finite values that float32 holds"),
        (torch.float32, float("nan"), "expected finite values that float32 holds"),
        (torch.int8, 1, "import the weights as real numbers"),
    ],
)
def test_values_that_are_no_weights_name_the_file(
    tmp_path: Path, dtype: torch.dtype, value: float, fault: str
) -> None:
    state = make_state()
    state["5.weight"] = torch.full_like(state["5.weight"], value, dtype=dtype)
    path = tmp_path / "model.pt"
    torch.save(state, path)
    with pytest.raises(SubmissionError, match=fault) as info:
        bring(path)
    assert info.value.path == str(path) and "`5.weight`" in str(info.value)


def test_arrays_of_numpy_in_a_checkpoint_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({name: one.numpy() for name, one in make_state().items()}, path)
    with pytest.raises(SubmissionError, match=r"become tensors by torch\.as_tensor"):
        read_checkpoint(path)
