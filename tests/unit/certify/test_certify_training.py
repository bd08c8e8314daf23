"""The differentiable bounds: values, gradients, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from certify_nets import MaskedLinear, Viewing, boxes, cnn, seeded
from torch import nn
from torch.nn.utils import prune

from corobench.benchmark.certify import BoundedModel, TrainingBounds
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.submission.architectures import build as named

SHAPE = (1, 8, 8)


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


def ibp_by_hand(model: nn.Sequential, low, high, labels):
    """The margins' lower bounds by interval arithmetic, differentiable."""
    a, b = low, high
    for layer in model[:-1]:
        if isinstance(layer, nn.Conv2d):
            mid = nn.functional.conv2d((a + b) / 2, layer.weight, layer.bias, 2, 1)
            rad = nn.functional.conv2d((b - a) / 2, layer.weight.abs(), None, 2, 1)
            a, b = mid - rad, mid + rad
        elif isinstance(layer, nn.Linear):
            mid, rad = layer((a + b) / 2), (b - a) / 2 @ layer.weight.abs().T
            a, b = mid - rad, mid + rad
        else:
            a, b = layer(a), layer(b)
    weight, bias = model[-1].weight, model[-1].bias
    difference = weight[labels][:, None] - weight[None]
    offset = bias[labels][:, None] - bias[None]
    mid = (difference * ((a + b) / 2)[:, None]).sum(-1)
    rad = (difference.abs() * ((b - a) / 2)[:, None]).sum(-1)
    return mid - rad + offset


