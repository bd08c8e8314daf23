"""Branch and bound against exact MILP answers, sampled images and its own parts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from certify_nets import (
    MaskedLinear,
    Normalize,
    PreActivation,
    Residual,
    Viewing,
    boxes,
    cnn,
    margins,
    relu_bounds,
    seeded,
    worst_found,
)
from milp_margins import exact_margins
from scipy.optimize import linprog
from torch import nn

from corobench.benchmark.certify import (
    BRANCHING,
    Ascent,
    BoundedModel,
    BranchBudget,
    Prover,
    kept_bounds,
    prover,
)
from corobench.benchmark.certify.bab import boxes as branch_boxes
from corobench.benchmark.certify.bab.boxes import search_box
from corobench.benchmark.certify.bab.branching import BranchAndBound
from corobench.benchmark.certify.bab.coupling import Coupling
from corobench.benchmark.certify.bab.lagrangian import (
    Lines,
    Relaxation,
    Subdomains,
    joined,
    optimise,
    roots,
)
from corobench.benchmark.certify.bab.leaf import solve_leaf
from corobench.benchmark.certify.bab.reduced import ReducedNet, reduce_net
from corobench.benchmark.certify.bab.split_choice import best_split, candidates, split
from corobench.benchmark.certify.bab.tightening import tightened
from corobench.benchmark.certify.margin_spec import margin_spec
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import prepare

TINY = (1, 2, 2)


def tiny(widths: tuple[int, ...] = (8, 6), seed: int = 0) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for num_in, num_out in itertools.pairwise((4, *widths)):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
    return seeded(lambda: nn.Sequential(*layers, nn.Linear(widths[-1], 3)), seed)


def redrawn(widths: tuple[int, ...], seed: int) -> nn.Module:
    """Larger weights than torch's own, so that many neurons are unstable."""
    model = tiny(widths, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        size = 1.5 * parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.3
        parameter.data = size * torch.randn(parameter.shape, generator=generator)
    return model


def reduced(model: nn.Module, shape, low, high, label: int, num_classes: int) -> ReducedNet:
    """The reduced net of one box (1, ...), from the checker's bounds of neurons."""
    bounds = relu_bounds(model, low, high)
    spec = margin_spec(torch.tensor([label]), num_classes)[0]
    with torch.no_grad():
        return reduce_net(prepare(model, shape), low[0], high[0], bounds, spec)


def inputs_of(net: ReducedNet, x_XB: torch.Tensor) -> torch.Tensor:
    """Inputs of all unstable neurons in the net itself."""
    state = torch.cat([x_XB, torch.zeros(net.num_unstable, x_XB.shape[1])])
    z = torch.zeros(net.num_unstable, x_XB.shape[1])
    for layer, coupling in zip(net.layers, net.couplings, strict=True):
        before = state[: coupling.matrix.shape[1]]
        z[layer] = coupling.matrix @ before + net.bias_N[layer, None]
        state[net.num_inputs + layer.start : net.num_inputs + layer.stop] = z[layer].relu()
    return z


def sampled(net: ReducedNet, num: int, seed: int = 0) -> torch.Tensor:
    """Images (X, num) of the box, half of them at corners."""
    share = 2 * torch.rand(net.num_inputs, num, generator=torch.Generator().manual_seed(seed)) - 1
    share[:, ::2] = share[:, ::2].sign()
    return net.mid_X[:, None] + net.rad_X[:, None] * share


# --- the reduced net is the net ---


@pytest.mark.parametrize(
    ("build", "shape", "num_classes"),
    [
        (cnn, (1, 8, 8), 10),
        (Viewing, (1, 8, 8), 5),
        (Residual, (1, 8, 8), 4),
        (PreActivation, (1, 8, 8), 4),
        (lambda: nn.Sequential(Normalize([0.3], [0.2]), cnn()), (1, 8, 8), 10),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), TINY, 3),
    ],
    ids=["cnn", "view", "residual", "pre-activation", "normalize", "linear"],
)
def test_reduced_net_gives_the_margins_of_the_model(build, shape, num_classes):
    model = seeded(build, 1)
    _, low, high = boxes(shape, 0.06, num=1)
    net = reduced(model, shape, low, high, 2, num_classes)
    x = sampled(net, 40)
    expected = margins(model(x.T.reshape(40, *shape)), torch.full((40,), 2)).T
    torch.testing.assert_close(net.forward(x), expected, atol=2e-5, rtol=1e-5)
    z = inputs_of(net, x)
    assert bool((z >= net.lower_N[:, None] - 1e-5).all())
    assert bool((z <= net.upper_N[:, None] + 1e-5).all())


