"""The allowed arrows between packages hold, and the light parts import no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIGHT = (
    "benchmark",
    "benchmark.records",
    "benchmark.reading.table_file",
    "benchmark.scored",
    "benchmark.scoring",
    "benchmark.statistics",
    "benchmark.tracks",
    "benchmark.errors",
    "benchmark.store",
    "benchmark.rounds",
    "benchmark.migration",
    "benchmark.cli",
    "benchmark.gate.noninferiority",
    "benchmark.gate.pytest_plugin",
    "benchmark.gate.rule",
    "benchmark.gate.sequential",
    "leaderboard.build",
    "leaderboard.cli",
    "leaderboard.terminal",
)
LEADERBOARD_MAY_IMPORT = {
    "benchmark.errors",
    "benchmark.reading.arrays_file",
    "benchmark.reading.columns",
    "benchmark.reading.places",
    "benchmark.reading.result_file",
    "benchmark.records",
    "benchmark.rounds",
    "benchmark.scored",
    "benchmark.scoring",
    "benchmark.statistics",
    "benchmark.tracks",
}


def _imports(path: Path) -> set[str]:
    """Modules that a file imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def _files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_benchmark_imports_neither_of_the_others() -> None:
    for path in _files("benchmark"):
        for module in _imports(path):
            assert module.split(".")[0] not in ("baselines", "leaderboard"), path


def test_baselines_do_not_import_the_leaderboard() -> None:
    for path in _files("baselines"):
        assert all(module.split(".")[0] != "leaderboard" for module in _imports(path)), path


def test_the_leaderboard_sees_records_and_scores_only() -> None:
    for path in _files("leaderboard"):
        for module in _imports(path):
            assert module.split(".")[0] not in ("baselines", "torch"), path
            if module.split(".")[0] == "benchmark":
                assert module in LEADERBOARD_MAY_IMPORT or module == "benchmark", path


def test_only_the_adapter_imports_the_bound_library() -> None:
    for package in ("benchmark", "baselines", "leaderboard"):
        for path in _files(package):
            if any(module.split(".")[0] == "auto_LiRPA" for module in _imports(path)):
                assert path.parent == ROOT / "benchmark" / "certify", path


def test_onnx_operators_come_from_no_library_of_operators() -> None:
    """Their table is ours: docs/decisions/0001-dependencies.md."""
    name = "onnx2" + "pytorch"
    for folder in ("benchmark", "baselines", "leaderboard", "perf", "tests"):
        for path in _files(folder):
            assert name not in path.read_text("utf-8"), path
    assert name not in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_module_grows_beyond_one_thing() -> None:
    for package in ("benchmark", "baselines", "leaderboard"):
        for path in _files(package):
            assert len(path.read_text().splitlines()) <= 400, f"{path}: is it one thing?"
