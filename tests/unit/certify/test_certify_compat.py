"""The import of the bound library leaves no traces, and its absence is one clear error."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from corobench.benchmark.certify import CertifierUnavailable, lirpa_version
from corobench.benchmark.certify.lirpa import compat as lirpa_compat
from corobench.benchmark.errors import CorobenchError

REPOSITORY = Path(__file__).parents[3]


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_nothing_of_the_process_is_changed():
    done = run(
        """
        import logging, os, sys, warnings
        import torch
        from torch import nn
        from torch.onnx import utils

        def state():
            executor = torch._C._jit_set_profiling_executor(True)
            torch._C._jit_set_profiling_executor(executor)
            return (
                list(warnings.filters), warnings.simplefilter, sys.stdout,
                logging.root.handlers[:], logging.root.level, logging.root.manager.disable,
                executor, torch.is_grad_enabled(), torch.get_default_dtype(),
                hasattr(torch._C.Node, "__getitem__"),
                hasattr(torch.onnx.symbolic_helper, "_set_opset_version"),
                "numpy.lib.arraysetops" in sys.modules,
                lirpa_compat._exporter_globals().export_onnx_opset_version,
                torch.random.get_rng_state().sum().item(),
            )

        import corobench.benchmark.certify
        from corobench.benchmark.certify.lirpa import compat as lirpa_compat
        assert "auto_LiRPA" not in sys.modules
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        before = state()
        bounded = corobench.benchmark.certify.BoundedModel(model, (1, 2, 2), 2)
        assert "auto_LiRPA" in sys.modules
        x = torch.full((2, 1, 2, 2), 0.5)
        for method in corobench.benchmark.certify.CERTIFIERS:
            bounded.margins(method, x - 0.4, x + 0.4, torch.tensor([0, 1]))
        after = state()
        for one, other in zip(before, after):
            assert one == other, (one, other)
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Warning" not in done.stderr


def test_missing_library_is_one_error_that_says_how_to_mend_it(monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(CertifierUnavailable) as caught:
        lirpa_version()
    assert isinstance(caught.value, CorobenchError)
    assert "pip install --no-deps auto_LiRPA==0.3" in str(caught.value)
    assert "0.7.x" in str(caught.value) and "torch 2.4 to 2.14" in str(caught.value)


@pytest.mark.parametrize(
    "breakage",
    [
        "sys.modules['appdirs'] = None",
        "sys.modules['torch.onnx._internal.torchscript_exporter._globals'] = None\n"
        "sys.modules['torch.onnx._globals'] = None",
    ],
)
def test_a_library_that_does_not_load_is_the_same_error(breakage):
    done = run(
        "import sys, torch\n" + breakage + "\n"
        "from corobench.benchmark.certify import BoundedModel, CertifierUnavailable\n"
        "try:\n"
        "    BoundedModel(torch.nn.Flatten(), (1, 1, 2), 2)\n"
        "except CertifierUnavailable as error:\n"
        "    assert 'pip install' in str(error)\n"
        "    assert 'auto_LiRPA' not in sys.modules\n"
        "    sys.exit(7)\n"
    )
    assert done.returncode == 7, done.stderr


def test_version_names_the_library():
    assert lirpa_version() == f"auto_LiRPA {importlib.metadata.version('auto_LiRPA')}"
    assert lirpa_compat.load() is lirpa_compat.load()
