"""Installed, corobench harms nobody: one import name, and a core that needs no torch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Files and folders that a research repository may have.
OURS = ("benchmark", "baselines", "leaderboard", "submissions", "gate", "cli", "records")
#: What only the extra `evaluate` brings.
HEAVY = (
    *("torch", "torchvision", "pyautoattack", "auto_LiRPA", "onnx", "onnxruntime", "onnxscript"),
    *("zstandard", "safetensors", "sklearn", "threadpoolctl", "platformdirs", "matplotlib"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("setuptools of this environment is too old to build a wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(source)], check=True
    )
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*build, "--no-build-isolation", "--wheel-dir", str(folder), str(source)], check=True
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds corobench as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has files and folders of all our names, and a test of its own."""
    for name in OURS[::2]:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of another project')\n")
    for name in OURS[1::2]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('of another project')\n")
    (tmp_path / "test_own.py").write_text(
        textwrap.dedent(
            """
            import corobench

            def test_own(corobench_gate):
                assert callable(corobench_gate.holds)
                assert corobench.__file__.startswith(SITE)
            """
        ).replace("SITE", repr(os.sep))
    )
    return tmp_path


def _run(site: Path, project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{project}", **more}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "corobench",
        wheel.name.rsplit("-", 3)[0] + ".dist-info",
    }
    for needed in (
        "corobench/py.typed",
        "corobench/benchmark/certify/checker/network.py",
        "corobench/baselines/recipes/digits/adv-dense.toml",
        "corobench/leaderboard/static/style.css",
    ):
        assert needed in names


def test_pytest_starts_beside_files_of_our_names(site: Path, project: Path) -> None:
    done = _run(site, project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("module", ["corobench", "corobench.benchmark.cli.hook"])
def test_commands_start_beside_files_of_our_names(site: Path, project: Path, module: str) -> None:
    code = f"import {module} as m; assert m.__file__.startswith({str(site)!r}), m.__file__"
    done = _run(site, project, "-c", code)
    assert done.returncode == 0, done.stderr
    done = _run(site, project, "-m", "corobench", "tracks")
    assert done.returncode == 0, done.stderr
    assert "fashion-mnist" in done.stdout


@pytest.fixture
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose presence on the path makes the packages of `evaluate` missing."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import sys

            class Missing:
                def find_spec(self, name, path=None, target=None):
                    if name.split(".")[0] in {HEAVY!r}:
                        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

            sys.meta_path.insert(0, Missing())
            """
        )
    )
    return folder


def _light(light: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return _run(light, folder, "-m", "corobench", *arguments)


def test_a_manifest_is_checked_without_torch(light: Path, tmp_path: Path) -> None:
    template = ROOT / "submissions" / "_template"
    done = _light(light, tmp_path, "validate", str(template))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "manifest and header are valid" in done.stdout
    assert "because torch is missing" in done.stdout
    assert "corobench[evaluate]" in done.stdout


def test_results_are_scored_rendered_and_compared_without_torch(
    light: Path, tmp_path: Path
) -> None:
    results = ROOT / "leaderboard" / "results" / "1.0" / "digits"
    table = results / "digits-adv-dense.outcomes.parquet"
    assert _light(light, tmp_path, "score", str(table)).returncode == 0
    done = _light(light, tmp_path, "render", str(results.parents[1]), "--out", "site")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    one, other = (str(results / f"digits-adv-{name}.json") for name in ("dense", "random-10x"))
    done = _light(light, tmp_path, "check", one, "--baseline", one)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not measured, because torch is not installed" in done.stdout.replace("\n", " ")
    assert _light(light, tmp_path, "check", other, "--baseline", one).returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--no-isolate", "submissions/_template"),
        ("measure", "--no-isolate", "submissions/_template"),
        ("evaluate", "--isolate", "submissions/_template"),
        ("measure", "--isolate", "submissions/_template"),
    ],
)
def test_what_needs_torch_says_how_to_get_it(
    light: Path, tmp_path: Path, arguments: tuple[str, str, str]
) -> None:
    command, isolation, folder = arguments
    done = _light(light, tmp_path, command, isolation, str(ROOT / folder))
    assert done.returncode == 2
    assert "pip install 'corobench[evaluate]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_hook_sees_a_broken_header_in_seconds(light: Path, tmp_path: Path) -> None:
    folder = tmp_path / "template"
    folder.mkdir()
    for path in (ROOT / "submissions" / "_template").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code = "from corobench.benchmark.cli.hook import main; main()"
    done = _run(light, tmp_path, "-c", code, "template/model.safetensors", "README.md")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "model.safetensors: expected" in done.stdout
    assert "truncated" in done.stdout
