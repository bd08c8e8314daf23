"""FAB's projection onto a hyperplane in the cube, without sorting (Croce & Hein, ICML 2020, eq. 4).

FAB asks for the smallest l-infinity step within [0, 1]^D that reaches a hyperplane. Moving every
value by r, or as far as the cube lets it, changes the linear function by a sum that is concave,
piecewise linear and increasing in r; Newton's method on it from 0 passes no solution and ends
exactly. The attack library sorts all values of an image instead, which on a network of which a
tenth is left takes most of the attack. Both give the same step but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

#: Newton steps: each passes at least one break point, in practice most of them at once.
MAX_STEPS = 100


def project_linf(points_BD: Tensor, normals_BD: Tensor, offsets_B: Tensor) -> Tensor:
    """The smallest steps to hyperplanes, as far as the cube allows them.

    Args:
        points_BD: float32 (B, D) in [0, 1].
        normals_BD: float32 (B, D); the hyperplane is where its product with a point is the offset.
        offsets_B: float32 (B,).

    Returns:
        float32 (B, D), to be added to the points. Where no point of the cube reaches the
        hyperplane, every value moves to its end of the cube.

    >>> point, normal = torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, 1.0]])
    >>> project_linf(point, normal, torch.tensor([1.8]))  # 0.4 to go, and 0.1 is all the second has
    tensor([[0.3000, 0.1000]])
    """
    excess_B = (normals_BD * points_BD).sum(dim=1) - offsets_B
    side_B = torch.where(excess_B >= 0, 1.0, -1.0).to(points_BD)
    goes_up_BD = normals_BD * side_B[:, None] < 0
    room_BD = torch.where(goes_up_BD, 1.0 - points_BD, points_BD)
    size_BD = normals_BD.abs()
    step_B = _smallest_step(size_BD, room_BD, excess_B.abs())
    moved_BD = torch.minimum(room_BD, step_B[:, None])
    moved_BD = torch.where(goes_up_BD, moved_BD, -moved_BD)
    return torch.where(normals_BD != 0, moved_BD, torch.zeros_like(moved_BD))


def _smallest_step(size_BD: Tensor, room_BD: Tensor, target_B: Tensor) -> Tensor:
    """The least r at which ``sum(size * min(r, room))`` reaches a target; infinite where none does.

    Rows are independent: an image's step does not depend on its batch.
    """
    spent_BD = size_BD * room_BD
    step_B = torch.full_like(target_B, float("inf"))
    rows = torch.nonzero(target_B < spent_BD.sum(dim=1))[:, 0]
    size, room, spent, target = size_BD[rows], room_BD[rows], spent_BD[rows], target_B[rows]
    step = torch.zeros_like(target)
    for _ in range(MAX_STEPS):
        has_room = room > step[:, None]
        reached = torch.where(has_room, 0.0, spent).sum(dim=1)
        after = (target - reached) / torch.where(has_room, size, 0.0).sum(dim=1)
        is_going = after > step  # not so where rounding leaves no slope
        step = torch.where(is_going, after, step)
        step_B[rows] = step
        num_going = int(is_going.sum())
        if not num_going:
            break
        if 2 * num_going < len(rows):
            rows, step, target = rows[is_going], step[is_going], target[is_going]
            size, room, spent = size[is_going], room[is_going], spent[is_going]
    return step_B


@contextmanager
def without_sorting(is_on: bool = True) -> Iterator[None]:
    """The attack library's FAB projects with :func:`project_linf` within the block."""
    from pyautoattack import fab_base

    before = getattr(fab_base, "projection_linf", None)
    if not is_on or before is None:
        yield
        return
    fab_base.projection_linf = project_linf
    try:
        yield
    finally:
        fab_base.projection_linf = before
