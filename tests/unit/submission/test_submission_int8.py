"""`corobench convert --int8`: whole numbers that every engine computes alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from int8_reference import codes_of, convert, images_of, logits_in_integers
from submission_factory import make_folder, make_state
from torch import nn

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.architectures.parts import Normalize
from corobench.benchmark.submission.converting_int8 import to_int8
from corobench.benchmark.submission.graph.layers import Quantise
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.graph.writing_qdq import write_qdq
from corobench.benchmark.submission.quantising import EXACT, NotQuantisableError, quantise_network
from corobench.benchmark.submission.validate import validate

ROOT = Path(__file__).parents[3]
ENTRIES = sorted(path.parent for path in ROOT.glob("submissions/*-int8/submission.toml"))
COLOUR = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}


def _network(name: str, shape: tuple[int, int, int], width: float = 0.1, **more) -> nn.Module:
    torch.manual_seed(0)
    network = build(name, shape, 10, {"width": width, **more})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # a trained one has statistics and factors
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval().requires_grad_(False)


CHAINS = {
    "cnn-small": ("cnn-small", (1, 8, 8), {}),
    "cnn-small in colour": ("cnn-small", (3, 16, 16), COLOUR),
    "cnn-large": ("cnn-large", (3, 8, 8), COLOUR),
    "vgg16-bn": ("vgg16-bn", (3, 32, 32), COLOUR),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_torch_the_runtime_and_integers_give_the_same_bits(chain):
    name, shape, more = CHAINS[chain]
    source = _network(name, shape, **more)
    network, content, graph = convert(source, shape)
    x = images_of(shape, num=8)
    found = graph.network(x)
    assert torch.equal(found, Runtime(content, optimise=False)(x))
    assert np.array_equal(found.double().numpy(), logits_in_integers(network, x.numpy()))
    # It is the source's function, but for rounding.
    expected = source(x)
    assert float((found - expected).abs().max()) < 0.1 * float(expected.std())


def test_sums_have_no_order():
    """The claim behind the scheme: terms added in another order give the same float32."""
    _, _, graph = convert(_network("cnn-small", (1, 8, 8), width=1.0), (1, 8, 8))
    layer = next(step for step in graph.network if isinstance(step, nn.Linear))
    x = torch.randint(0, 256, (layer.in_features,)).float() / 256
    terms = layer.weight * x
    order = torch.randperm(terms.shape[1])
    one_by_one = [torch.zeros(len(terms)), torch.zeros(len(terms))]
    for column in range(terms.shape[1]):
        one_by_one[0] += terms[:, column]
        one_by_one[1] += terms[:, order[column]]
    assert torch.equal(one_by_one[0], one_by_one[1])


def test_large_sums_get_a_larger_scale():
    """Weights all alike over 4,000 inputs: 127 * 255 * 4,000 is beyond what float32 counts."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4000, 2))
    nn.init.constant_(model[1].weight, 1.0)
    nn.init.constant_(model[1].bias, 3.0)
    (layer,) = convert(model, (1, 50, 80))[0].layers
    # 1 * 256/255 in steps of 1/16 is 16.06; one of 1/32 would sum up to 32 * 255 * 4,000 > 2^24.
    assert set(layer.codes.ravel()) == {16}
    assert layer.scales.tolist() == [1 / 16, 1 / 16]
    assert layer.bias.tolist() == [3 * 16 * 256] * 2
    assert 16 * 255 * 4000 + 3 * 16 * 256 < EXACT <= 32 * 255 * 4000


def test_zeros_stay_zeros_and_channels_have_scales_of_their_own():
    source = _network("cnn-small", (1, 8, 8), width=0.5)
    with torch.no_grad():
        for layer in (source[0], source[2], source[5]):
            layer.weight[torch.rand_like(layer.weight) < 0.8] = 0.0
    network, _, graph = convert(source, (1, 8, 8))
    stored = [step for step in graph.network if isinstance(step, nn.Conv2d | nn.Linear)]
    for step, layer, before in zip(
        stored, network.layers, (source[0], source[2], source[5], source[7]), strict=True
    ):
        assert not step.weight[before.weight == 0].any()
        assert np.abs(layer.codes).max() <= 127
        assert np.all(np.log2(layer.scales) == np.rint(np.log2(layer.scales)))
    with torch.no_grad():
        source[7].weight[3] *= 1000
        source[7].bias[3] *= 1000
    again = convert(source, (1, 8, 8))[0].layers[-1]
    others = [channel for channel in range(10) if channel != 3]
    assert np.array_equal(again.codes[others], network.layers[-1].codes[others])
    assert np.array_equal(again.scales[others], network.layers[-1].scales[others])
    assert again.scales[3] > network.layers[-1].scales[3] * 500
    # No weight moves by more than half a step of its channel.
    last, weights = network.layers[-1], source[7].weight
    factor = stored[-1].weight[others] / weights[others]
    steps = torch.from_numpy(last.scales[others])[:, None]
    assert float(factor.median()) > 0
    moved = stored[-1].weight[others] - weights[others] * _factor(network, source)
    assert bool((moved.abs() <= 0.5 * steps * 1.0001).all())