def test_relus_that_were_not_bounded_are_refused():
    model = tiny()
    layer = (torch.full((8,), -1.0), torch.full((8,), 1.0))
    wrong = (torch.full((5,), -1.0), torch.full((5,), 1.0))
    spec = margin_spec(torch.tensor([0]), 3)[0]
    for bounds in ([layer], [layer, wrong], [layer, (layer[0][:6], layer[1][:6]), layer]):
        with pytest.raises(NotCertifiable) as caught:
            reduce_net(model, torch.zeros(TINY), torch.ones(TINY), bounds, spec)
        assert caught.value.rule == "relu-order"


def test_sparse_and_full_products_agree():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 50, generator=generator)
    matrix[torch.rand(30, 50, generator=generator) < 0.9] = 0
    coupling = Coupling(matrix)
    assert coupling._rows is not None and Coupling(torch.ones(3, 3))._rows is None
    for num in (1, 7):
        x, y = torch.randn(50, num), torch.randn(30, num)
        torch.testing.assert_close(coupling.times(x), matrix @ x)
        torch.testing.assert_close(coupling.transposed_times(y), matrix.T @ y)


# --- bounds of subdomains ---


def sign_of(subdomains: Subdomains) -> torch.Tensor:
    return Lines.of(subdomains).sign_NB


def fix(subdomains: Subdomains, sign_NB: torch.Tensor) -> None:
    """Fix the signs of all neurons."""
    subdomains.low_NB = torch.where(sign_NB > 0, 0.0, subdomains.low_NB)
    subdomains.high_NB = torch.where(sign_NB > 0, subdomains.high_NB, 0.0)


def random_subdomains(net: ReducedNet, z_NB: torch.Tensor, seed: int = 0) -> Subdomains:
    """One per image and margin: signs fixed as in the image, slopes and multipliers drawn."""
    generator = torch.Generator().manual_seed(seed)
    num_margins = len(net.spec)
    z = z_NB.repeat(1, num_margins)
    subdomains = roots(net, torch.arange(num_margins).repeat_interleave(z_NB.shape[1]))
    chosen = torch.rand(z.shape, generator=generator) < torch.rand(z.shape[1], generator=generator)
    subdomains.low_NB = torch.where(chosen & (z >= 0), 0.0, subdomains.low_NB)
    subdomains.high_NB = torch.where(chosen & (z < 0), 0.0, subdomains.high_NB)
    subdomains.alpha_NB = torch.rand(z.shape, generator=generator)
    subdomains.beta_NB = torch.rand(z.shape, generator=generator) * chosen
    return subdomains


@pytest.mark.parametrize("build", [cnn, Residual], ids=["cnn", "residual"])
def test_no_image_with_the_fixed_signs_lies_below_the_bound(build):
    model = seeded(build, 2)
    _, low, high = boxes((1, 8, 8), 0.08, num=1)
    net = reduced(model, (1, 8, 8), low, high, 1, 10 if build is cnn else 4)
    assert len(net.layers) >= 2
    x = sampled(net, 200)
    margins_B = net.forward(x).flatten()
    relaxation = Relaxation(net)
    subdomains = random_subdomains(net, inputs_of(net, x))
    assert bool((relaxation.backward(subdomains).bound_B <= margins_B + 1e-4).all())
    optimise(relaxation, subdomains, Ascent(5), torch.inf)
    assert bool((subdomains.bound_B <= margins_B + 1e-4).all())
    assert bool((subdomains.beta_NB >= 0).all())
    assert bool(((subdomains.alpha_NB >= 0) & (subdomains.alpha_NB <= 1)).all())


