"""A device by its name, and the switches of its rounding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.network.device import exact_float32, resolve_device, rounding_to_tf32


def _switches() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(params=[(True, False), (False, True)])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    """Switches as somebody else has set them."""
    theirs = _switches()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = request.param
    yield request.param
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = theirs


def test_a_device_is_found_without_touching_a_switch(before: tuple[bool, bool]) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert _switches() == before


@pytest.mark.parametrize("name", ["", "cpu:x", "quantum", "cuda:-3", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error_of_the_option(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--device {name}: not usable here \(.+\); expected"):
        resolve_device(name)


def test_rounding_is_what_was_asked_for_and_then_what_it_was(before: tuple[bool, bool]) -> None:
    with exact_float32():
        assert _switches() == (False, False)
        with rounding_to_tf32(True):
            assert _switches() == (True, True)
        assert _switches() == (False, False)
    assert _switches() == before


def test_a_function_in_exact_float32_leaves_the_switches_also_where_it_fails(
    before: tuple[bool, bool],
) -> None:
    @exact_float32()
    def fail() -> None:
        assert _switches() == (False, False)
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            fail()
        assert _switches() == before
