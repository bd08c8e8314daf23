"""`corobench import`: public layouts of checkpoints, refused pickles, and the self-check."""

from __future__ import annotations

import importlib.util
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from submission_factory import make_state
from torch import nn
from torch.nn.utils import prune

from corobench.benchmark.errors import ConfigError, OutputError, SubmissionError
from corobench.benchmark.submission import (
    effective_sha256,
    import_checkpoint,
    load_manifest,
    load_submission,
)
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.validate import validate

ARGUMENTS = {"width": 0.1}


def _import(path, out, **over):
    options = {"architecture": "cnn-small", "track": "digits", "arguments": ARGUMENTS, **over}
    return import_checkpoint(path, out, **options)


def _save(tmp_path, content, name="model.pt"):
    path = tmp_path / name
    torch.save(content, path)
    return path


def _prefixed(prefix):
    return {prefix + name: tensor for name, tensor in make_state().items()}


LAYOUTS = {
    "plain": make_state(),
    "state_dict": {"state_dict": make_state(), "epoch": 3, "best": 0.5},
    "model": {"model": make_state()},
    "model_state_dict": {"model_state_dict": make_state(), "optimizer": {"lr": [0.1]}},
    "net": {"net": make_state()},
    "module.": _prefixed("module."),
    "module.model.": {"state_dict": _prefixed("module.model.")},
    "1.": _prefixed("1."),
    "module.1.": _prefixed("module.1."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_public_layouts(tmp_path, layout):
    out = tmp_path / "new-entry"
    report = _import(_save(tmp_path, LAYOUTS[layout], "model.pth.tar"), out)
    assert report.weights_sha256 == effective_sha256(make_state())
    assert report.max_difference == 0.0
    assert report.folder == out
    assert validate([out]) == [(out, [])]
    assert load_manifest(out).id == "new-entry"
    assert report.prefix == (layout if layout.endswith(".") else "")
    assert "self-check" in str(report)


def test_of_several_state_dicts_one_is_named(tmp_path):
    other = {name: tensor + 1.0 for name, tensor in make_state().items()}
    path = _save(tmp_path, {"last": other, "best": make_state(), "epoch": 3})
    with pytest.raises(
        SubmissionError, match=r"which one with --state-key: (last, best|best, last)$"
    ):
        _import(path, tmp_path / "out")
    with pytest.raises(SubmissionError, match=r"under 'epoch' \(--state-key\), but found the keys"):
        _import(path, tmp_path / "out", state_key="epoch")
    for key, state in (("last", other), ("best", make_state())):
        report = _import(path, tmp_path / key, state_key=key)
        assert report.weights_sha256 == effective_sha256(state)
    lone = _save(tmp_path, {"ema": make_state(), "epoch": 3})
    assert _import(lone, tmp_path / "ema").weights_sha256 == effective_sha256(make_state())


def test_a_layer_without_a_bias_gets_zeros(tmp_path):
    state = make_state()
    zeros = state | {"7.bias": torch.zeros(10)}
    del state["7.bias"]
    report = _import(_save(tmp_path, state), tmp_path / "out")
    assert report.weights_sha256 == effective_sha256(zeros)
    assert "no bias in the checkpoint, so it is zero: 7.bias" in str(report)


def test_wide_residual_networks_of_the_adversarial_training_line(tmp_path):
    """TRADES, HYDRA and what RobustBench took from them register a block that nothing calls."""
    torch.manual_seed(0)
    arguments = {"width": 0.25}
    state = build("wrn-28-4", (3, 32, 32), 10, arguments).state_dict()
    unused = {
        name.replace("block1.", "sub_block1.", 1): torch.rand_like(tensor.float())
        for name, tensor in state.items()
        if name.startswith("block1.")
    }
    wrapped = {f"module.{name}": tensor for name, tensor in (state | unused).items()}
    report = import_checkpoint(
        _save(tmp_path, {"state_dict": wrapped}),
        tmp_path / "out",
        architecture="wrn-28-4",
        track="cifar10",
        arguments=arguments,
    )
    assert report.weights_sha256 == effective_sha256(state)
    assert "left out, because no code calls them: " in str(report)
    # An unknown block of any other name is a fault as ever.
    stray = state | {"sub_block2.layer.0.conv1.weight": torch.zeros(1)}
    with pytest.raises(SubmissionError, match="unknown to the architecture: sub_block2"):
        import_checkpoint(
            _save(tmp_path, stray, "stray.pt"),
            tmp_path / "stray",
            architecture="wrn-28-4",
            track="cifar10",
            arguments=arguments,
        )


def test_the_stem_of_a_wider_network_stays_as_it_is():
    """WRN-28-10 has 16 channels in its stem like WRN-28-4."""
    network = build("wrn-28-4", (3, 32, 32), 10, {"width": 2.5})
    assert network.conv1.out_channels == 16 and network.fc.in_features == 640
    assert sum(p.numel() for p in network.parameters()) == 36_479_194


def test_safetensors_and_half_precision(tmp_path):
    path = tmp_path / "m.safetensors"
    state = {name: tensor.half() for name, tensor in make_state().items()}
    safetensors.torch.save_file(state, path)
    assert _import(path, tmp_path / "out").weights_sha256 == effective_sha256(state)


def test_numbers_of_the_manifest(tmp_path):
    state = make_state()
    state["5.weight"].zero_()
    report = _import(
        _save(tmp_path, state),
        tmp_path / "out",
        title="A title",
        authors=("Ada", "Emmy"),
        licence="MIT",
        meta={"method": {"pipeline": "during"}, "training": {"extra_data": True}, "parent": "big"},
    )
    manifest = load_manifest(tmp_path / "out")
    assert (manifest.title, manifest.authors, manifest.licence) == (
        "A title",
        ("Ada", "Emmy"),
        "MIT",
    )
    assert (manifest.method.pipeline, manifest.training.extra_data) == ("during", True)
    assert manifest.parent == "big"
    assert manifest.sparsity == pytest.approx(report.sparsity, abs=1e-6)
    assert manifest.model.arguments == ARGUMENTS


def test_pruning_masks_are_multiplied_in(tmp_path):
    model = build("cnn-small", (1, 8, 8), 10, ARGUMENTS)
    prune.l1_unstructured(model[5], "weight", amount=0.5)
    report = _import(_save(tmp_path, model.state_dict()), tmp_path / "out", reference=model.eval())
    assert report.is_against_reference
    assert report.max_difference == 0.0
    assert load_submission(tmp_path / "out").sparsity == report.sparsity > 0.1
    assert any("method.pipeline" in note for note in report.notes)


def test_normalisation_in_front(tmp_path):
    arguments = {**ARGUMENTS, "mean": [0.5], "std": [0.25]}
    plain = _import(_save(tmp_path, make_state()), tmp_path / "a", arguments=arguments)
    assert any("normalize.mean" in note for note in plain.notes)

    wrapped = {"0.mean": torch.full((1, 1, 1, 1), 0.5), "0.std": torch.full((1, 1, 1, 1), 0.25)}
    path = _save(tmp_path, wrapped | _prefixed("1."), "w.pt")
    assert _import(path, tmp_path / "b", arguments=arguments).weights_sha256 == plain.weights_sha256
    with pytest.raises(SubmissionError, match=r"give the arguments mean=\[0.5\], std=\[0.25\]"):
        _import(path, tmp_path / "c")
    wrong = {**arguments, "std": [0.5]}
    with pytest.raises(SubmissionError, match=r"`normalize.std`: expected \[0.5\]"):
        _import(path, tmp_path / "c", arguments=wrong)


def test_self_check_refuses_another_model(tmp_path):
    other = build("cnn-small", (1, 8, 8), 10, ARGUMENTS).eval()
    with pytest.raises(SubmissionError, match="self-check: expected the reloaded submission to"):
        _import(_save(tmp_path, make_state()), tmp_path / "out", reference=other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


class _Touch:
    """A pickle that would make a file if it were opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), "refused: it holds more than tensors"),
        ({"state_dict": {"a": 1}}, "expected a state dict .* but found the keys state_dict"),
        ([1, 2], "expected a state dict .* but found list"),
        ({}, "expected a state dict"),
        ({"a": torch.zeros(1)}, r"8 tensor\(s\) missing from the checkpoint: 0.bias, 0.weight"),
        (
            make_state() | {f"x{index:02d}": torch.zeros(1) for index in range(12)},
            r"12 tensor\(s\) unknown to the architecture: .*x09 and 2 more",
        ),
        (make_state() | {"7.bias": torch.zeros(9)}, r"tensor `7.bias`: expected shape \[10\]"),
        (make_state() | {"7.bias": torch.zeros(10).long()}, "expected a floating-point type"),
        (
            make_state() | {"7.bias": torch.full((10,), float("nan"))},
            "expected finite values that float32 holds",
        ),
    ],
)
def test_refused_checkpoints(tmp_path, content, message):
    path = _save(tmp_path, content)
    with pytest.raises(SubmissionError, match=message):
        _import(path, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.pt"]


def test_a_whole_module_is_refused_with_what_it_needs_and_no_advice_to_run_it(tmp_path):
    path = _save(tmp_path, nn.Linear(2, 2))
    with pytest.raises(
        SubmissionError, match=r"it needs torch\.nn\.modules\.linear\.Linear"
    ) as info:
        _import(path, tmp_path / "out")
    assert "weights_only" not in str(info.value) and "\\x1b" not in str(info.value)


def test_no_pickle_is_run(tmp_path):
    path = _save(tmp_path, {"state_dict": _Touch(tmp_path / "touched")})
    with pytest.raises(SubmissionError, match="refused: it holds more than tensors"):
        _import(path, tmp_path / "out")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04nothing", bytes(5000)])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_are_no_checkpoint(tmp_path, content, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(SubmissionError):
        _import(path, tmp_path / "out")


def test_what_a_user_can_do_wrong(tmp_path):
    path = _save(tmp_path, make_state())
    with pytest.raises(SubmissionError, match="expected a file, but there is none"):
        _import(tmp_path / "none.pt", tmp_path / "out")
    with pytest.raises(SubmissionError, match="unknown architecture"):
        _import(path, tmp_path / "out", architecture="cnn")
    with pytest.raises(ConfigError, match="unknown track"):
        _import(path, tmp_path / "out", track="mnist")
    with pytest.raises(SubmissionError, match="`id`: expected at most 80 letters a-z"):
        _import(path, tmp_path / "My Model")
    with pytest.raises(SubmissionError, match="unknown key `methods`: did you mean 'method'"):
        _import(path, tmp_path / "out", meta={"methods": {}})
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="already exists; expected a new folder"):
        _import(path, tmp_path / "out")
    with pytest.raises(OutputError, match="cannot be made"):
        _import(path, path / "out")


def test_public_resnet18(tmp_path):
    folder = Path(importlib.util.find_spec("pyautoattack").submodule_search_locations[0])
    checkpoint = folder / "examples" / "model_test.pt"
    if not checkpoint.is_file():
        pytest.skip("this release of pyautoattack has no example model")
    report = import_checkpoint(
        checkpoint, tmp_path / "resnet18", architecture="resnet18", track="cifar10"
    )
    assert report.max_difference == 0.0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    assert isinstance(state, OrderedDict)
    assert report.weights_sha256 == effective_sha256(state)