def test_forward_pass_gives_the_derivatives_of_the_bound():
    _, low, high = boxes(TINY, 0.4, num=1)
    net = reduced(redrawn((8, 6), 3), TINY, low, high, 0, 3)
    doubled = {
        name: getattr(net, name).double()
        for name in ("bias_N", "lower_N", "upper_N", "spec", "spec_bias_S", "mid_X", "rad_X")
    }
    couplings = tuple(Coupling(one.matrix.double()) for one in net.couplings)
    relaxation = Relaxation(replace(net, **doubled, couplings=couplings))
    subdomains = random_subdomains(net, inputs_of(net, sampled(net, 10)))
    for name in ("low_NB", "high_NB", "alpha_NB", "beta_NB", "bound_B"):
        setattr(subdomains, name, getattr(subdomains, name).double())
    lines = Lines.of(subdomains)
    found = relaxation.backward(subdomains)
    z = relaxation.forward(subdomains, found, lines, relaxation.worst(found))
    expected = {
        "alpha_NB": found.coefficient_NB.clamp(min=0) * z * lines.free_NB,
        "beta_NB": -lines.sign_NB * z,
    }
    step, num_checked = 1e-6, 0
    for name, gradient in expected.items():
        for neuron in range(net.num_unstable):
            moved = subdomains.take(torch.arange(len(subdomains)))
            getattr(moved, name)[neuron] += step
            slope = (relaxation.backward(moved).bound_B - found.bound_B) / step
            torch.testing.assert_close(slope, gradient[neuron], atol=1e-5, rtol=1e-4)
            num_checked += int((gradient[neuron] != 0).sum())
    assert num_checked > 50


def triangle_program(net: ReducedNet, margin: int) -> float:
    """The best bound that any slopes can give: the linear program over the triangles of all ReLUs
    (Salman et al., NeurIPS 2019)."""
    num, start = net.num_inputs + net.num_unstable, net.num_inputs
    low, high = (net.mid_X - net.rad_X).double(), (net.mid_X + net.rad_X).double()
    rows, tops = [], []
    for layer, coupling in zip(net.layers, net.couplings, strict=True):
        matrix = coupling.matrix.double()
        for row, neuron in zip(matrix, range(layer.start, layer.stop), strict=True):
            bottom, top = float(net.lower_N[neuron]), float(net.upper_N[neuron])
            z = torch.zeros(num, dtype=torch.float64)
            z[: len(row)] = row
            output = torch.zeros(num, dtype=torch.float64)
            output[start + neuron] = 1.0
            chord = top / (top - bottom)
            rows += [z - output, output - chord * z]  # r >= z; r <= chord (z - bottom)
            tops += [-float(net.bias_N[neuron]), chord * (float(net.bias_N[neuron]) - bottom)]
    box = torch.stack([low, high], dim=1).tolist() + [[0.0, None]] * net.num_unstable
    answer = linprog(
        net.spec[margin].double().numpy(), A_ub=torch.stack(rows).numpy(), b_ub=tops, bounds=box
    )
    assert answer.status == 0
    return answer.fun + float(net.spec_bias_S[margin])


def test_roots_start_from_crown_and_end_near_the_best_slopes():
    model = seeded(cnn, 4)
    x, low, high = boxes((1, 8, 8), 0.06, num=1)
    labels = model(x).argmax(dim=1)
    net = reduced(model, (1, 8, 8), low, high, int(labels), 10)
    relaxation, found = Relaxation(net), roots(net, torch.arange(9))
    crown = BoundedModel(model, (1, 8, 8), 10).margins("CROWN", low, high, labels)[0]
    torch.testing.assert_close(relaxation.backward(found).bound_B, crown, atol=1e-5, rtol=1e-5)
    optimise(relaxation, found, Ascent(40), torch.inf)
    best = torch.tensor([triangle_program(net, margin) for margin in range(9)])
    assert bool((found.bound_B >= crown - 1e-5).all())
    assert bool((found.bound_B <= best + 1e-4).all())
    assert float((found.bound_B - best).min()) > -0.1 * float((best - crown).max())


def test_tightened_neuron_bounds_are_sound_and_nowhere_looser():
    model = seeded(cnn, 5)
    _, low, high = boxes((1, 8, 8), 0.1, num=1)
    net = reduced(model, (1, 8, 8), low, high, 0, 10)
    found = tightened(net, Ascent(15))
    better, slopes = found.net, found.slopes
    assert slopes[0] is None
    for layer, one in zip(net.layers[1:], slopes[1:], strict=True):
        assert one.shape == (layer.start, 2 * (layer.stop - layer.start))
        assert bool(((one >= 0) & (one <= 1)).all())
    assert bool((better.lower_N >= net.lower_N).all() and (better.upper_N <= net.upper_N).all())
    assert bool((better.lower_N <= 0).all() and (better.upper_N >= 0).all())
    assert float((better.lower_N - net.lower_N).max()) > 1e-3
    z = inputs_of(net, sampled(net, 2000))
    assert bool((z.clamp(max=0) >= better.lower_N[:, None] - 1e-5).all())
    assert bool((z.clamp(min=0) <= better.upper_N[:, None] + 1e-5).all())
    for layer, line in zip(net.layers, found.lines, strict=True):
        moved = sampled(net, 2000) - net.mid_X[:, None]
        below = line.slope_RX @ moved + line.centre_R[:, None]
        assert bool((below <= torch.cat([z[layer], -z[layer]]) + 1e-5).all())
    # a neuron found stable has an exact relaxation, even where both bounds are 0
    zeros = torch.zeros_like(net.lower_N)
    found = Relaxation(replace(net, lower_N=zeros, upper_N=zeros))
    assert bool(torch.isfinite(found.backward(roots(net, torch.arange(9))).bound_B).all())


