"""What is read holds what torch and onnxruntime compute; what is not known is refused by name."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from certify_nets import MaskedLinear, Normalize, boxes, cnn, seeded
from float32_nets import float64
from onnx_cases import CASES
from onnx_models import IMAGE, classifier, model, node
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from corobench.benchmark.certify.checker.building import Builder, Value
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.modules import add_module
from corobench.benchmark.certify.checker.proofs import METHODS, margins
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.submission.architectures import ARCHITECTURES, build
from corobench.benchmark.submission.graph.layers import Quantise
from corobench.benchmark.submission.graph.network import read_network as read_onnx
from corobench.benchmark.submission.graph.runtime import Runtime

SHAPE = (1, 8, 8)


def assert_holds(net: nn.Module, x: Tensor, *outputs: Tensor, is_deep: bool = False) -> None:
    """Intervals of width 0 hold the outputs, and are narrow unless many layers widen them."""
    network = read_network(net, x.shape[1:])
    (points,) = float64(x)
    found = network.bounds(points, points).values[-1]
    with torch.no_grad():
        for out in (net(x), *outputs):
            assert ((found.low <= out.numpy()) & (out.numpy() <= found.high)).all()
    assert is_deep or (found.high - found.low).max() < 1e-2 * max(
        1.0, float(np.abs(found.high).max())
    )


# --- ONNX files ---


class Lines(nn.Module):
    """One function between a shift, so that values have both signs, and a linear layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.last = function, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(x - 0.5).flatten(1))


OVERWRITTEN = {
    "dropout that is off": lambda x: F.relu(F.dropout(x, 0.5, False), inplace=True) + x,
    "dropout that is off, and a view": lambda x: (
        F.relu(F.dropout(x.flatten(2), training=False), inplace=True) + x.flatten(2)
    ),
}


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_what_a_step_gives_back_may_not_be_overwritten(name: str) -> None:
    """A dropout that is off gives its operand: relu(x) + relu(x) is deployed, not relu(x) + x."""
    model = Lines(OVERWRITTEN[name]).eval()
    with pytest.raises(UncheckableError, match="overwritten in place"):
        read_network(model, (1, 2, 4))


def test_what_was_copied_may_be_overwritten() -> None:
    model = Lines(lambda x: F.relu(x.clone(), inplace=True) + x).eval()
    read_network(model, (1, 2, 4))


@pytest.mark.parametrize("dim", [1, 2, 3, -1])
def test_a_size_by_keyword_is_that_number(dim: int) -> None:
    """x.size(dim=2) once was the whole shape, and a product with it took one size per column."""
    model = Lines(lambda x: x * x.size(dim=dim)).eval()
    network = read_network(model, (1, 2, 4))
    image = torch.rand(1, 1, 2, 4)
    point = image.double().numpy()
    found, exact = network.bounds(point, point).values[-1], model(image).detach().numpy()
    assert (found.low <= exact).all() and (exact <= found.high).all()


def test_a_shape_is_no_number() -> None:
    with pytest.raises(UncheckableError, match="a shape as a number"):
        read_network(Lines(lambda x: x * x.size()).eval(), (1, 2, 4))


@pytest.mark.parametrize("name", CASES)
def test_an_operator_of_an_onnx_file(name: str) -> None:
    nodes, constants, *opset = CASES[name]
    flat = [*nodes, node("Flatten", "y", "flat")]
    content = model(flat, constants, opset=opset[0] if opset else 17, output="flat")
    content = content.SerializeToString()
    net, x = read_onnx(content).network, torch.rand(3, *IMAGE)
    runs = [Runtime(content, optimise=optimise)(x) for optimise in (True, False)]
    assert_holds(net, x, *runs)


def test_a_graph_behind_a_normalisation_is_read() -> None:
    """A skip makes it more than a chain, and it is a part of a larger network here."""
    nodes = [node("Relu", "x", "r"), node("Add", "x r", "s"), node("Flatten", "s", "y")]
    graph = read_onnx(model(nodes).SerializeToString()).network
    assert type(graph).__name__ == "GraphNetwork"
    assert_holds(nn.Sequential(nn.BatchNorm2d(3), graph).eval(), torch.rand(2, *IMAGE))


