"""Certifiers claim, the checker decides; whoever is wrong, nothing false is certified."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from certify_nets import boxes, cnn, seeded, worst_found
from torch import Tensor, nn

from corobench.benchmark.certify import BoundedModel, BranchBudget, Prover, prover
from corobench.benchmark.certify.bab import branching
from corobench.benchmark.certify.checker.proofs import METHODS
from corobench.benchmark.certify.witness import Witness, downward
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.compaction import compacted

SHAPE = (1, 8, 8)
ALL = (*METHODS, "alpha-CROWN", "BaB")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return seeded(lambda: cnn(num_classes=4), 3)


@pytest.fixture(scope="module")
def asked(net: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes of many radii: low, high, labels, the smallest margins an attack finds."""
    x = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(1))
    radius = torch.tensor([0.0, 0.005, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5])[:, None, None, None]
    low, high = (x - radius).clamp(0, 1), (x + radius).clamp(0, 1)
    labels = net(x).argmax(dim=1)
    return low, high, labels, worst_found(net, low, high, labels).amin(dim=1)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_certified_is_confirmed_and_true(net, asked, method: str) -> None:
    low, high, labels, worst = asked
    found = Prover(net, SHAPE, 4).prove(method, low, high, labels)
    assert found.certified_B.dtype == torch.bool and found.margin_B.dtype == torch.float32
    assert found.certified_B[0] and not found.certified_B[-1]
    assert (found.margin_B <= worst + 1e-5).all()
    assert torch.equal(found.certified_B, found.margin_B > 0)