def _factor(network, source) -> float:
    """What the last layer's weights were multiplied with: the largest activation over 255/256."""
    largest = float(source[:7](images_of((1, 8, 8))).max())
    bits = 8 - np.frexp(largest)[1]
    return float(np.ceil(largest * 2.0**bits) / 2.0**bits / (255 / 256))


def test_pixels_are_their_own_whole_numbers_and_rounding_is_monotone():
    _, _, graph = convert(_network("cnn-small", (1, 8, 8)), (1, 8, 8))
    first = list(graph.network)[:2]
    assert isinstance(first[1], Quantise)
    pixels = torch.arange(256).reshape(256, 1, 1, 1).float() / 255
    rounded = first[1](first[0](pixels)) * 256
    assert torch.equal(rounded.flatten(), torch.arange(256).float())
    anything = torch.linspace(-0.1, 1.1, 100_001).reshape(-1, 1, 1, 1)
    codes = (first[1](first[0](anything)) * 256).flatten()
    assert bool((codes.diff() >= 0).all()) and codes[0] == 0 and codes[-1] == 255
    assert float((codes / 255 - anything.flatten().clamp(0, 1)).abs().max()) <= 0.5 / 255 + 1e-6


def test_the_ends_of_an_interval_round_to_the_ends_of_what_is_inside():
    steps = np.sort(np.random.default_rng(0).uniform(-0.2, 1.2, 1001))
    codes = codes_of(steps)
    assert codes[0] == codes.min() and codes[-1] == codes.max()
    assert np.array_equal(codes, np.sort(codes))


def test_the_largest_activation_on_the_images_is_the_last_step():
    source = _network("cnn-small", (1, 8, 8), width=0.5)
    _, _, graph = convert(source, (1, 8, 8))
    seen: list[float] = []
    for step in graph.network:
        if isinstance(step, Quantise):
            step.register_forward_hook(lambda _m, _x, out: seen.append(float(out.max()) * 256))
    graph.network(images_of((1, 8, 8)))
    assert seen[0] == 255
    # Rounded up to eight bits, and moved by rounded weights: within some steps of the end.
    assert all(240 <= largest <= 255 for largest in seen[1:])


def test_padded_places_keep_what_they_stand_for():
    """Behind (x - 0.9) / 0.1 a padded 0 stands for the mean, and not for black, which is -9."""
    conv = nn.Conv2d(3, 2, 3, padding=1)
    nn.init.constant_(conv.weight, 1.0)
    nn.init.zeros_(conv.bias)
    last = nn.Linear(2 * 16, 16)
    with torch.no_grad():  # class k shows what the image's place k gives
        last.weight.copy_(torch.cat([torch.eye(16), torch.zeros(16, 16)], dim=1))
    source = nn.Sequential(
        Normalize([0.9] * 3, [0.1] * 3), nn.Sequential(conv, nn.ReLU(), nn.Flatten(), last)
    )
    x = torch.full((1, 3, 4, 4), 1.0)
    x[0, :, 0, 0] = 0.6
    network = quantise_network(source.eval().requires_grad_(False), (3, 4, 4), x)
    assert network.has_ones and network.layers[0].codes.shape == (2, 4, 3, 3)
    found, expected = read_network(write_qdq(network)).network(x), source(x)
    assert float((found - expected).abs().max()) < 0.05 * float(expected.max())


def test_a_mean_needs_no_channel_where_nothing_is_padded():
    torch.manual_seed(0)
    for layers in (
        [nn.Flatten(), nn.Linear(48, 5)],
        [nn.Conv2d(3, 5, 4), nn.Flatten()],
    ):
        source = nn.Sequential(Normalize(*COLOUR.values()), nn.Sequential(*layers)).eval()
        network, _, graph = convert(source.requires_grad_(False), (3, 4, 4))
        assert not network.has_ones
        x = images_of((3, 4, 4))
        expected = source(x)
        assert float((graph.network(x) - expected).abs().max()) < 0.05 * float(expected.std())


def test_the_same_file_every_time_and_in_whatever_order_the_images_come():
    source, shape = _network("cnn-small", (3, 16, 16), **COLOUR), (3, 16, 16)
    images = images_of(shape)
    one, other = (write_qdq(quantise_network(source, shape, x)) for x in (images, images.flip(0)))
    assert one == other
    proto = onnx.load_from_string(one)
    onnx.checker.check_model(proto)
    assert [node.op_type for node in proto.graph.node][:7] == [
        "Pad",
        "Mul",
        "QuantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "Conv",
    ]


class _Branches(nn.Module):
    """Two layers whose outputs are added."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(64, 8), nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.last(torch.relu(self.left(x) + self.right(x)))


class _Switch(nn.Module):
    """A forward pass that asks for values."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.last(x if x.sum() > 0 else -x)