def test_splits_fix_one_free_neuron_on_both_sides():
    _, low, high = boxes(TINY, 0.4, num=1)
    net = reduced(redrawn((8, 6), 3), TINY, low, high, 0, 3)
    relaxation = Relaxation(net)
    subdomains = random_subdomains(net, inputs_of(net, sampled(net, 20)))
    subdomains = subdomains.take((sign_of(subdomains) == 0).any(dim=0))
    proposed = candidates(relaxation, subdomains, relaxation.backward(subdomains), 5)
    assert bool((sign_of(subdomains).gather(0, proposed) == 0).all())
    neurons = best_split(relaxation, subdomains, proposed, 1e-4)
    assert bool((proposed == neurons).any(dim=0).all())
    halves = split(subdomains, neurons)
    num, columns = len(subdomains), torch.arange(len(subdomains))
    for start, sign in ((0, 1.0), (num, -1.0)):
        change = sign_of(halves)[:, start : start + num] - sign_of(subdomains)
        assert bool((change[neurons, columns] == sign).all())
        assert bool((change.count_nonzero(dim=0) == 1).all())


def test_leaves_are_solved_to_the_end_and_empty_ones_closed():
    _, low, high = boxes(TINY, 0.4, num=1)
    net = reduced(redrawn((8, 6), 6), TINY, low, high, 0, 3)
    relaxation = Relaxation(net)
    x = sampled(net, 4000)
    signs = torch.where(inputs_of(net, x) >= 0, 1.0, -1.0)
    for column in range(3):
        leaf = roots(net, torch.tensor([1]))
        fix(leaf, signs[:, column : column + 1])
        beta, image = solve_leaf(net, 1, signs[:, column])
        leaf.beta_NB = beta[:, None]
        bound = relaxation.backward(leaf).bound_B
        assert bool((beta >= 0).all())
        torch.testing.assert_close(net.forward(image[:, None])[1], bound, atol=1e-4, rtol=0)
        inside = (signs == signs[:, column : column + 1]).all(dim=0)
        assert bool((net.forward(x[:, inside])[1] >= bound - 1e-4).all())
    empty = roots(net, torch.tensor([1]))
    nowhere = torch.full((net.num_unstable, 1), -1.0)
    nowhere[:8] = -signs[:8, :1]
    if bool((signs == nowhere).all(dim=0).any()):
        pytest.fail("the leaf that should be empty holds an image")
    fix(empty, nowhere)
    beta, _ = solve_leaf(net, 1, nowhere[:, 0])
    empty.beta_NB = beta[:, None]
    assert float(relaxation.backward(empty).bound_B) > 1.0


# --- the search ---


@pytest.mark.parametrize("widths", [(6,), (8, 6), (6, 6, 6)], ids=str)
def test_a_large_budget_decides_exactly(widths):
    decided = {"certified": 0, "refuted": 0}
    needed_splits = 0
    for seed, eps in itertools.product(range(4), (0.1, 0.3, 0.5)):
        model = redrawn(widths, seed)
        x, low, high = boxes(TINY, eps, num=2, seed=seed)
        logits = model(x)
        labels = logits.argmax(dim=1)
        exact = exact_margins(model, low, high, labels)
        found = Prover(model, TINY, 3).search(BRANCHING, low, high, labels, BranchBudget(2000))
        for row, one in zip(exact, found, strict=True):
            assert bool((one.margins <= row + 2e-6).all())
            worst = float(row.min())
            if abs(worst) < 5e-5:
                continue
            expected = "certified" if worst > 0 else "refuted"
            assert one.status == expected, (seed, eps, worst)
            decided[one.status] = decided.get(one.status, 0) + 1
            needed_splits += one.num_subdomains > 2
    assert min(decided["certified"], decided["refuted"]) >= 4, decided
    assert needed_splits or len(widths) == 1, "nothing here needed the search"