def test_layers_within_a_wrapper_are_read_one_after_another() -> None:
    builder = Builder((4,))
    found = add_module(builder, nn.Sequential(nn.ReLU(), nn.Tanh()).eval(), [Value(0)])
    assert found == 2 and [type(step.layer).__name__ for step in builder.steps] == ["Relu", "Curve"]


def test_an_onnx_classifier_is_proven_as_the_torch_network_it_is() -> None:
    content = classifier().SerializeToString()
    net = read_onnx(content).network
    x, low, high = boxes(SHAPE, 1e-4)
    assert_holds(net, x, Runtime(content)(x))
    labels = net(x).argmax(dim=1)
    found = margins(read_network(net, SHAPE), *float64(low, high), labels.numpy(), "CROWN")
    assert (found > 0).all()


# --- architectures by name ---


SLOW = ("wrn-28-4",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in ARCHITECTURES],
)
def test_architectures_by_name_are_read(name: str) -> None:
    side = 32
    arguments = {"width": 0.05, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    if name == "cnn-large":
        arguments["width"] = 0.1
    net = seeded(lambda: build(name, (3, side, side), 10, arguments))
    x = torch.rand(2, 3, side, side)
    network = read_network(net, (3, side, side))
    assert network.num_classes == 10 and network.relus
    assert_holds(net, x, is_deep=True)
    (points,) = float64(x)
    label = net(x[:1]).argmax(dim=1).numpy()
    for method in METHODS:
        found = margins(network, points[:1], points[:1], label, method)
        assert np.isfinite(found).all()


# --- torch modules and functions ---


class Calls(nn.Module):
    """A linear layer behind whatever `call` does."""

    def __init__(self, call, num_flat: int = 64) -> None:
        super().__init__()
        self.call, self.fc = call, nn.Linear(num_flat, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.call(x), 1))


WRITTEN = {
    "an index": lambda x: x[:, :1],
    "unequal sum": lambda x: x + x.mean(1, True).mean(2, True),
    "unequal difference": lambda x: x - x.mean(3, True),
    "relu": lambda x: F.relu(x - 0.5),
    "relu by name": lambda x: F.relu(input=x - 0.5),
    "relu in place": lambda x: F.relu(x - 0.5, inplace=True),
    "relu_": lambda x: (x - 0.5).relu_(),
    "sigmoid and tanh": lambda x: torch.sigmoid(x) + torch.tanh(x) + x.sigmoid() + x.tanh(),
    "constants": lambda x: 2 - (3 * x - 1) / 4 + (1 + x) * 0.5,
    "constants on the left": lambda x: operator.add(0.5, x) - operator.mul(2, x),
    "difference": lambda x: torch.sub(x, torch.relu(x - 0.3)),
    "view": lambda x: x.view(x.size(0), -1),
    "view by shape": lambda x: x.view(x.shape[0], -1),
    "sizes": lambda x: x.reshape(x.size()[0], x.size(1) * 1 if False else x.size(1), -1),
    "all sizes": lambda x: x.reshape(-1, *SHAPE),
    "a list of sizes": lambda x: x.reshape([-1, 8, 8]),
    "end of flatten": lambda x: torch.flatten(x, start_dim=1, end_dim=2),
    "contiguous": lambda x: x.contiguous(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_ways_to_write_it(name: str) -> None:
    assert_holds(Calls(WRITTEN[name]).eval(), torch.rand(2, *SHAPE))


SMALLER = {
    "mean": (lambda x: x.mean((2, 3)), 1),
    "mean of one axis": (lambda x: torch.mean(x, 3), 8),
    "mean that keeps axes": (lambda x: x.mean(dim=[2, 3], keepdim=True), 1),
    "mean that keeps axes by place": (lambda x: torch.mean(x, -1, True), 8),
    "concatenation": (lambda x: torch.cat([x, x], 1), 128),
    "concatenation by name": (lambda x: torch.cat((x, F.relu(x)), dim=-1), 128),
    "average pool": (lambda x: F.avg_pool2d(x, 2), 16),
    "average pool by name": (lambda x: F.avg_pool2d(x, 3, stride=2, padding=1), 16),
    "adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, (2, 4)), 8),
    "max pool": (lambda x: F.max_pool2d(x, 2, 2), 16),
}


@pytest.mark.parametrize("name", SMALLER)
def test_ways_to_write_it_with_fewer_values(name: str) -> None:
    call, num_flat = SMALLER[name]
    assert_holds(Calls(call, num_flat).eval(), torch.rand(2, *SHAPE))


LAYERS = {
    "adaptive": (nn.AdaptiveAvgPool2d((None, 2)), 16),
    "average with its stride": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), 64),
    "max with its padding": (nn.MaxPool2d(3, 2, 1), 16),
    "zero border": (nn.ZeroPad2d((1, 0, 2, 0)), 90),
    "border": (nn.ConstantPad2d(1, 0.25), 100),
    "same": (nn.Conv2d(1, 1, 4, padding="same"), 64),
    "valid": (nn.Conv2d(1, 1, 3, padding="valid"), 36),
    "dropout": (nn.Dropout2d(0.5), 64),
    "batch-norm without weights": (nn.BatchNorm2d(1, affine=False), 64),
    "flatten": (nn.Flatten(), 64),
    "unequal mean of the project": (nn.Sequential(Normalize([0.3], [0.2])), 64),
    "quantised per channel": (Quantise(torch.full((1, 1, 1, 1), 0.1), torch.zeros(1), 0, 9), 64),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_read(name: str) -> None:
    layer, num_flat = LAYERS[name]
    assert_holds(
        nn.Sequential(layer, nn.Flatten(), nn.Linear(num_flat, 3)).eval(), torch.rand(2, *SHAPE)
    )


def test_batch_norm_of_a_row() -> None:
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3)))
    assert_holds(net, torch.rand(2, *SHAPE))