@pytest.mark.parametrize("claim", [1e9, float("inf"), float("nan")])
def test_a_certifier_that_claims_too_much_is_not_believed(
    net, asked, claim: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    low, high, labels, worst = asked
    honest = {m: Prover(net, SHAPE, 4).prove(m, low, high, labels) for m in METHODS}
    monkeypatch.setattr(
        BoundedModel, "margins", lambda self, method, x, *_: torch.full((len(x), 3), claim)
    )
    greedy = Prover(net, SHAPE, 4)
    for method in METHODS:
        found = greedy.prove(method, low, high, labels)
        assert not (found.certified_B & (worst < 0)).any()
        if claim == claim:
            assert (found.margin_B <= worst + 1e-5).all()
            assert (found.certified_B >= honest[method].certified_B).all()
        else:
            assert not found.certified_B.any()
    assert not greedy.refusals


def test_a_search_that_claims_too_much_is_not_believed(
    net, asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every leaf is called proven at once; the checker finds what that proves."""
    low, high, labels, worst = asked
    real = branching.optimise

    def greedy(relaxation, subdomains, settings, enough):
        real(relaxation, subdomains, settings, enough)
        subdomains.bound_B += 1e9

    monkeypatch.setattr(branching, "optimise", greedy)
    one = Prover(net, SHAPE, 4)
    for certifier in ("alpha-CROWN", "BaB"):
        found = one.search(certifier, low, high, labels, BranchBudget(50))
        for answer, smallest in zip(found, worst.tolist(), strict=True):
            assert float(answer.margins.min()) <= smallest + 1e-5
            assert answer.is_certified == bool((answer.margins > 0).all())
            assert answer.status in ("certified", "open")
    assert not one.refusals


def test_a_search_without_leaves_proves_nothing(net, asked, monkeypatch) -> None:
    low, high, labels, _ = asked
    real = prover.search_box

    def silent(*arguments):
        found = real(*arguments)
        return type(found)("certified", found.margins, neurons=found.neurons)

    monkeypatch.setattr(prover, "search_box", silent)
    one = Prover(net, SHAPE, 4)
    found = one.search("BaB", low, high, labels, BranchBudget(50))
    known = one.prove("CROWN", low, high, labels).certified_B.tolist()
    assert [answer.is_certified for answer in found] == known


def _all_are_gone(one: Prover, rule: str, low: Tensor, high: Tensor, labels: Tensor) -> None:
    assert set(one.refusals) == set(ALL)
    for certifier in ALL:
        ask = one.prove if certifier in METHODS else one.search
        budget = () if certifier in METHODS else (BranchBudget(),)
        with pytest.raises(NotCertifiable) as caught:
            ask(certifier, low, high, labels, *budget)
        assert caught.value.rule == rule


@pytest.mark.parametrize("certifier", ALL)
def test_a_checker_that_an_image_contradicts_ends_all(
    net, asked, certifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    low, high, labels, _ = asked
    real, lower = prover.margins, prover.Network.lower
    one = Prover(net, SHAPE, 4)
    if certifier in METHODS:
        monkeypatch.setattr(prover, "margins", lambda *given: real(*given) + 1e3)
    else:

        def generous(self, bounds, start, *rest, **more):
            found = lower(self, bounds, start, *rest, **more)
            if start == len(self.steps):
                found.bound_BR = found.bound_BR + 1e3
            return found

        monkeypatch.setattr(prover.Network, "lower", generous)
    with pytest.raises(NotCertifiable, match="smaller margin than its bound") as caught:
        if certifier in METHODS:
            one.prove(certifier, low, high, labels)
        else:
            one.search(certifier, low, high, labels, BranchBudget())
    assert caught.value.rule == "bounds-contradicted"
    _all_are_gone(one, "bounds-contradicted", low, high, labels)


def test_logits_outside_the_intervals_of_width_0_end_all(net, asked) -> None:
    """The checker's network is not the deployed one, by a thousandth of one bias."""
    low, high, labels, _ = asked
    one = Prover(net, SHAPE, 4)
    one._network.steps[-1].layer.bias[0] += 1e-3
    with pytest.raises(NotCertifiable, match="outside the checker's intervals"):
        one.prove("IBP", low[:2], high[:2], labels[:2])
    _all_are_gone(one, "bounds-contradicted", low, high, labels)


def test_a_deployed_logit_that_is_no_number_contradicts_any_bound(net, asked, monkeypatch) -> None:
    low, high, labels, _ = asked
    one = Prover(net, SHAPE, 4)
    liar = nn.Sequential(net, _NoNumber())
    one._witness = Witness(liar, one._network, one.device)
    with pytest.raises(NotCertifiable, match="outside the checker's intervals"):
        one.prove("IBP", low[:2], high[:2], labels[:2])
    another = Prover(net, SHAPE, 4)
    another._witness = Witness(liar, another._network, another.device)
    monkeypatch.setattr(Witness, "against_intervals", lambda *_: "")
    with pytest.raises(NotCertifiable, match="smaller margin than its bound"):
        another.prove("IBP", low[:2], high[:2], labels[:2])


class _NoNumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


def test_a_network_unknown_to_the_checker_has_no_certifier() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanhshrink(), nn.Linear(8, 3)).eval()
    one = Prover(model, SHAPE, 3)
    _, low, high = boxes(SHAPE, 0.01, num=1)
    _all_are_gone(one, "no-checker", low, high, torch.tensor([0]))
    assert "Tanhshrink" in one.refusals["IBP"].message


@pytest.mark.parametrize(
    ("pool", "num_flat"), [(nn.MaxPool2d(3, 2, 1), 64), (nn.AvgPool2d(3, 2, 1), 64)]
)
def test_what_the_library_cannot_do_is_asked_of_the_checker_alone(pool, num_flat) -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(num_flat, 3)
        )
    )
    x, low, high = boxes(SHAPE, 0.005)
    labels = model(x).argmax(dim=1)
    assert {"CROWN-IBP", "CROWN"} <= set(BoundedModel(model, SHAPE, 3).refusals)
    one = Prover(model, SHAPE, 3)
    assert not set(METHODS) & set(one.refusals)
    found = one.prove("CROWN", low, high, labels)
    assert found.certified_B.any()
    assert (found.margin_B <= worst_found(model, low, high, labels).amin(dim=1)).all()


def test_an_operator_that_the_library_fails_on_later_is_asked_of_the_checker_alone(
    net, asked, monkeypatch
) -> None:
    low, high, labels, _ = asked
    expected = Prover(net, SHAPE, 4).prove("CROWN", low, high, labels)

    def fails(self, method, *_):
        raise NotCertifiable("unsupported-operator", "planted")

    monkeypatch.setattr(BoundedModel, "margins", fails)
    one = Prover(net, SHAPE, 4)
    for _ in range(2):
        found = one.prove("CROWN", low, high, labels)
        assert (found.certified_B >= expected.certified_B).all()
    assert not one.refusals


