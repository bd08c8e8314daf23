"""Cheaters and broken models, each caught by the name of the clause it breaks."""

from __future__ import annotations

import signal

import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.errors import ContractError
from corobench.benchmark.submission import check_contract
from corobench.benchmark.submission.contract import find_broken_clauses


def _linear(num_classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


class _Wrapped(nn.Module):
    """A linear model whose output a function changes."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change, self.calls = _linear(), change, 0

    def forward(self, x):
        self.calls += 1
        return self.change(self, x, self.linear(x))


def _is_grad(model, x, y):
    return y + 1.0 if x.requires_grad else y


CHEATERS = {
    "logits": lambda model, x, y: y.softmax(dim=1),
    "deterministic": lambda model, x, y: y + torch.rand(()) * 1e-3,
    "deterministic (calls)": lambda model, x, y: y + (model.calls > 1) * 0.1,
    "batch-independent": lambda model, x, y: y - y.mean(dim=0),
    "batch-independent (order)": lambda model, x, y: (
        y + 0.1 * torch.arange(len(y))[:, None] * (len(y) > 1)
    ),
    "grad-mode": _is_grad,
    "grad-mode (global)": lambda model, x, y: y + 1.0 if torch.is_grad_enabled() else y,
    "hooks": lambda model, x, y: y + 1.0 if model.linear._forward_hooks else y,
    "input-gradient": lambda model, x, y: y.detach(),
    "input-gradient (sqrt)": lambda model, x, y: y + (x.flatten(1).sum(1, True) * 0).sqrt(),
    "finite": lambda model, x, y: y * float("nan"),
    "finite (inf)": lambda model, x, y: y / 0,
    "output-dtype": lambda model, x, y: y.double(),
    "output-shape": lambda model, x, y: y[:, :7],
    "output-shape (tuple)": lambda model, x, y: (y, y),
    "runs": lambda model, x, y: y @ y,
    "runs (alone)": lambda model, x, y: y if len(y) > 1 else y @ y,
}


@pytest.mark.parametrize("name", CHEATERS)
def test_cheater_is_caught_by_name(name):
    model = _Wrapped(CHEATERS[name]).eval()
    with pytest.raises(ContractError) as caught:
        check_contract(model, torch.rand(4, 1, 8, 8), 10, path="cheater")
    assert any(
        fault.startswith(f"contract clause {name.split()[0]}:") for fault in caught.value.faults
    )
    assert str(caught.value).startswith("cheater: ")


def test_wrong_class_count_says_both():
    faults = find_broken_clauses(_linear(7).eval(), torch.rand(4, 1, 8, 8), 10)
    assert faults == ["contract clause output-shape: expected [4, 10], but found [4, 7]"]


def test_training_mode():
    (fault,) = find_broken_clauses(_linear(), torch.rand(4, 1, 8, 8), 10)
    assert fault.startswith("contract clause eval-mode")


def test_several_clauses_at_once():
    def change(model, x, y):
        return torch.rand_like(y).softmax(dim=1).detach()

    faults = find_broken_clauses(_Wrapped(change).eval(), torch.rand(4, 1, 8, 8), 10)
    names = {fault.split(":")[0].removeprefix("contract clause ") for fault in faults}
    assert {"logits", "deterministic", "batch-independent", "input-gradient"} <= names


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_honest_models_pass(scale):
    model = _linear().eval()
    with torch.no_grad():
        model[1].weight.mul_(scale)
    check_contract(model, torch.rand(4, 1, 8, 8), 10)


def test_constant_model_and_flat_gradient_are_within_the_contract():
    """Zero gradients are a health flag of the evaluation, not a breach of the contract."""
    model = _linear().eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.arange(10.0))
    check_contract(model, torch.rand(4, 1, 8, 8), 10)


# ------------------------------------------------------------------ every image, every scale

#: Cheats on images whose first value is 1, and nowhere else.
MARKED = {
    "finite": lambda m, y: torch.where(m, float("nan"), y),
    "finite (infinite)": lambda m, y: torch.where(m, float("inf"), y),
    "finite (differences)": lambda m, y: torch.where(m, 3e38, 1.0) * (2 * y).clamp(-1, 1),
    "deterministic": lambda m, y: torch.where(m, y + torch.rand(()), y),
    "batch-independent": lambda m, y: torch.where(m, y + 0.1 * (len(y) > 1), y),
    "batch-independent (neighbours)": lambda m, y: torch.where(m, y + 0.1 * y[0], y),
    "grad-mode": lambda m, y: torch.where(m & torch.is_grad_enabled(), y + 1.0, y),
    "input-gradient": lambda m, y: y + 0 * (~m).to(y).add(0 * y[:, :1]).sqrt(),
    "runs": lambda m, y: y if not (bool(m.any()) and len(y) == 1) else y[:, 99],
}


def _marking(change):
    """A linear model, cheating on marked images."""

    def changed(model, x, y):
        return change((x[:, 0, 0, 0] == 1.0)[:, None], y)

    return _Wrapped(changed).eval()


def _images(num_images: int = 150) -> torch.Tensor:
    return torch.rand(num_images, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 0.9


@pytest.mark.parametrize("row", [0, 100, 149])
@pytest.mark.parametrize("name", MARKED)
def test_one_image_of_many_refuses_the_model_by_its_number(name, row):
    images = _images()
    images[row, 0, 0, 0] = 1.0
    names = list(range(1000, 1150))
    with pytest.raises(ContractError) as caught:
        check_contract(_marking(MARKED[name]), images, 10, "cheater", None, names)
    (fault, *_) = caught.value.faults
    assert fault.startswith(f"contract clause {name.split()[0]}:")
    if name != "runs":
        assert f"image {1000 + row}" in fault


@pytest.mark.parametrize("name", MARKED)
def test_without_the_image_it_is_not_seen(name):
    check_contract(_marking(MARKED[name]), _images(), 10)


def test_a_file_that_computes_something_else_on_one_image():
    model, images = _linear().eval(), _images()

    def runtime(x):
        marked = (x == images[120]).flatten(1).all(dim=1)
        return model(x) + 0.01 * marked[:, None]

    (fault,) = find_broken_clauses(model, images, 10, runtime)
    assert fault.startswith("contract clause same-as-runtime:") and "image 120" in fault
    assert find_broken_clauses(model, images, 10, model) == []


def test_what_random_images_show_is_seen_where_published_ones_look_well():
    """`validate` asks random images; no evaluation accepts what it refuses."""

    def change(model, x, y):
        return torch.where((x.amax(dim=(1, 2, 3)) > 0.95)[:, None], y.softmax(dim=1), y)

    with pytest.raises(ContractError, match=r"clause logits: .*of the random ones"):
        check_contract(_Wrapped(change).eval(), _images(), 10)


def test_some_probabilities_are_probabilities():
    """A softmax that looks away from the first images is one all the same."""

    def change(model, x, y):
        return torch.where((x[:, 0, 0, 0] > 0.8)[:, None], y.softmax(dim=1), y)

    (fault,) = find_broken_clauses(_Wrapped(change).eval(), _images(), 10)
    assert fault.startswith("contract clause logits:")


SCALES = [1e-6, 1e-3, 1.0, 1e3, 1e6]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_verdicts_do_not_depend_on_the_scale_of_the_logits(scale, offset):
    """Honest, beyond rounding and below it: the same at every scale, also beside a constant."""

    def verdict(share):
        def change(model, x, y):
            far = share * float(y.std())
            return (y + far * (len(y) > 1) * torch.eye(10)[0] + offset) * scale

        return find_broken_clauses(_Wrapped(change).eval(), _images(), 10)

    assert verdict(0.0) == []
    assert all("clause batch-independent" in fault for fault in verdict(0.01))
    assert verdict(0.01) != []


@pytest.mark.parametrize("scale", SCALES)
def test_scaled_probabilities_are_no_logits(scale):
    def change(model, x, y):
        return y.softmax(dim=1) * scale

    (fault,) = find_broken_clauses(_Wrapped(change).eval(), _images(), 10)
    assert fault.startswith("contract clause logits:")


@pytest.mark.parametrize("scale", SCALES)
def test_deep_honest_networks_pass_at_every_scale(scale):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 64)]
    for _ in range(12):
        layers += [nn.ReLU(), nn.Linear(64, 64)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        model[-1].weight.mul_(scale)
        model[-1].bias.mul_(scale)
    check_contract(model, _images(), 10)


def test_one_image_with_huge_logits_is_no_licence_for_the_others():
    images = _images()
    images[7, 0, 0, 0] = 1.0

    def change(model, x, y):
        huge = torch.where((x[:, 0, 0, 0] == 1.0)[:, None], 1e6 * y, y)
        return huge + 0.05 * (len(y) > 1) * torch.eye(10)[0]

    faults = find_broken_clauses(_Wrapped(change).eval(), images, 10)
    assert any("batch-independent" in fault and "image 7" not in fault for fault in faults)


@pytest.mark.parametrize("constant", [0.0, 0.1, 5.0])
def test_a_dead_network_keeps_the_contract(constant):
    """All channels pruned away: the same logits for every image (a health flag, no breach)."""
    model = _linear().eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.arange(10.0) * constant)
    check_contract(model, _images(), 10)


@pytest.mark.parametrize("num_images", [1, 2, 64, 65])
def test_any_number_of_images(num_images):
    check_contract(_linear().eval(), _images(num_images), 10)


class _Writing(nn.Module):
    """Writes into the images that it is given, past autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x.data.clamp_(0, 0.5)
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def test_a_model_that_writes_into_its_images_is_refused_and_moves_none() -> None:
    torch.manual_seed(0)
    images = torch.rand(5, 1, 8, 8)
    before = images.clone()
    (line,) = find_broken_clauses(_Writing().eval(), images, 10)
    assert "input-unchanged" in line and "x.clone()" in line
    assert torch.equal(images, before)


def test_the_referee_and_attacks_hand_out_copies() -> None:
    from fractions import Fraction

    from corobench.benchmark.attacks.guard import Guard
    from corobench.benchmark.referee.judge import predict_one_by_one

    images = torch.rand(5, 1, 8, 8)
    before = images.clone()
    predict_one_by_one(_Writing().eval(), images)
    watched = Guard(_Writing().eval(), images, torch.zeros(5).long(), Fraction(1, 16))
    watched(images)
    watched(images.requires_grad_()).sum().backward()
    assert torch.equal(images, before)
    assert images.grad is not None and images.grad.abs().sum() > 0


def _leaves(error):
    def change(model, x, y):
        raise error

    return change


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_network_that_ends_the_program_is_refused_by_name(error):
    model = _Wrapped(_leaves(error)).eval()
    (fault,) = find_broken_clauses(model, torch.rand(4, 1, 8, 8), 10)
    assert fault.startswith("contract clause runs: ") and type(error).__name__ in fault


def test_somebody_at_the_keyboard_is_not_the_network():
    # A job in the background is deaf to the keyboard.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    model = _Wrapped(lambda model, x, y: signal.raise_signal(signal.SIGINT)).eval()
    try:
        with pytest.raises(KeyboardInterrupt):
            find_broken_clauses(model, torch.rand(4, 1, 8, 8), 10)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_type_come_with_the_way_out(dtype):
    model = _linear().to(dtype).eval()
    (fault,) = find_broken_clauses(model, torch.rand(4, 1, 8, 8), 10)
    name = str(dtype).removeprefix("torch.")
    assert fault.endswith(f"its weights are {name}: call model.float()")
    casting = nn.Sequential(_Cast(dtype), model).eval()
    (fault,) = find_broken_clauses(casting, torch.rand(4, 1, 8, 8), 10)
    assert "output-dtype" in fault and fault.endswith("call model.float()")


class _Cast(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype)


@pytest.mark.parametrize("num_images", [1, 2, 4, 30])
def test_a_few_images_that_look_like_probabilities_by_chance_are_no_softmax(num_images):
    """Logits of these very images are a distribution; those of all others are not."""
    images = torch.rand(num_images, 1, 8, 8, generator=torch.Generator().manual_seed(5))

    def by_chance(model, x, y):
        is_one = (x.flatten(1)[:, None] == images.flatten(1)[None]).all(dim=2).any(dim=1)
        return torch.where(is_one[:, None], y.softmax(dim=1), y)

    assert find_broken_clauses(_Wrapped(by_chance).eval(), images, 10) == []
    softmax = _Wrapped(lambda model, x, y: y.softmax(dim=1)).eval()
    (fault,) = find_broken_clauses(softmax, images, 10)
    assert "remove the softmax" in fault