def test_masks_are_baked_in_and_the_model_stays_as_it_is() -> None:
    net = cnn(num_classes=3)
    prune.l1_unstructured(net[0], "weight", amount=0.7)
    net(torch.rand(1, *SHAPE))
    network = read_network(net.train(), SHAPE)
    assert net.training and prune.is_pruned(net[0])
    assert np.count_nonzero(network.steps[0].layer.weight) == 64 - round(0.7 * 64)


# --- refusals ---


def named(layer: nn.Module, num_flat: int = 64) -> nn.Module:
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(num_flat, 3)).eval()


def hooked() -> nn.Module:
    net = cnn()
    net[1].register_forward_hook(lambda module, given, out: out + 1)
    return net


def pre_hooked() -> nn.Module:
    net = cnn()
    net[1].register_forward_pre_hook(lambda module, given: (given[0] + 1,))
    return net


def own_forward() -> nn.Module:
    net = cnn()
    net[0].forward = lambda x: x
    return net


def quantised_in_training() -> nn.Module:
    config = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    layer = torch.ao.nn.qat.Linear(64, 3, qconfig=config)
    return nn.Sequential(nn.Flatten(), layer).eval()


def in_training() -> nn.Module:
    net = cnn()
    net[1].train()
    net[1].train = lambda mode=True: net[1]
    return net


def tiny_variance() -> nn.Module:
    norm = nn.BatchNorm2d(1, eps=0.0)
    norm.running_var.fill_(1e-40)
    return named(norm)


def variance_below_0() -> nn.Module:
    norm = nn.BatchNorm2d(1)
    norm.running_var.fill_(-9.99999e-6)
    return named(norm)


def tiny_deviation() -> nn.Module:
    from corobench.benchmark.submission.architectures import Normalize as Own

    layer = Own([0.0], [1.0])
    layer.std.fill_(1e-40)
    return named(layer)


def with_weights(value: float | None) -> nn.Module:
    net = cnn()
    if value is None:
        net[0].double()
    else:
        net[0].weight.data[0] = value
    return net


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Uncopied(nn.Module):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise RuntimeError("planted")