def test_other_refusals_of_the_library_concern_one_certifier(net, asked, monkeypatch) -> None:
    low, high, labels, _ = asked

    def fails(self, method, *_):
        raise NotCertifiable("bounds-disagree-with-forward", "planted")

    one = Prover(net, SHAPE, 4)
    monkeypatch.setattr(BoundedModel, "margins", fails)
    with pytest.raises(NotCertifiable):
        one.prove("CROWN-IBP", low, high, labels)
    assert set(one.refusals) == {"CROWN-IBP"}


def test_claims_may_be_made_on_an_equivalent_network(net, asked) -> None:
    """Proofs are of the submitted network, whatever the claims are made on."""
    low, high, labels, worst = asked
    other = seeded(lambda: cnn(num_classes=4), 8)  # not equivalent at all
    honest = Prover(net, SHAPE, 4).prove("CROWN", low, high, labels)
    found = Prover(net, SHAPE, 4, searched_on=net).prove("CROWN", low, high, labels)
    assert torch.equal(found.certified_B, honest.certified_B)
    wrong = Prover(net, SHAPE, 4, searched_on=other).prove("CROWN", low, high, labels)
    assert not (wrong.certified_B & ~honest.certified_B).any()
    assert not (wrong.certified_B & (worst < 0)).any()


def test_a_search_that_cannot_begin_is_refused_as_crown_is(monkeypatch) -> None:
    model = seeded(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)), 1
    )

    def unfit(model, shape):
        raise NotCertifiable("copy-disagrees", "planted")

    with monkeypatch.context() as patch:
        patch.setattr(prover, "prepare", unfit)
        one = Prover(model, SHAPE, 3)
    assert set(one.refusals) == {"alpha-CROWN", "BaB"}
    real = BoundedModel.__init__

    def refusing(self, *arguments):
        real(self, *arguments)
        self.refusals["CROWN"] = NotCertifiable("too-large", "planted")

    monkeypatch.setattr(BoundedModel, "__init__", refusing)
    one = Prover(model, SHAPE, 3)
    assert {one.refusals[name].rule for name in ("CROWN", "alpha-CROWN", "BaB")} == {"too-large"}
    assert "IBP" not in one.refusals


def test_noise_without_end_leaves_an_image_open() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    ).eval()
    for layer, weight in ((1, 3e36), (3, 1e-3), (5, 1e-3)):
        model[layer].weight.data.fill_(weight)  # sums near the largest float32, finite logits
    _x, low, high = boxes(SHAPE, 0.2, num=1)
    (found,) = Prover(model, SHAPE, 2).search("BaB", low, high, torch.tensor([0]), BranchBudget())
    assert found.status == "open" and not (found.margins > -np.inf).any()


def test_margins_are_rounded_down() -> None:
    given = np.array([0.1, -0.1, 1e-60, 0.0, -1e-60, np.inf, -np.inf, 1 / 3])
    found = downward(given).double().numpy()
    assert (found <= given).all()
    assert (found[[0, 1, 7]] >= given[[0, 1, 7]] - 1e-7).all()
    assert not found[2] > 0 and found[3] == 0 and found[4] < 0


@pytest.mark.parametrize("is_normalised", [False, True])
def test_neurons_of_pruned_filters_are_not_split(is_normalised: bool) -> None:
    """The search is that of the smaller network that computes the same."""
    model = seeded(lambda: cnn(width=6, num_classes=4), 3)
    for conv, norm in ((model[0], nn.BatchNorm2d(6)), (model[2], nn.BatchNorm2d(12))):
        dead = slice(0, conv.out_channels - 2)
        conv.weight.data[dead] = conv.bias.data[dead] = 0.0
        if is_normalised:  # and its batch-norm is pruned with it
            conv.weight.data[dead] = 0.3
            norm.weight.data[dead] = norm.bias.data[dead] = 0.0
            place = [layer is conv for layer in model].index(True)
            model = nn.Sequential(*model[: place + 1], norm, *model[place + 1 :])
    model = model.eval()
    x, low, high = boxes((1, 8, 8), 0.05, num=2, seed=4)
    small = compacted(model, (1, 8, 8), x)
    assert small is not None
    labels = model(x).argmax(dim=1)
    found, expected = (
        Prover(one, (1, 8, 8), 4).search("BaB", low, high, labels, BranchBudget(20, num_dives=0))
        for one in (model, small)
    )
    assert any(one.num_unstable for one in expected)
    for one, other in zip(found, expected, strict=True):
        assert one.num_unstable == other.num_unstable
        torch.testing.assert_close(one.margins, other.margins, rtol=1e-3, atol=1e-3)
