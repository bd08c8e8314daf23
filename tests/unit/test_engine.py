"""The engine's version: every number counts, no comment does, and no module is forgotten."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from corobench.benchmark.evaluation import engine

ROOT = Path(__file__).parents[2] / "benchmark"
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in engine.modules().items()}


def _files() -> dict[str, Path]:
    """Every module below `benchmark`, name -> file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imported(path: Path) -> set[str]:
    """What a file imports, at its top or inside its functions, dotted names of any depth."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(one) for node in ast.walk(tree) if _is_for_types_only(node) for one in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _reached() -> set[str]:
    """Modules on the way of `benchmark.evaluation.evaluate`, parents included."""
    files = _files()
    reached, todo = set(), ["evaluation.evaluate"]
    while todo:
        name = todo.pop()
        if name in reached or name not in files:
            continue
        reached.add(name)
        for one in _imported(files[name]):
            parts = one.split(".")
            if parts[:2] == ["corobench", "benchmark"]:
                todo += [".".join(parts[2:length]) for length in range(2, len(parts) + 1)]
    return reached


def test_every_module_of_an_evaluation_is_listed_or_excluded_with_a_reason() -> None:
    forgotten = {
        name for name in _reached() if not engine.decides(name) and name not in engine.EXCLUDED
    }
    assert not forgotten, "list it in benchmark/evaluation/engine.py: does it decide a number?"
    assert len(_reached()) > 80


def test_the_lists_name_modules_that_are_there() -> None:
    assert set(engine.EXCLUDED) <= set(_files())
    assert set(engine.DECIDES) <= set(_files())
    assert not set(engine.EXCLUDED) & set(engine.DECIDES)
    assert all(reason.strip() for reason in engine.EXCLUDED.values())


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_comments_docstrings_and_formatting_do_not_count(name: str) -> None:
    tree = ast.parse(SOURCES[name])
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [one for one in body if not _is_text(one)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
            if not kept:
                return  # an empty body cannot be written without its docstring
    plain = "# nothing\n\n" + ast.unparse(tree)
    assert plain != SOURCES[name]
    assert engine.version_of({name: plain}) == engine.version_of({name: SOURCES[name]})


def _is_text(node: ast.AST) -> bool:
    value = getattr(node, "value", None)
    return isinstance(node, ast.Expr) and isinstance(getattr(value, "value", None), str)


@pytest.mark.parametrize(
    "name",
    [
        "certify.bab.budget",
        "certify.batch_sizes",
        "network.equivalent",
        "evaluation.health",
        "attacks.autoattack",
    ],
)
def test_every_number_counts(name: str) -> None:
    versions = {engine.version_of({name: SOURCES[name]})}
    num_numbers = sum(_is_number(node) for node in ast.walk(ast.parse(SOURCES[name])))
    for number in range(num_numbers):
        tree = ast.parse(SOURCES[name])
        node = [node for node in ast.walk(tree) if _is_number(node)][number]
        node.value += 1  # type: ignore[attr-defined]
        versions.add(engine.version_of({name: ast.unparse(tree)}))
    assert len(versions) == num_numbers + 1 > 2


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = '1'", "x = 1"),
        ("x = a + b", "x = b + a"),
        ("x = a < b", "x = a <= b"),
        ("x = -a", "x = +a"),
        ("f(a, b)", "f(a, b=b)"),
        ("f(*a)", "f(a)"),
        ("x = [a, None]", "x = [None, a]"),
        ("x = {a: 1, **b}", "x = {**b, a: 1}"),
        ("def f(a, b=1): pass", "def f(a=1, b=1): pass"),
        ("def f(*, a, b=1): return a", "def f(*, a=1, b): return a"),
        ("for a in b: c()", "for a in b: pass\nelse: c()"),
        ("import a", "import a as b"),
        ("def f(): yield a", "def f(): yield from a"),
        ("x = f'{a:.1f}'", "x = f'{a:.2f}'"),
        ("x = f'{a!r}'", "x = f'{a}'"),
        ("x: int = 1", "x = 1"),
        ("global_ = 0\ndef f():\n  x = 1", "global_ = 0\ndef f():\n  global x\n  x = 1"),
    ],
)
def test_other_code_is_another_version(one: str, other: str) -> None:
    assert engine.version_of({"m": one}) != engine.version_of({"m": other})


def test_a_module_more_or_elsewhere_is_another_version() -> None:
    versions = [{"a": "x = 1"}, {"b": "x = 1"}, {"a": "x = 1", "b": ""}, {"a": "", "b": "x = 1"}]
    assert len({engine.version_of(one) for one in versions}) == len(versions)


def test_what_decides_is_listed_for_people() -> None:
    """The constants that the identity once forgot, by the names that the code gives them."""
    from corobench.benchmark.certify import prover
    from corobench.benchmark.certify.bab import budget

    found = engine.constants()
    assert found["certify.prover.ALPHA_STEPS"] == prover.ALPHA_STEPS
    for name, value in vars(budget.BranchBudget()).items():
        shown = found[f"certify.bab.budget.BranchBudget.{name}"]
        assert shown == value or str(shown).startswith("Ascent(")
    for name in (
        "certify.batch_sizes.BATCH_SIZES",
        "certify.bab.budget.Ascent.decay",
        "network.equivalent.MAX_MATRIX",
        "evaluation.prepared.CONTRACT_IMAGES",
        "evaluation.health.NUM_IMAGES",
        "evaluation.recognition.MAX_CHANCE",
        "attacks.autoattack.MIN_VALUES",
        "attacks.layout.LARGE",
        "attacks.tf32.TOLERANCE",
        "submission.rounding.RELATIVE_TOLERANCE",
    ):
        assert name in found


def test_no_dependence_on_fields_that_a_later_python_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 gave functions and classes `type_params`, which is empty in all older code."""
    source = "def f(a):\n    return a\n\nclass A:\n    x = 1\n"
    before = engine.version_of({"m": source})
    parse = ast.parse

    def later(text: str) -> ast.Module:
        tree = parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                node.__class__ = type(  # type: ignore[assignment]
                    type(node).__name__, (type(node),), {"_fields": (*node._fields, "added_later")}
                )
                node.added_later = []  # type: ignore[attr-defined]
        return tree

    monkeypatch.setattr(ast, "parse", later)
    assert engine.version_of({"m": source}) == before
