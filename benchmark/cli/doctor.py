"""What works here and what fixes the rest: versions, device, datasets, one bound, one attack."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.tracks import TRACKS

if TYPE_CHECKING:
    from torch import Tensor, nn

LIRPA = "auto_LiRPA"
PACKAGES = (
    *("torch", "torchvision", "pyautoattack", "auto_LiRPA", "safetensors", "pandas"),
    *("onnx", "onnxruntime", "onnxscript", "zstandard"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: was looked at.
        ok: it works.
        detail: what was found.
        mend: a command that fixes it, or empty.
        needed: whether the main job fails without it.
    """

    what: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def examine(data_root: Path | None = None) -> list[Finding]:
    """Look at everything; never raises for what it finds broken."""
    findings = [Finding("Python", True, platform.python_version())]
    findings += [_version(package) for package in PACKAGES]
    findings += [
        _try("device", _device, "pip install torch"),
        _try("bound", _one_bound, install("auto_LiRPA")),
        _try("attack", _one_attack, "pip install pyautoattack"),
    ]
    for track in TRACKS:
        findings.append(_dataset(track, data_root))
    return findings


def installs(findings: list[Finding]) -> list[list[str]]:
    """Arguments of pip for what is missing, one list per call, in the order to run them.

    auto_LiRPA comes last and alone, because it must be installed without what it asks for.

    >>> missing = [Finding("torch", False, "not installed"), Finding("auto_LiRPA", False, "")]
    >>> installs(missing)
    [['install', 'corobench[evaluate]'], ['install', '--no-deps', 'auto_LiRPA==0.3']]
    >>> installs([Finding("torch", True, "2.14.1")])
    []
    """
    missing = [one.what for one in findings if not one.ok and one.what in PACKAGES]
    found = []
    if any(name != LIRPA for name in missing):
        found.append(["install", "corobench[evaluate]"])
    if LIRPA in missing:
        found.append(["install", "--no-deps", f"{LIRPA}==0.3"])
    return found


def install(package: str) -> str:
    """The command that installs a package."""
    return f"pip install --no-deps {LIRPA}==0.3" if package == LIRPA else f"pip install {package}"


def _version(package: str) -> Finding:
    try:
        return Finding(package, True, importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, False, "not installed", install(package))


def _try(what: str, probe: Callable[[], str], mend: str) -> Finding:
    try:
        return Finding(what, True, probe())
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        return Finding(what, False, f"{type(error).__name__}: {reason}", mend)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()}), cpu with {torch.get_num_threads()} threads"
    return f"cpu with {torch.get_num_threads()} threads"


def _probe_model() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model whose worst case is known: margin 0.3, weight 1 on one pixel."""
    import torch
    from torch import nn

    linear = nn.Linear(64, 10)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[0, 0] = 1.0
        linear.bias.fill_(-1.0)
        linear.bias[:2] = torch.tensor([0.0, 0.2])
    model = nn.Sequential(nn.Flatten(), linear).eval()
    return model, torch.full((1, 1, 8, 8), 0.5), torch.zeros(1, dtype=torch.int64)


def _one_bound() -> str:
    from corobench.benchmark.certify import BoundedModel, lirpa_version
    from corobench.benchmark.referee import threat

    model, x, y = _probe_model()
    bounded = BoundedModel(model, (1, 8, 8), 10)
    lower, upper = threat.box(x, Fraction(1, 4))
    found = {
        method: float(bounded.margins(method, lower, upper, y).min())
        for method in ("IBP", "CROWN-IBP", "CROWN")
    }
    if any(abs(value - 0.05) > 1e-4 for value in found.values()):
        raise ArithmeticError(f"bounds of a linear model: expected 0.05, but got {found}")
    return f"{lirpa_version()}: IBP, CROWN-IBP and CROWN bound a linear model exactly"


def _one_attack() -> str:
    from corobench.benchmark.attacks.autoattack import AutoAttackStandard

    model, x, y = _probe_model()
    attack = AutoAttackStandard(num_classes=10, square_queries=10)
    breaks = [
        bool(attack.run(model, x, y, epsilon, seed=0).broken_B.item())
        for epsilon in (Fraction(1, 5), Fraction(2, 5))
    ]
    if breaks != [False, True]:
        raise ArithmeticError(f"attack on a linear model at 1/5, 2/5: broke {breaks}")
    return "AutoAttack breaks a linear model exactly where it must"


def _dataset(track: str, data_root: Path | None) -> Finding:
    from corobench.benchmark.data import find

    try:
        places = find(track, data_root)
    except Exception as error:
        return Finding(f"data {track}", False, str(error).splitlines()[0], needed=False)
    found = [f"{what} ({where})" for where, there, what in places if there]
    if found:
        return Finding(f"data {track}", True, found[0], needed=False)
    looked = ", ".join(str(where) for where, _, _ in places)
    return Finding(
        f"data {track}",
        False,
        f"not in {looked}",
        "set COROBENCH_DATA, or let `corobench evaluate` download it",
        needed=False,
    )
