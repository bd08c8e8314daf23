"""What callers hand in, checked before anything is computed: images, labels, radii, paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.tracks import parse_epsilon

if TYPE_CHECKING:
    import numpy as np
    import torch

    #: float32 (B, C, H, W) in [0, 1].
    Images = torch.Tensor | np.ndarray
    #: int64 (B,).
    Labels = torch.Tensor | np.ndarray | Sequence[int]


def epsilon_of(epsilon: str | Fraction) -> Fraction:
    """An exact radius.

    Raises:
        ConfigError: a float, or outside (0, 1].

    >>> epsilon_of("8/255"), epsilon_of(Fraction(1, 8))
    (Fraction(8, 255), Fraction(1, 8))
    """
    if isinstance(epsilon, str):
        return parse_epsilon(epsilon)
    if not isinstance(epsilon, Fraction):
        raise ConfigError(
            f"epsilon: expected an exact fraction such as '8/255' or Fraction(8, 255), but found "
            f"{epsilon!r} (0.031 is not 8/255)"
        )
    return parse_epsilon(f"{epsilon.numerator}/{epsilon.denominator}")


MAX_NAME = 200
"""Longest name that is taken."""


def images_of(x: Images, device: torch.device) -> torch.Tensor:
    """Images that keep what every function asks of them.

    Args:
        x: float32 (B, C, H, W) in [0, 1], a tensor or an array, B >= 1.
        device: where they are needed.

    Raises:
        ConfigError: says what differs.
    """
    import torch

    tensor = _tensor(x, "x", "float32 images (B, C, H, W) in [0, 1]")
    if tensor.ndim != 4 or not len(tensor):
        shape = list(tensor.shape)
        raise ConfigError(f"x: expected images (B, C, H, W), B at least 1, but found shape {shape}")
    if tensor.dtype != torch.float32:
        raise ConfigError(f"x: expected float32, but found {tensor.dtype}; say x.float()")
    low, high = float(tensor.min()), float(tensor.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ConfigError(
            f"x: expected values in [0, 1], but found {low:g} to {high:g}; divide images by their "
            "largest possible value, and keep any normalisation inside the model"
        )
    return tensor.detach().to(device)


def labels_of(y: Labels, num_images: int, num_classes: int, device: torch.device) -> torch.Tensor:
    """Labels of `num_images` images, int64 (B,).

    Raises:
        ConfigError: says what differs.
    """
    import torch

    tensor = _tensor(y, "y", "integer labels (B,)")
    if tensor.shape != (num_images,) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ConfigError(
            f"y: expected {num_images} integer labels, one for each image of x, but found "
            f"{tensor.dtype} of shape {list(tensor.shape)}"
        )
    low, high = int(tensor.min()), int(tensor.max())
    if low < 0 or high >= num_classes:
        raise ConfigError(
            f"y: expected labels in 0 to {num_classes - 1}, as the model has {num_classes} "
            f"logits, but found {low} to {high}"
        )
    return tensor.detach().to(device, torch.int64)


def whole_number(value: int | None, name: str, least: int) -> None:
    """Refuse what is no whole number of at least `least`; None is left to its default.

    Raises:
        ConfigError: names the argument.
    """
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ConfigError(f"{name}: expected a whole number, but found {value!r}")
    if value is not None and value < least:
        raise ConfigError(f"{name}: expected at least {least}, but found {value}")


def folder_of(value: object, name: str) -> Path | None:
    """A path that need not be there; None stays None.

    Raises:
        ConfigError: it is no path; names the argument.
    """
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{name}: expected a path, but found {value!r}")
    return Path(value).expanduser()


def text_of(value: object, name: str) -> str | None:
    """A short text; None stays None.

    Raises:
        ConfigError: it is none; names the argument.
    """
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= MAX_NAME):
        shown = repr(value)[:60]
        raise ConfigError(f"{name}: expected a text of 1 to {MAX_NAME} characters, not {shown}")
    return value


def identifier_of(name: str) -> str:
    """A name as an entry's id.

    >>> identifier_of("My ViT (v2)"), identifier_of("??")
    ('my-vit-v2', 'network')
    """
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")[:80] or "network"


def path_of(value: object, what: str) -> Path:
    """A path that is there.

    Args:
        value: a path, as a text or a `Path`.
        what: it shall be, for the message.

    Raises:
        ConfigError: it is no path, or nothing is there.
    """
    if not isinstance(value, str | Path):
        raise ConfigError(f"expected {what}, but found {type(value).__name__}")
    path = Path(value).expanduser()
    if not path.exists():
        raise ConfigError(f"{path}: expected {what}, but nothing is there")
    return path


def _tensor(value: object, name: str, what: str) -> torch.Tensor:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value
    try:
        return torch.from_numpy(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: expected {what}, but found {type(value).__name__}") from error