def gradients(model: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP"])
def test_values_are_those_of_the_certifier(method):
    model = seeded(cnn)
    _, low, high = boxes(SHAPE, 0.03, num=4)
    labels = torch.tensor([0, 9, 4, 4])
    lower = TrainingBounds(model, SHAPE, 10).lower_margins(low, high, labels, method)
    assert lower.shape == (4, 10)
    assert (lower.gather(1, labels[:, None]) == 0).all()
    expected = BoundedModel(model, SHAPE, 10).margins(method, low, high, labels)
    other = torch.arange(10)[None] != labels[:, None]
    torch.testing.assert_close(lower[other].view(4, 9), expected, atol=1e-6, rtol=0)


def test_ibp_gradients_equal_those_of_one_written_by_hand():
    model = seeded(small)
    _, low, high = boxes(SHAPE, 0.05)
    labels = torch.tensor([0, 1, 2])
    bounds = TrainingBounds(model, SHAPE, 3)
    found = bounds.lower_margins(low, high, labels, "IBP")
    expected = ibp_by_hand(model, low, high, labels)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    loss = nn.functional.cross_entropy
    for one, other in zip(
        gradients(model, loss(-found, labels)),
        gradients(model, loss(-expected, labels)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP"])
def test_gradients_agree_with_finite_differences(method):
    model = seeded(small).double()
    _, low, high = (tensor.double() for tensor in boxes(SHAPE, 0.05))
    labels = torch.tensor([0, 1, 2])
    bounds = TrainingBounds(model, SHAPE, 3)

    def value() -> torch.Tensor:
        return bounds.lower_margins(low, high, labels, method).sum()

    found = gradients(model, value())
    generator = torch.Generator().manual_seed(0)
    step = 1e-6
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        with torch.no_grad():
            parameter += step * direction
            above = value()
            parameter -= 2 * step * direction
            below = value()
            parameter += step * direction
        slope = float(above - below) / (2 * step)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-6)


def test_optimiser_steps_are_seen_and_the_model_is_left_alone():
    model = seeded(Viewing).train()
    model.fc.bias.requires_grad_(False)
    bounds = TrainingBounds(model, SHAPE, 5)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    _, low, high = boxes(SHAPE, 0.02, num=6)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    losses = []
    for num_images in (6, 6, 5, 6):  # the last batch of an epoch may be smaller
        part = slice(num_images)
        lower = bounds.lower_margins(low[part], high[part], labels[part], "CROWN-IBP")
        loss = nn.functional.cross_entropy(-lower, labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0] and losses[3] < losses[1]
    assert model.training and model.fc.bias.grad is None and not model.fc.bias.requires_grad
    assert all(p.requires_grad for name, p in model.named_parameters() if name != "fc.bias")


def test_a_replaced_parameter_leads_to_a_new_graph():
    model = seeded(small)
    bounds = TrainingBounds(model, SHAPE, 3)
    _, low, high = boxes(SHAPE, 0.02)
    labels = torch.tensor([0, 1, 2])
    model[3].weight = nn.Parameter(2 * model[3].weight.detach())
    found = bounds.lower_margins(low, high, labels)
    torch.testing.assert_close(found, ibp_by_hand(model, low, high, labels), atol=1e-6, rtol=0)


def test_dropout_does_not_take_part():
    model = seeded(lambda: nn.Sequential(*small()[:-1], nn.Dropout(0.5), nn.Linear(5, 3))).train()
    plain = nn.Sequential(*[layer for layer in model if not isinstance(layer, nn.Dropout)])
    _, low, high = boxes(SHAPE, 0.02)
    labels = torch.tensor([0, 1, 2])
    found = TrainingBounds(model, SHAPE, 3).lower_margins(low, high, labels)
    expected = TrainingBounds(plain, SHAPE, 3).lower_margins(low, high, labels)
    assert torch.equal(found, expected)
    assert isinstance(model[5], nn.Dropout) and model[5].training


def normed() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )
    for norm in (model[1], model[5]):
        nn.init.uniform_(norm.weight, -2.0, 2.0)
        nn.init.normal_(norm.bias)
    return model


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP"])
def test_batch_norm_in_training_has_the_statistics_of_the_batch(method):
    """At radius 0 bounds are the logits of a pass in training mode, and so are the gradients."""
    model = normed().train()
    x = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(12) % 3
    found = TrainingBounds(model, SHAPE, 3).lower_margins(x, x, labels, method)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    grads = gradients(model, found.square().sum())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    logits = model(x)
    expected = logits.gather(1, labels[:, None]) - logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(grads, gradients(model, expected.square().sum()), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP"])
def test_batch_norm_in_evaluation_has_its_running_statistics(method):
    model = normed().train()
    for _ in range(3):
        model(torch.rand(8, *SHAPE))
    bounds = TrainingBounds(model, SHAPE, 3)
    _, low, high = boxes(SHAPE, 0.05)
    labels = torch.tensor([0, 1, 2])
    in_training = bounds.lower_margins(low, high, labels, method)
    model.eval()
    found = bounds.lower_margins(low, high, labels, method)
    assert not torch.allclose(found, in_training, atol=1e-2)
    expected = BoundedModel(model, SHAPE, 3).margins(method, low, high, labels)
    other = torch.arange(3)[None] != labels[:, None]
    torch.testing.assert_close(found[other].view(3, 2), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.1])
def test_the_fused_loss_lies_between_an_attack_and_interval_bounds(epsilon):
    model = normed().eval()
    x, low, high = boxes(SHAPE, epsilon)
    labels = torch.tensor([0, 1, 2])
    bounds = TrainingBounds(model, SHAPE, 3)
    fused = bounds.upper_losses(low, high, labels)

    def loss(scores: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(scores, labels, reduction="none")

    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        point = low + (high - low) * torch.rand(x.shape, generator=generator).round()
        assert (loss(model(point)) <= fused + 1e-5).all()
    interval = loss(-bounds.lower_margins(low, high, labels, "IBP"))
    assert (fused <= interval + 1e-5).all()
    if epsilon == 0.0:
        torch.testing.assert_close(fused, loss(model(x)), atol=1e-5, rtol=1e-5)
    else:
        assert (fused < interval).any()
    assert all(gradient.isfinite().all() for gradient in gradients(model, fused.mean()))


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP"])
def test_residual_additions_of_resnet8_are_bounded_in_training(method):
    """In eval mode as the certifier does; in training mode below what random corners give."""
    shape = (3, 16, 16)
    model = seeded(lambda: named("resnet8", shape, 3, {"width": 0.25}))
    _, low, high = boxes(shape, 0.01)
    labels = torch.tensor([0, 1, 2])
    bounds = TrainingBounds(model, shape, 3)
    found = bounds.lower_margins(low, high, labels, method)
    expected = BoundedModel(model, shape, 3).margins(method, low, high, labels)
    others = torch.arange(3)[None] != labels[:, None]
    torch.testing.assert_close(found[others].view(3, 2), expected, atol=1e-4, rtol=1e-4)
    model.train()
    trained = bounds.lower_margins(low, high, labels, method)
    logits = model((low + high) / 2)  # at the centres both see the same statistics
    assert (trained <= logits.gather(1, labels[:, None]) - logits + 1e-4).all()
    assert all(one.isfinite().all() for one in gradients(model, trained.sum()))
    assert len(bounds.relu_inputs()) == 7


def test_refused_in_training():
    norm = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    mask = seeded(lambda: nn.Sequential(nn.Flatten(), MaskedLinear(64, 3)))
    hook = seeded(small)
    prune.l1_unstructured(hook[3], "weight", amount=0.5)
    for model, rule in (
        (norm, "batch-norm-in-training"),
        (mask, "live-pruning-mask"),
        (hook, "live-pruning-mask"),
    ):
        with pytest.raises(NotCertifiable) as caught:
            TrainingBounds(model, SHAPE, 3)
        assert caught.value.rule == rule
    with pytest.raises(ValueError, match="`method` to be one of IBP, CROWN-IBP"):
        _, low, high = boxes(SHAPE, 0.02)
        TrainingBounds(seeded(small), SHAPE, 3).lower_margins(
            low, high, torch.tensor([0, 1, 2]), "CROWN"
        )


class _Mixed(nn.Module):
    """Tokens mixed by a stored matrix, which the graph turns round: no mask on a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(64, 3)

    def forward(self, x):
        tokens = self.mix(x.flatten(2).view(-1, 8, 8).transpose(1, 2))
        return self.head(tokens.relu().flatten(1))


def test_matrices_that_are_turned_round_are_no_mask():
    bounded = BoundedModel(seeded(_Mixed).eval(), (1, 8, 8), 3)
    rules = {refusal.rule for refusal in bounded.refusals.values()}
    assert "live-pruning-mask" not in rules
    masked = seeded(lambda: nn.Sequential(nn.Flatten(), MaskedLinear(64, 3))).eval()
    assert {one.rule for one in BoundedModel(masked, (1, 8, 8), 3).refusals.values()} == {
        "live-pruning-mask"
    }
