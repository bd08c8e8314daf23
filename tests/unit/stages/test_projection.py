"""FAB's projection: against the attack library's, and against what an optimum must satisfy."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from pyautoattack import fab_base
from pyautoattack.fab_projections import projection_linf
from torch import Tensor, nn

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.context import AttackContext
from corobench.benchmark.attacks.projection import project_linf, without_sorting


def _case(scale: float, num_values: int = 784) -> tuple[Tensor, Tensor, Tensor]:
    """Images with many pixels at 0 and 1, normals with many zeros, hyperplanes near and far."""
    generator = torch.Generator().manual_seed(num_values)
    points = torch.rand(40, num_values, generator=generator)
    points[:, : num_values // 4] = 0.0
    points[:, num_values // 4 : num_values // 3] = 1.0
    normals = torch.randn(40, num_values, generator=generator)
    normals[:, num_values // 5 : num_values // 2] = 0.0
    normals *= torch.logspace(-6, 3, 40)[:, None]
    far = torch.randn(40, generator=generator) * scale * normals.abs().sum(dim=1)
    return points, normals, (normals * points).sum(dim=1) + far


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e-2, 0.3, 10.0])
@pytest.mark.parametrize("num_values", [1, 64, 784])
def test_it_is_the_librarys_but_for_rounding(scale: float, num_values: int) -> None:
    points, normals, offsets = _case(scale, num_values)
    expected = projection_linf(points.clone(), normals.clone(), offsets.clone())
    torch.testing.assert_close(
        project_linf(points, normals, offsets), expected, rtol=1e-4, atol=1e-6
    )


def test_a_step_reaches_the_hyperplane_within_the_cube_and_no_shorter_one_does() -> None:
    points, normals, offsets = (part.double() for part in _case(1e-2))
    steps = project_linf(points, normals, offsets)
    moved = points + steps
    assert ((moved >= 0) & (moved <= 1)).all()
    gap = (normals * moved).sum(dim=1) - offsets
    goes_up = normals * ((normals * points).sum(dim=1) - offsets)[:, None] < 0
    room = torch.where(goes_up, 1.0 - points, points)
    torch.testing.assert_close(gap / normals.abs().sum(dim=1), torch.zeros(40).double())
    length = steps.abs().amax(dim=1, keepdim=True)
    used = (steps.abs() == torch.minimum(room, length)) | (normals == 0)
    assert used.all()  # every value that matters moves as far as the longest, or as it can


def test_what_the_cube_cannot_reach_moves_to_its_ends() -> None:
    point, normal = torch.tensor([[0.25, 0.5, 0.0]]), torch.tensor([[1.0, -1.0, 0.0]])
    steps = project_linf(point, normal, torch.tensor([9.0]))
    assert steps.tolist() == [[0.75, -0.5, 0.0]]


def test_an_images_step_does_not_depend_on_its_batch() -> None:
    points, normals, offsets = _case(1e-2)
    alone = [
        project_linf(points[i : i + 1], normals[i : i + 1], offsets[i : i + 1]) for i in range(40)
    ]
    assert torch.equal(torch.cat(alone), project_linf(points, normals, offsets))


def test_the_librarys_is_back_after_the_block() -> None:
    with without_sorting(False):
        assert fab_base.projection_linf is projection_linf
    with pytest.raises(ValueError, match="inside"), without_sorting():
        assert fab_base.projection_linf is project_linf
        raise ValueError("inside")
    assert fab_base.projection_linf is projection_linf


@pytest.mark.parametrize(
    ("side", "radius", "hidden", "is_used"),
    [(8, "1/20", 200, False), (24, "1/100", 200, True), (24, "1/100", 20, False)],
    ids=["small-images", "little-left", "much-left"],
)
def test_only_the_search_on_a_far_smaller_network_on_large_images_uses_it(
    side: int, radius: str, hidden: int, is_used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    small = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 12), nn.ReLU(), nn.Linear(12, 10))
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(side * side, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )
    with torch.no_grad():  # the same function, with neurons that do nothing
        for layer in (1, 3):
            for wide, narrow in zip(
                model[layer].parameters(), small[layer].parameters(), strict=True
            ):
                wide.zero_()[tuple(slice(size) for size in narrow.shape)] = narrow
    model, small = (network.eval().requires_grad_(False) for network in (model, small))
    x = torch.rand(12, 1, side, side)
    y = model(x).argmax(dim=1)
    used: list[bool] = []
    run = fab_base.FABAttack.perturb

    def noting(self: fab_base.FABAttack, *images: Tensor) -> Tensor:
        used.append(fab_base.projection_linf is project_linf)
        found: Tensor = run(self, *images)
        return found

    monkeypatch.setattr(fab_base.FABAttack, "perturb", noting)
    attack, epsilon = AutoAttackStandard(10, square_queries=20), Fraction(radius)
    plain = attack.run(model, x, y, epsilon, seed=0)
    quick = attack.run(model, x, y, epsilon, seed=0, context=AttackContext(network=small))
    assert used == [False, is_used]
    assert torch.equal(plain.broken_B, quick.broken_B)
    assert 0 < int(plain.broken_B.sum()) < len(x)
