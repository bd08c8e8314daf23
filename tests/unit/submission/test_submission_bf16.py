"""`corobench convert --bf16`: weights of half the bytes, in an entry that computes in float32."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from submission_factory import make_folder, make_state

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import OutputError, SubmissionError
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.converting import to_onnx
from corobench.benchmark.submission.converting_bf16 import to_bf16
from corobench.benchmark.submission.validate import validate


def test_matrices_are_rounded_to_nearest_and_nothing_else_changes(tmp_path):
    folder = make_folder(tmp_path)
    made = to_bf16(folder, tmp_path / "half")
    assert validate([made.folder]) == [(made.folder, [])]
    stored = load_file(made.folder / "model.safetensors")
    before = load_submission(folder).model.state_dict()
    after = load_submission(made.folder).model.state_dict()
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        if tensor.ndim > 1:
            assert stored[name].dtype == torch.bfloat16
            # Rounding to 8 significant bits moves a value by at most 2**-9 of a power of two.
            assert bool(((after[name] - tensor).abs() <= tensor.abs() * 2.0**-8).all())
            assert not torch.equal(after[name], tensor)
            assert bool((after[name] == 0)[tensor == 0].all())
        else:
            assert torch.equal(after[name], tensor)
    assert made.difference == 0.0
    assert "logits move by up to" in str(made)


def test_it_is_an_entry_of_its_own_and_weighs_less(tmp_path):
    torch.manual_seed(0)
    wide = build("cnn-small", (1, 8, 8), 10, {}).state_dict()
    folder = make_folder(tmp_path, wide, model={"arguments": {"width": 1.0}})
    made = load_submission(to_bf16(folder, tmp_path / "half").folder)
    source = load_submission(folder)
    assert (made.manifest.id, made.manifest.parent) == ("half", "entry")
    assert made.manifest.title == f"{source.manifest.title}, bf16"
    assert made.manifest.method.name == f"{source.manifest.method.name}, bf16"
    assert "bfloat16 version of entry" in made.manifest.description
    assert made.weights_sha256 != source.weights_sha256
    old, new = source.measure(), made.measure()
    assert new.bytes_packed == old.bytes_packed  # counted at 4 bytes a value
    assert new.bytes_stored < 0.8 * old.bytes_stored
    size = (made.folder / "model.safetensors").stat().st_size
    assert size < 0.6 * (folder / "model.safetensors").stat().st_size


def test_the_command_and_what_it_refuses(tmp_path, capsys):
    folder, out = make_folder(tmp_path), tmp_path / "half"
    assert invoke(["convert", str(folder), "--bf16", "--out", str(out)]) == 0
    assert "not zero" in capsys.readouterr().out
    assert invoke(["convert", str(out), "--bf16", "--out", str(tmp_path / "again")]) == 2
    assert "bfloat16 values already" in capsys.readouterr().err
    both = ["convert", str(folder), "--bf16", "--int8", "--out", str(tmp_path / "both")]
    assert invoke(both) == 2
    assert "expected only one of them" in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "half"]
    with pytest.raises(OutputError, match="already exists"):
        to_bf16(folder, out)


def test_a_weight_beyond_the_type_is_named(tmp_path):
    state = make_state()
    name = next(name for name, tensor in state.items() if tensor.ndim > 1)
    state[name].view(-1)[0] = 3.4e38  # rounds up to infinity
    with pytest.raises(SubmissionError, match=f"{name}: expected values that bfloat16 holds"):
        to_bf16(make_folder(tmp_path, state), tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_an_onnx_file_is_told_the_way(tmp_path):
    graph = to_onnx(make_folder(tmp_path), tmp_path / "graph")
    with pytest.raises(SubmissionError, match="convert --architecture NAME"):
        to_bf16(graph.folder, tmp_path / "half")