@pytest.mark.parametrize("seed", range(4))
def test_no_budget_leads_to_a_bound_above_the_exact_answer(seed):
    model = redrawn((8, 8), seed)
    x, low, high = boxes(TINY, 0.35, num=1, seed=seed)
    labels = model(x).argmax(dim=1)
    exact = exact_margins(model, low, high, labels)
    asked = Prover(model, TINY, 3)
    for max_subdomains in (1, 2, 3, 7, 20):
        budget = BranchBudget(max_subdomains, tighten_after=4)
        (found,) = asked.search(BRANCHING, low, high, labels, budget)
        assert bool((found.margins <= exact[0] + 2e-6).all())
        assert found.num_subdomains <= max_subdomains
        assert not (found.is_certified and float(exact.min()) < 0)


@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize("seed", range(2))
def test_no_part_of_the_box_is_lost(seed, batch_size):
    model = redrawn((5, 4), seed)
    x, low, high = boxes(TINY, 0.45, num=1, seed=seed)
    label = int(model(x).argmax())
    net = reduced(model, TINY, low, high, label, 3)
    points = sampled(net, 2000)
    lift = net.forward(points).amin(dim=1) + 0.2  # so that every margin has wrong images
    net = replace(net, spec_bias_S=net.spec_bias_S - lift)
    margins_SB, z_NB = net.forward(points), inputs_of(net, points)
    known = torch.full((2,), -torch.inf)
    for max_subdomains in (2, 5, 11, 40, 150, 3000):
        budget = BranchBudget(
            max_subdomains, batch_size=batch_size, tighten_after=10, hopeless_splits=torch.inf
        )
        search = BranchAndBound(net, known, 1e-4, budget, lambda image: False)
        found = search.run()
        assert found.status == "open"
        left = joined([search._frontier, search._stuck])
        for margin in range(2):
            here = left.take(left.margin_B == margin)
            above = here.low_NB[:, :, None] <= z_NB[:, None, :] + 1e-5
            below = here.high_NB[:, :, None] >= z_NB[:, None, :] - 1e-5
            inside = (above & below).all(dim=0)
            bound_B = torch.where(inside, here.bound_B[:, None], torch.inf).amin(dim=0)
            wrong = margins_SB[margin] < -1e-4
            assert bool((bound_B <= margins_SB[margin] + 1e-4)[wrong].all())
            assert float(found.bound_S[margin]) <= float(margins_SB[margin].min()) + 1e-4
    assert len(search._stuck) > 0  # the search of one margin came to its end


@pytest.fixture(scope="module")
def hard():
    """A CNN with boxes most of which CROWN leaves open: model, x, low, high, labels, logits."""
    model = seeded(lambda: cnn(width=3, num_classes=4), 7)
    for parameter in model.parameters():
        parameter.data *= 1.6 if parameter.ndim > 1 else 1.0
    x, low, high = boxes((1, 8, 8), 0.08, num=4, seed=2)
    labels = torch.zeros(4, dtype=torch.long)
    worst = BoundedModel(model, (1, 8, 8), 4).margins("CROWN", low, high, labels).amin(dim=1)
    model[-1].bias.data[0] -= worst.median() + 0.18
    return model, x, low, high, labels, model(x).detach()


def test_budget_zero_is_crown(hard):
    model, _, low, high, labels, _ = hard
    asked = Prover(model, (1, 8, 8), 4)
    crown = BoundedModel(model, (1, 8, 8), 4).margins("CROWN", low, high, labels)
    found = asked.search(BRANCHING, low, high, labels, BranchBudget(0))
    proven = asked.prove("CROWN", low, high, labels)
    for one, expected, is_certified in zip(found, crown, proven.certified_B, strict=True):
        assert bool((one.margins <= expected + 1e-5).all())
        assert bool((one.margins >= expected - 1e-3).all())  # rounding of the deployment
        assert one.is_certified == bool(is_certified) == bool((one.margins > 0).all())
        assert one.num_subdomains == 0 and one.proof is None