def _then(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (_then(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(72, 10)), "`1` (Sigmoid)"),
        (
            _then(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 10)),
            "`2` (AvgPool2d)",
        ),
        (
            _then(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3), nn.Flatten()),
            "`0` (BatchNorm2d)",
        ),
        (
            _then(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)),
            "`2` (Linear): expected a ReLU between it and `0`",
        ),
        (
            _then(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, groups=2), nn.Flatten()),
            "`2` (Conv2d): has groups",
        ),
        (
            _then(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten()),
            "`0` (Conv2d): has groups or another padding",
        ),
        (
            _then(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(4, ceil_mode=True), nn.Flatten()),
            "`2` (MaxPool2d)",
        ),
        (_then(nn.Flatten(), nn.Linear(64, 10), nn.ReLU()), "which gives the logits"),
        (_then(nn.Flatten()), "which gives the logits"),
        (_Branches(), "flatten"),
        (_Switch(), "torch.nn.Sequential"),
    ],
)
def test_what_is_not_supported_is_named_with_the_way_out(model, names):
    with pytest.raises(NotQuantisableError) as caught:
        quantise_network(model.eval(), (1, 8, 8), images_of((1, 8, 8)))
    assert names in str(caught.value)
    assert "chain of convolutions" in str(caught.value) or "--int8" in str(caught.value)


def test_a_residual_network_is_refused_by_its_branches():
    with pytest.raises(NotQuantisableError, match=r"`layer1.0.shortcut`: .* has branches"):
        quantise_network(_network("resnet18", (3, 16, 16)), (3, 16, 16), images_of((3, 16, 16), 2))


def test_an_entry_becomes_one_in_int8(tmp_path, monkeypatch, capsys):
    """With its taxonomy and parent, calibrated on training images; no test image is read."""
    import corobench.benchmark.data as data

    splits = []
    read = data.read_split

    def watched(track, split, *more):
        splits.append(split)
        return read(track, split, *more)

    monkeypatch.setattr(data, "read_split", watched)
    state = make_state()
    state["5.weight"][torch.rand_like(state["5.weight"]) < 0.9] = 0.0
    method = {"name": "random 10x", "pipeline": "after", "criterion": "random"}
    folder = make_folder(tmp_path, state, parent="mother", method=method, sparsity=0.5)
    sizes = [state[f"{layer}.weight"] for layer in (0, 2, 5, 7)]
    zeros = sum(int((size == 0).sum()) for size in sizes) / sum(size.numel() for size in sizes)
    text = (folder / "submission.toml").read_text()
    (folder / "submission.toml").write_text(text.replace("0.5", f"{zeros:.4f}"))
    done = to_int8(folder, tmp_path / "small-int8")
    assert set(splits) == {"train"}
    assert done.difference == 0.0
    assert validate([done.folder]) == [(done.folder, [])]
    made = load_submission(done.folder)
    manifest = made.manifest
    assert (manifest.id, manifest.title) == ("small-int8", "An entry, int8")
    assert (manifest.parent, manifest.method.criterion) == ("mother", "random")
    assert manifest.method.name == "random 10x, int8"
    assert "int8 version of entry" in manifest.description
    assert "the first 1,297 training images" in manifest.description
    assert made.format == "onnx-qdq" and made.sparsity == pytest.approx(manifest.sparsity)
    assert made.sparsity >= zeros - 1e-4
    assert "of 1,000 training images" in str(done)
    with pytest.raises(SubmissionError, match="is already quantised"):
        to_int8(done.folder, tmp_path / "again")


def test_the_command(tmp_path, capsys):
    folder = make_folder(tmp_path)
    out = tmp_path / "entry-int8"
    assert invoke(["convert", str(folder), "--int8", "--out", str(out)]) == 0
    assert "compared with onnxruntime" in capsys.readouterr().out
    # A dense entry without a parent is the parent of its int8 version.
    assert load_submission(out).manifest.parent == "entry"
    both = ["--int8", "--architecture", "cnn-small", "--out", str(tmp_path / "no")]
    assert invoke(["convert", str(folder), *both]) == 2
    assert invoke(["convert", str(out), "--int8", "--out", str(tmp_path / "no")]) == 2
    assert "already quantised" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_of_ours_is_valid_exact_and_smaller_than_its_parent(entry):
    assert validate([entry]) == [(entry, [])]
    made = load_submission(entry)
    assert made.format == "onnx-qdq"
    source = load_submission(entry.with_name(entry.name.removesuffix("-int8")))
    parent = made.manifest.parent
    assert parent == (source.manifest.parent or source.manifest.id)
    x = images_of(made.track.shape)
    assert torch.equal(made.model(x), made.reference(x))
    before, after = source.measure(), made.measure()
    assert after.num_nonzero < before.num_nonzero
    assert after.bytes_coded < 0.7 * before.bytes_coded


def test_an_entry_of_ours_can_be_made_again(tmp_path):
    done = to_int8(
        ROOT / "submissions" / "digits-ibp-lwm-10x", tmp_path / "digits-ibp-lwm-10x-int8"
    )
    for name in ("model.onnx", "submission.toml"):
        ours = ROOT / "submissions" / "digits-ibp-lwm-10x-int8" / name
        assert (done.folder / name).read_bytes() == ours.read_bytes()