class Ends(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(64, 3)

    def forward(self, x: Tensor) -> object:
        logits = self.fc(x.flatten(1))
        torch.relu(logits)
        return {"tuple": (logits,), "earlier": logits, "number": 3.0}[self.kind]


class Reused(nn.Module):
    """Reads a value that is overwritten in place."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(64, 3)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        z = x - 0.5
        if self.kind == "module":
            return self.fc((self.relu(z) + z).flatten(1))
        if self.kind == "function":
            return self.fc((F.relu(z, inplace=True) + z).flatten(1))
        if self.kind == "a leaky one by place":
            return self.fc((F.leaky_relu(z, 0.1, True) + z).flatten(1))
        if self.kind == "by place":
            return self.fc((F.relu(z, True) + z).flatten(1))
        if self.kind == "method":
            return self.fc((z.relu_() + z).flatten(1))
        if self.kind == "a view":
            flat = z.flatten(1)
            return self.fc(flat.relu_() + (z * 1.0).flatten(1))
        return self.fc((self.relu(self.drop(z)) + z).flatten(1))


REFUSED = {
    "hooks": (hooked, "hooks on a ReLU"),
    "hooks before": (pre_hooked, "hooks on a ReLU"),
    "a forward pass of its own": (own_forward, "a Conv2d with a forward pass of its own"),
    "training mode": (in_training, "a ReLU in training mode"),
    "a layer of quantised training": (quantised_in_training, "torch.ao.nn.qat"),
    "computed weights": (
        lambda: nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 3))),
        "a ParametrizedLinear whose weights are computed in the forward pass",
    ),
    "spectral norm": (
        lambda: nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(64, 3))),
        "a Linear whose weights are computed",
    ),
    "a live mask": (lambda: nn.Sequential(nn.Flatten(), MaskedLinear(64, 3)), "on constants"),
    "double weights": (lambda: with_weights(None), "weights of type torch.float64"),
    "no number": (lambda: with_weights(float("nan")), "weights that are not finite"),
    "infinite": (lambda: with_weights(float("inf")), "weights that are not finite"),
    "two inputs": (TwoInputs, "more than one input"),
    "a branch": (Branching, "cannot be traced"),
    "no copy": (Uncopied, "cannot be copied"),
    "a tuple": (lambda: Ends("tuple"), "an output that is not the last step"),
    "not the last step": (lambda: Ends("earlier"), "an output that is not the last step"),
    "a constant": (lambda: Ends("number"), "an output that is not the last step"),
    "a map": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3)), "one row of logits"),
    "one logit": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), "one row of logits"),
    "unknown layer": (lambda: named(nn.Tanhshrink()), "the layer Tanhshrink"),
    "unknown operator": (lambda: Calls(torch.exp), "the operator exp"),
    "unknown method": (lambda: Calls(lambda x: x.exp()), "the operator exp"),
    "unknown attribute": (lambda: Calls(lambda x: x.T), "the operator getattr"),
    "keyword": (lambda: Calls(lambda x: x.mean((2, 3), dtype=torch.float16), 1), "keyword dtype"),
    "scaled sum": (lambda: Calls(lambda x: torch.add(x, x, alpha=2)), "keyword alpha of add"),
    "operand by name": (lambda: Calls(lambda x: torch.relu(input=x)), "keyword input of relu"),
    "unequal product": (
        lambda: Calls(lambda x: x * x.mean(3)),
        "mul of two activations of unequal ranks",
    ),
    "a range of activations": (
        lambda: Calls(lambda x: x.clamp(x.mean(3, True))),
        "a range or a slope that depends",
    ),
    "a slope of activations": (
        lambda: Calls(lambda x: F.prelu(x, x.mean((1, 2, 3)))),
        "a slope that depends",
    ),
    "unequal quotient": (
        lambda: Calls(lambda x: x / x.mean(3)),
        "div of two activations of unequal ranks",
    ),
    "division by 0": (lambda: Calls(lambda x: x / 0.0), "a division by a number below"),
    "division by a denormal": (lambda: Calls(lambda x: x / 1e-40), "a division by a number below"),
    "a function of constants": (
        lambda: Buffered("relu", torch.ones(1)),
        "an operator on constants",
    ),
    "a sum of constants": (lambda: Buffered("both", torch.ones(1)), "an operator on constants"),
    "a mean of images": (lambda: Calls(lambda x: x + x.mean(0)), "a mean over the batch"),
    "a mean of all": (lambda: Calls(lambda x: x.mean()), "a mean over the batch"),
    "joined images": (lambda: Calls(lambda x: torch.cat([x, x])), "a concatenation of images"),
    "flattened images": (lambda: Calls(lambda x: torch.flatten(x)), "mixes images"),
    "mixed images": (lambda: Calls(lambda x: x.view(-1, 32), 32), "mixes images"),
    "sizes of more values": (lambda: Calls(lambda x: x.view(-1, 3, 22)), "mixes images"),
    "linear on a map": (lambda: nn.Sequential(nn.Linear(8, 3)), "not one row of logits"),
    "sizes that do not fit": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), "do not fit"),
    "padding mode": (
        lambda: named(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")),
        "padding_mode 'reflect'",
    ),
    "batch statistics": (
        lambda: named(nn.BatchNorm2d(1, track_running_stats=False)),
        "without running statistics",
    ),
    "a tiny variance": (tiny_variance, "a batch-norm with a variance below"),
    "a variance below 0": (variance_below_0, "a batch-norm with a variance below 0"),
    "a tiny deviation": (tiny_deviation, "a standard deviation below"),
    "a divisor": (lambda: named(nn.AvgPool2d(2, divisor_override=3), 16), "a divisor of its own"),
    "max dilation": (lambda: named(nn.MaxPool2d(2, dilation=2), 9), "max pooling with"),
    "uneven pieces": (lambda: named(nn.AdaptiveAvgPool2d(3), 9), "do not divide the map"),
    "a tiny border": (
        lambda: named(nn.ConstantPad2d(1, 1e-40), 100),
        "a border that may be flushed to zero",
    ),
    "the number of images": (
        lambda: Calls(lambda x: x * x.size(0)),
        "the number of images as a number",
    ),
    "negative border": (lambda: named(nn.ZeroPad2d(-1), 36), "padding of other axes"),
    "steps of 0": (
        lambda: named(Quantise(torch.zeros(1), torch.zeros(1), 0, 9)),
        "steps of a size that is not positive",
    ),
    "tiny steps": (
        lambda: named(Quantise(torch.full((1,), 1e-40), torch.zeros(1), 0, 9)),
        "a size of steps below",
    ),
    **{
        f"overwritten, {kind}": (lambda kind=kind: Reused(kind), "overwritten in place")
        for kind in (
            "module",
            "function",
            "by place",
            "a leaky one by place",
            "method",
            "a view",
            "through a dropout",
        )
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    make, text = REFUSED[name]
    with pytest.raises(UncheckableError, match=text):
        read_network(make().eval() if name != "training mode" else make(), SHAPE)


class Buffered(nn.Module):
    """A stored tensor in a sum, a difference or a product."""

    def __init__(self, kind: str, stored: Tensor) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(64, 3)
        if kind in ("relu", "both"):
            self.stored = nn.Parameter(stored)
        else:
            self.register_buffer("stored", stored)

    def forward(self, x: Tensor) -> Tensor:
        made = {
            "add": lambda: x + self.stored,
            "sub": lambda: x - self.stored,
            "mul": lambda: self.stored * x,
            "div": lambda: x / self.stored,
            "from": lambda: self.stored - x,
            "relu": lambda: torch.relu(self.stored) + x,
            "both": lambda: operator.add(self.stored, self.stored) + x,
        }[self.kind]()
        return self.fc(made.flatten(1))


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "from"])
@pytest.mark.parametrize("shape", [(1,), (8,), (1, 1, 8, 1), (1, 8, 8)])
def test_stored_tensors_broadcast_over_images(kind: str, shape: tuple[int, ...]) -> None:
    stored = torch.rand(shape) + 0.5
    assert_holds(Buffered(kind, stored).eval(), torch.rand(2, *SHAPE))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((2, 1, 8, 8), "a constant per image of the batch"),
        ((3, 8, 8), "operands that do not fit"),
        ((5,), "a constant that does not fit"),
    ],
)
def test_stored_tensors_of_other_shapes_are_refused(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(UncheckableError, match=text):
        read_network(Buffered("add", torch.rand(shape)).eval(), SHAPE)


def test_a_border_is_the_float32_number_that_torch_puts_there() -> None:
    net = nn.Sequential(nn.ConstantPad2d((0, 1, 0, 0), 0.1), nn.Flatten()).eval()
    assert_holds(net, torch.rand(2, 1, 1, 1))


def test_a_class_is_not_believed_for_its_name() -> None:
    """Whoever calls a class Normalize may do anything in it: it is traced."""

    class Normalize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.5]))
            self.register_buffer("std", torch.tensor([0.25]))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.std + self.mean

    assert_holds(named(Normalize()), torch.rand(2, *SHAPE))