def test_alpha_crown_proves_more_than_crown_and_never_splits():
    proven = {"CROWN": 0, "alpha-CROWN": 0, BRANCHING: 0}
    for seed in range(4):
        model = redrawn((8, 6), seed)
        x, low, high = boxes(TINY, 0.25, num=12, seed=seed)
        labels = model(x).argmax(dim=1)
        asked = Prover(model, TINY, 3)
        crown = asked.prove("CROWN", low, high, labels).certified_B
        alpha = asked.search("alpha-CROWN", low, high, labels, BranchBudget())
        split_up = asked.search(BRANCHING, low, high, labels, BranchBudget())
        for before, one, after in zip(crown.tolist(), alpha, split_up, strict=True):
            assert one.is_certified >= before and after.is_certified >= one.is_certified
            assert one.num_subdomains <= 2
            assert one.proof is None or bool((one.proof.parent_K < 0).all())
        proven["CROWN"] += int(crown.sum())
        proven["alpha-CROWN"] += sum(one.is_certified for one in alpha)
        proven[BRANCHING] += sum(one.is_certified for one in split_up)
    assert proven["CROWN"] < proven["alpha-CROWN"] < proven[BRANCHING], proven


def test_a_larger_budget_never_proves_less(hard):
    model, _, low, high, labels, _ = hard
    asked = Prover(model, (1, 8, 8), 4)
    before = torch.full((len(low),), -torch.inf)
    proven = torch.zeros(len(low), dtype=torch.bool)
    gained = []
    for max_subdomains in (0, 3, 10, 40, 150, 600):
        budget = BranchBudget(max_subdomains, batch_size=8, tighten_after=30)
        found = asked.search(BRANCHING, low, high, labels, budget)
        worst = torch.stack([one.margins.min() for one in found])
        now = torch.tensor([one.is_certified for one in found])
        assert bool((worst >= before).all()) and not bool((proven & ~now).any())
        assert now.tolist() == (worst > 0).tolist()
        gained.append(int(now.sum()))
        before, proven = worst, now
    assert gained[-1] > gained[0], gained


def test_answers_repeat_and_do_not_depend_on_neighbours(hard):
    model, _, low, high, labels, _ = hard
    budget = BranchBudget(200, batch_size=8, tighten_after=30)
    runs = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2]):
        asked = Prover(model, (1, 8, 8), 4)
        found = asked.search(BRANCHING, low[order], high[order], labels[order], budget)
        runs.append(dict(zip(order, found, strict=True)))
    for run in runs[1:]:
        for index, one in run.items():
            first = runs[0][index]
            assert (one.status, one.num_subdomains) == (first.status, first.num_subdomains)
            assert torch.equal(one.margins, first.margins)


@pytest.mark.parametrize(
    ("build", "num_classes"), [(cnn, 10), (Residual, 4), (PreActivation, 4), (Viewing, 5)]
)
def test_attacks_never_go_below_the_bounds(build, num_classes):
    model = seeded(build, 8)
    x, low, high = boxes((1, 8, 8), 0.05, num=3)
    logits = model(x).detach()
    labels = logits.argmax(dim=1)
    known = BoundedModel(model, (1, 8, 8), num_classes).margins("CROWN", low, high, labels)
    budget = BranchBudget(120, tighten_after=20)
    found = Prover(model, (1, 8, 8), num_classes).search(BRANCHING, low, high, labels, budget)
    worst = worst_found(model, low, high, labels)
    bounds = torch.stack([one.margins for one in found])
    assert bool((bounds <= worst).all()) and bool((bounds >= known - 1e-3).all())
    for one, row in zip(found, worst, strict=True):
        assert not (one.is_certified and bool((row < 0).any()))


