"""Architectures: published sizes, the model contract, and refused arguments."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from corobench.benchmark.certify import num_hidden_units
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.architectures import (
    ARCHITECTURES,
    Normalize,
    build,
    split_normalize,
)
from corobench.benchmark.submission.contract import find_broken_clauses

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32))
CASES = [(name, shape) for name in ARCHITECTURES for shape in SHAPES]


def _num_weights(model: nn.Module) -> int:
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cnn-small", 214_760),
        ("cnn-large", 2_465_632),
        ("vgg16-bn", 15_302_848),
        ("wrn-28-4", 5_841_840),
        ("resnet18", 11_164_352),
        ("resnet8", 77_360),
        ("cnn5", 9 * 3 * 64 + 16 * 64 * 64 + 16 * 64 * 128 + 128 * 8 * 8 * 512 + 512 * 10),
        ("cnn7", 9 * (3 * 64 + 64 * 64 + 64 * 128 + 2 * 128 * 128) + 128 * 256 * 512 + 512 * 10),
    ],
)
def test_published_number_of_weights(name, expected):
    with torch.device("meta"):
        assert _num_weights(build(name, (3, 32, 32), 10)) == expected


@pytest.mark.parametrize(
    ("name", "millions", "hidden"), [("cnn5", 4.4, 90_624), ("cnn7", 17.2, 229_888)]
)
def test_networks_of_certified_training_have_the_published_size(name, millions, hidden):
    model = build(name, (3, 32, 32), 10).eval()
    num = sum(parameter.numel() for parameter in model.parameters())
    assert round(num / 1e6, 1) == millions
    assert num_hidden_units(model, (3, 32, 32)) == hidden
    norms = [one for one in model if isinstance(one, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert len(norms) == sum(isinstance(one, nn.ReLU) for one in model)


def test_resnet8_stores_as_much_as_the_reference_of_mlperf_tiny():
    """78,666 numbers, means and variances of batch-norms with them; 26 filters by its width."""
    model = build("resnet8", (3, 32, 32), 10)
    statistics = [one for name, one in model.named_buffers() if "running" in name]
    assert sum(one.numel() for one in (*model.parameters(), *statistics)) == 78_666
    wide = build("resnet8", (3, 32, 32), 10, {"width": 1.625})
    assert [len(block.conv1.weight) for block in (wide.stack1, wide.stack2, wide.stack3)] == [
        26,
        52,
        104,
    ]


def test_width_scales_every_hidden_layer():
    model = build("cnn5", (3, 32, 32), 10, {"width": 0.25})
    weights = [one.weight for one in model if isinstance(one, nn.Conv2d | nn.Linear)]
    assert [len(weight) for weight in weights] == [16, 16, 32, 128, 10]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_architecture_keeps_the_contract(name, shape):
    torch.manual_seed(0)
    if min(shape[1:]) < ARCHITECTURES[name].min_size:
        with pytest.raises(SubmissionError, match="expects images of at least 16x16, but found"):
            build(name, shape, 10)
        return
    model = build(name, shape, 7, {"width": 0.25}).eval()
    assert find_broken_clauses(model, torch.rand(3, *shape), 7) == []


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_modules_are_what_certifiers_can_read(name):
    model = build(name, (3, 32, 32), 10, {"width": 0.1, "mean": [0.5] * 3, "std": [0.2] * 3})
    for module in model.modules():
        assert not getattr(module, "inplace", False)
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert relus
    traced = torch.jit.trace(model.eval(), torch.rand(2, 3, 32, 32))
    x = torch.rand(5, 3, 32, 32)
    assert torch.allclose(traced(x), model(x), atol=1e-5)


def test_normalisation_comes_first_and_can_be_split_off():
    arguments = {"width": 0.1, "mean": [0.25], "std": [0.5]}
    model = build("resnet18", (1, 8, 8), 10, arguments).eval()
    normalize, network = split_normalize(model)
    assert isinstance(normalize, Normalize)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x), network((x - 0.25) / 0.5))
    assert {"normalize.mean", "normalize.std"} <= set(model.state_dict())
    plain = build("cnn-small", (1, 8, 8), 10)
    assert split_normalize(plain) == (None, plain)


def test_width_scales_hidden_channels_only():
    layers = [m for m in build("cnn-small", (1, 8, 8), 10, {"width": 0.25}) if hasattr(m, "weight")]
    assert [tuple(layer.weight.shape) for layer in layers] == [
        (4, 1, 4, 4),
        (8, 4, 4, 4),
        (25, 32),
        (10, 25),
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet-18", {}, "unknown architecture 'resnet-18': did you mean 'resnet18'"),
        ("cnn-small", {"widht": 1}, "unknown argument 'widht' .* did you mean 'width'"),
        ("cnn-small", {"width": 0}, "`width`: expected a number above 0 .* but found 0"),
        ("cnn-small", {"width": 9.0}, "`width`: expected .* at most 4, but found 9.0"),
        ("cnn-small", {"width": True}, "`width`: expected a number"),
        ("cnn-small", {"width": float("nan")}, "`width`: expected a number"),
        ("cnn-small", {"width": "1"}, "`width`: expected a number"),
        ("cnn-small", {"mean": [0.5]}, "`mean` needs `std`"),
        ("cnn-small", {"mean": [0.5] * 3, "std": [1.0]}, "`mean`: expected a list of 1 finite"),
        ("cnn-small", {"mean": [0.5], "std": [0.0]}, "`std`: expected numbers of at least"),
        ("cnn-small", {"mean": [float("inf")], "std": [1.0]}, "`mean`: expected a list of 1 fin"),
        ("cnn-small", {"mean": "5", "std": [1.0]}, "`mean`: expected a list of 1 finite"),
        ("cnn-small", {"mean": [1e9], "std": [1.0]}, "`mean`: expected at most 1000 in size"),
    ],
)
def test_refused_arguments(name, arguments, message):
    with pytest.raises(SubmissionError, match=message):
        build(name, (1, 8, 8), 10, arguments)


def test_all_faults_at_once():
    with pytest.raises(SubmissionError) as caught:
        build("vgg16-bn", (1, 8, 8), 1, {"width": -1, "depth": 3})
    assert len(caught.value.faults) == 4


def test_public_resnet18_checkpoint_fits_bit_for_bit():
    folder = Path(importlib.util.find_spec("pyautoattack").submodule_search_locations[0])
    folder = folder / "examples"
    if not (folder / "model_test.pt").is_file():
        pytest.skip("this release of pyautoattack has no example model")
    spec = importlib.util.spec_from_file_location("pyautoattack_resnet", folder / "resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs, ours = module.ResNet18(), build("resnet18", (3, 32, 32), 10)
    state = torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True)
    theirs.load_state_dict(state)
    ours.load_state_dict(state)
    x = torch.from_numpy(np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32))
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_the_names_that_need_no_torch_are_those_of_the_architectures() -> None:
    from corobench.benchmark.submission.architecture_names import NAMES
    from corobench.benchmark.submission.architectures import ARCHITECTURES

    assert sorted(ARCHITECTURES) == list(NAMES)


def test_a_header_check_knows_architectures(tmp_path: Path) -> None:
    from corobench.benchmark.submission.headers import find_header_faults

    source = Path(__file__).parents[3] / "submissions" / "digits-adv-dense"
    folder = tmp_path / "digits-adv-dense"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert find_header_faults(folder) == []
    manifest = folder / "submission.toml"
    manifest.write_text(manifest.read_text().replace('"cnn-small"', '"cnn-smal"'))
    (fault,) = find_header_faults(folder)
    assert "`model.architecture`" in fault and "cnn-small" in fault
