"""The allowed arrows between packages hold, and the light parts import no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIGHT = (
    "corobench",
    "corobench.benchmark",
    "corobench.benchmark.cli.hook",
    "corobench.benchmark.cli.main",
    "corobench.benchmark.errors",
    "corobench.benchmark.executors",
    "corobench.benchmark.executors.entries",
    "corobench.benchmark.files.chunks",
    "corobench.benchmark.gate.noninferiority",
    "corobench.benchmark.gate.rule",
    "corobench.benchmark.gate.sequential",
    "corobench.benchmark.interactive",
    "corobench.benchmark.interactive.result",
    "corobench.benchmark.records.reading.coded_images",
    "corobench.benchmark.records.reading.table_file",
    "corobench.benchmark.records.result",
    "corobench.benchmark.scoring.migration",
    "corobench.benchmark.scoring.ranking",
    "corobench.benchmark.scoring.rounds",
    "corobench.benchmark.scoring.score",
    "corobench.benchmark.scoring.scored",
    "corobench.benchmark.scoring.statistics",
    "corobench.benchmark.submission",
    "corobench.benchmark.submission.headers",
    "corobench.benchmark.submission.manifest",
    "corobench.benchmark.tracks",
    "corobench.leaderboard.build",
    "corobench.leaderboard.cli",
    "corobench.leaderboard.frames",
    "corobench.leaderboard.terminal",
    "corobench.pytest_plugin",
)
#: Rooms of `benchmark`, lowest floor first: each may import what lies below it, and itself.
FLOORS = (
    ("errors",),
    ("tracks",),
    ("files", "referee"),
    ("records",),
    ("data", "scoring"),
    ("network",),
    ("attacks", "certify", "submission"),
    ("evaluation",),
    ("gate", "review"),
    ("executors",),
    ("interactive",),
    ("cli",),
)
#: Rooms of `benchmark` that the pages may use.
LEADERBOARD_MAY_IMPORT = ("errors", "tracks", "files", "records", "scoring")


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


def _names(path: Path) -> set[tuple[str, ...]]:
    """Modules of ours that a file imports, as parts behind ``corobench``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "corobench"}
    return found


def _floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_imports_of_the_referee_run_downward_only() -> None:
    for path in _files("benchmark"):
        room = path.relative_to(ROOT / "benchmark").with_suffix("").parts[0]
        if room == "__init__":
            continue
        for package, *rest in _names(path):
            assert package == "benchmark", path
            if rest and rest[0] != room:
                assert _floor(rest[0]) < _floor(room), f"{path} imports {'.'.join(rest)}"


def test_the_rooms_are_few() -> None:
    top = ROOT / "benchmark"
    here = {path.name for path in top.iterdir() if path.name != "__pycache__"}
    assert here == {"__init__.py", "errors.py", "tracks.py", *_rooms()}
    assert len(here) <= 20


def _rooms() -> set[str]:
    return {room for rooms in FLOORS for room in rooms} - {"errors", "tracks"}


def test_no_circle_of_imports() -> None:
    modules = {}
    for package in ("benchmark", "baselines", "leaderboard", "corobench"):
        for path in _files(package):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[1:] if package == "corobench" else parts
            modules[parts[:-1] if parts[-1] == "__init__" else parts] = path
    arrows = {
        name: {
            next((one[:n] for n in range(len(one), 0, -1) if one[:n] in modules), name)
            for one in _at_top(path)
        }
        - {name}
        for name, path in modules.items()
    }
    done: set[tuple[str, ...]] = set()

    def visit(name: tuple[str, ...], way: tuple[tuple[str, ...], ...]) -> None:
        assert name not in way, " -> ".join(".".join(one) for one in (*way, name))
        if name not in done:
            for one in arrows[name]:
                visit(one, (*way, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def _at_top(path: Path) -> set[tuple[str, ...]]:
    """Modules of ours that a file imports when it is imported itself."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert isinstance(node, ast.ImportFrom)
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "corobench"}
    return {name for name in found if name}


def test_baselines_do_not_import_the_leaderboard() -> None:
    for path in _files("baselines"):
        assert all(package != "leaderboard" for package, *_ in _names(path)), path


def test_the_leaderboard_sees_records_and_scores_only() -> None:
    for path in _files("leaderboard"):
        assert all(module.split(".")[0] != "torch" for module in _imports(path)), path
        for package, *rest in _names(path):
            assert package in ("benchmark", "leaderboard"), path
            if package == "benchmark":
                assert rest[0] in (*LEADERBOARD_MAY_IMPORT, "__version__"), path


def test_only_the_adapter_imports_the_bound_library() -> None:
    for package in ("benchmark", "baselines", "leaderboard", "corobench"):
        for path in _files(package):
            if any(module.split(".")[0] == "auto_LiRPA" for module in _imports(path)):
                assert path.parent == ROOT / "benchmark" / "certify" / "lirpa", path


def test_onnx_operators_come_from_no_library_of_operators() -> None:
    """Their table is ours: docs/decisions/0001-dependencies.md."""
    name = "onnx2" + "pytorch"
    for folder in ("benchmark", "baselines", "leaderboard", "perf", "tests"):
        for path in _files(folder):
            assert name not in path.read_text("utf-8"), path
    assert name not in (ROOT / "pyproject.toml").read_text("utf-8")


def test_light_modules_import_no_torch() -> None:
    """One interpreter imports each by itself: all of corobench is forgotten before the next."""
    code = f"""
import importlib, sys
for name in {list(LIGHT)!r}:
    for known in [one for one in sys.modules if one.partition(".")[0] == "corobench"]:
        del sys.modules[known]
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_test_file_imports_another() -> None:
    """What tests share stands in a module of its own, which no one mistakes for a test."""
    for path in (ROOT / "tests").rglob("*.py"):
        shared = {module for module in _imports(path) if module.startswith("test_")}
        assert not shared, f"{path} imports {shared}"


def test_tests_that_need_no_torch_wait_for_none() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import conftest; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_module_grows_beyond_one_thing() -> None:
    for package in ("benchmark", "baselines", "leaderboard"):
        for path in _files(package):
            assert len(path.read_text().splitlines()) <= 400, f"{path}: is it one thing?"