def canary(top: float) -> nn.Module:
    """Right everywhere but on a sliver inside the box, where x_0 is 0.537 give or take 0.001."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[:, 0] = 1000.0
        model[1].bias.copy_(torch.tensor([-536.0, -537.0, -538.0]))  # a tent of height 1
        model[3].weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [top, -2 * top, top]]))
        model[3].bias.copy_(torch.tensor([0.5, 0.0]))
    return model


@pytest.mark.parametrize(("top", "status"), [(0.6, "refuted"), (0.4, "certified")])
def test_a_hidden_counterexample_is_never_certified(top, status):
    model = canary(top)
    x = torch.full((1, *TINY), 0.5)
    labels, low, high = torch.tensor([0]), x - 0.1, x + 0.1
    asked = Prover(model, TINY, 2)
    assert not bool(asked.prove("CROWN", low, high, labels).certified_B)
    (found,) = asked.search(BRANCHING, low, high, labels, BranchBudget())
    assert found.status == status
    if status == "refuted":
        image = found.proposal[None]
        assert bool(((image >= low) & (image <= high)).all())
        assert int(model(image).argmax()) == 1


# --- refusals, statuses, arguments ---


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (
            lambda: nn.Sequential(
                nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(4, 2, 1), nn.Flatten(), nn.Linear(32, 3)
            ),
            "not-a-relu-net",
        ),
        (
            lambda: nn.Sequential(
                nn.Flatten(), nn.Linear(64, 5), nn.Sigmoid(), nn.ReLU(), nn.Linear(5, 3)
            ),
            "not-a-relu-net",
        ),
        (lambda: nn.Sequential(nn.Flatten(), MaskedLinear(64, 3)), "no-checker"),
    ],
    ids=["max-pool", "sigmoid", "live-mask"],
)
def test_other_nets_are_refused_by_name(build, rule):
    asked = Prover(seeded(build), (1, 8, 8), 3)
    _, low, high = boxes((1, 8, 8), 0.01, num=1)
    for certifier in ("alpha-CROWN", BRANCHING):
        assert asked.refusals[certifier].rule == rule
        with pytest.raises(NotCertifiable) as caught:
            asked.search(certifier, low, high, torch.tensor([0]), BranchBudget())
        assert caught.value.rule == rule


ALL = {"IBP", "CROWN-IBP", "CROWN", "alpha-CROWN", "BaB"}


def assert_contradicted(asked: Prover, hard) -> NotCertifiable:
    """The search is refused, and every certifier with it."""
    _, _, low, high, labels, _ = hard
    with pytest.raises(NotCertifiable) as caught:
        asked.search(BRANCHING, low, high, labels, BranchBudget(600, tighten_after=30))
    assert caught.value.rule == "bounds-contradicted"
    assert set(asked.refusals) == ALL
    with pytest.raises(NotCertifiable) as again:
        asked.prove("IBP", low, high, labels)
    assert again.value is caught.value
    return caught.value


def test_a_reduced_net_that_is_not_the_model_is_refused(hard, monkeypatch):
    real = branch_boxes.reduce_net

    def shifted(*args):
        net = real(*args)
        return replace(net, spec_bias_S=net.spec_bias_S + 0.01)

    monkeypatch.setattr(branch_boxes, "reduce_net", shifted)
    assert (
        "differs from the model" in assert_contradicted(Prover(hard[0], (1, 8, 8), 4), hard).message
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_values_that_cancel_in_a_clip_take_no_certifier_away(seed):
    """A clip is a difference of ReLUs; of 30,000 float32 keeps three digits behind the point."""
    torch.manual_seed(seed)
    layers = []
    for width in (18, 12, 12):
        layers += [nn.Linear(width, 12), nn.Hardtanh()]
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(12, 3)).eval()
    model[3].weight.data *= 3e4
    model[3].bias.data *= 3e4
    x = torch.rand(3, 2, 3, 3)
    labels = model(x).argmax(1)
    low, high = (x - 0.3).clamp(min=0), (x + 0.3).clamp(max=1)
    asked = Prover(model, (2, 3, 3), 3)
    found = asked.search(BRANCHING, low, high, labels, BranchBudget(100))
    assert not asked.refusals
    for image, (one, label) in enumerate(zip(found, labels, strict=True)):
        points = low[image] + (high - low)[image] * torch.rand(200, 2, 3, 3).round()
        assert not one.is_certified or bool((model(points).argmax(1) == label).all())


def test_bounds_of_neurons_that_an_image_contradicts_are_refused(hard, monkeypatch):
    real = kept_bounds.crown_bounds

    def narrowed(network, low, high, *_):  # unstable ones stay so, and the reduced net the model
        found = real(network, low, high)
        found.values[1].low *= 0.5
        return found

    monkeypatch.setattr(kept_bounds, "crown_bounds", narrowed)
    assert "ReLU" in assert_contradicted(Prover(hard[0], (1, 8, 8), 4), hard).message


def test_a_bound_that_an_image_contradicts_is_refused(hard, monkeypatch):
    real = prover.margins_by_cases

    def generous(*args):
        return real(*args) + 5

    monkeypatch.setattr(prover, "margins_by_cases", generous)
    refusal = assert_contradicted(Prover(hard[0], (1, 8, 8), 4), hard)
    assert "smaller margin than its bound" in refusal.message


def test_clock_and_width_are_reported_as_such(hard):
    model, _, low, high, labels, _ = hard
    asked = Prover(model, (1, 8, 8), 4)
    is_open = ~asked.prove("CROWN", low, high, labels).certified_B
    assert bool(is_open.any())
    for budget, status in (
        (BranchBudget(stop_after_s=0.0, root=Ascent(0)), "stopped"),
        (BranchBudget(max_unstable=0), "too-wide"),
        (BranchBudget(max_subdomains=1, root=Ascent(0)), "open"),
    ):
        found = asked.search(BRANCHING, low, high, labels, budget)
        statuses = {one.status for one, is_left in zip(found, is_open, strict=True) if is_left}
        assert status in statuses and statuses <= {status, "certified"}
        assert all(bool(torch.isfinite(one.margins).all()) for one in found)


def test_nothing_to_do_is_done_at_once(hard):
    model, x, low, high, _, logits = hard
    asked = Prover(model, (1, 8, 8), 4)
    found = asked.search(BRANCHING, x, x, logits.argmax(dim=1), BranchBudget())
    assert all(one.is_certified and one.num_subdomains == 0 for one in found)
    empty = torch.zeros(0, dtype=torch.long)
    assert asked.search(BRANCHING, low[:0], high[:0], empty, BranchBudget()) == []
    assert asked.prove("CROWN", low[:0], high[:0], empty).certified_B.shape == (0,)


def test_arguments_that_do_not_fit_are_named(hard):
    model, _, low, high, labels, _ = hard
    asked = Prover(model, (1, 8, 8), 4)
    with pytest.raises(ValueError, match=r"`x_L` of shape \(B, 1, 8, 8\)"):
        asked.search(BRANCHING, low[:, :, 1:], high, labels, BranchBudget())
    with pytest.raises(ValueError, match=r"`labels` in \[0, 4\)"):
        asked.search(BRANCHING, low, high, labels + 4, BranchBudget())


@pytest.mark.parametrize(
    "name", ["max_subdomains", "stop_after_s", "hopeless_splits", "batch_size", "clips", "patience"]
)
def test_budgets_that_make_no_sense_are_named(name):
    with pytest.raises(ValueError, match=f"`{name}` to be at least"):
        BranchBudget(**{name: -1})


def test_works_under_inference_mode(hard):
    model, _, low, high, labels, _ = hard
    budget = BranchBudget(20)
    asked = Prover(model, (1, 8, 8), 4)
    expected = asked.search(BRANCHING, low, high, labels, budget)
    with torch.inference_mode():
        made = [tensor + 0 for tensor in (low, high, labels)]
        found = asked.search(BRANCHING, *made, budget=budget)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.margins, other.margins)


@pytest.mark.parametrize("largest", [8, 0])
def test_fewer_subdomains_at_once_where_memory_runs_out(largest, monkeypatch):
    """A search that does not fit is repeated with smaller batches; what never fits is not run."""
    model = redrawn((8, 6), 1)
    x, low, high = boxes(TINY, 0.5, num=2, seed=1)
    tried = []

    def short_of_memory(*args):
        budget = args[-1]
        tried.append(budget.batch_size)
        if budget.batch_size > largest:
            raise MemoryError
        return search_box(*args)

    monkeypatch.setattr(prover, "search_box", short_of_memory)
    labels = model(x).argmax(dim=1)
    found = Prover(model, TINY, 3).search(BRANCHING, low, high, labels, BranchBudget())
    assert tried
    if largest:
        assert tried[:3] == [32, 16, 8]
        assert all(one.status in ("certified", "refuted") for one in found)
    else:
        assert {one.status for one in found} <= {"certified", "too-wide"}
        assert "too-wide" in {one.status for one in found}


def test_other_faults_of_a_search_are_not_hidden(monkeypatch):
    model = redrawn((8, 6), 1)
    x, low, high = boxes(TINY, 0.5, num=1, seed=1)

    def broken(*args):
        raise RuntimeError("planted")

    monkeypatch.setattr(prover, "search_box", broken)
    with pytest.raises(RuntimeError, match="planted"):
        Prover(model, TINY, 3).search(BRANCHING, low, high, model(x).argmax(dim=1), BranchBudget())
