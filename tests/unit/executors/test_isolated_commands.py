"""Every command that runs a stranger's network survives what it does, and says what happened."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import trapped
from onnx_models import model, node, weights
from reissue import reissue

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.executors import isolated, run_check
from corobench.benchmark.executors.child import context_of
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.gate.rule import Rule, Verdict
from corobench.benchmark.submission.manifest import load_manifest
from corobench.benchmark.submission.packing import repack

ROOT = Path(__file__).parents[3]
ENTRY = "digits-adv-lwm-10x"
FOLDER = ROOT / "submissions" / ENTRY
RESULT = ROOT / "leaderboard" / "results" / "1.0" / "digits" / f"{ENTRY}.json"
OTHER = ROOT / "submissions" / "digits-adv-random-10x"

Trap = Callable[[str, int], None]


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Trap:
    """A process gets a signal whenever it has begun a step of this name."""

    def set_trap(step: str, number: int) -> None:
        monkeypatch.setattr(isolated, "serve", partial(trapped.serve, step, number))

    return set_trap


def test_for_an_accelerator_the_process_is_started_afresh(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert context_of("cpu").get_start_method() == "forkserver"
    assert context_of("cuda").get_start_method() == "spawn"
    monkeypatch.setattr(isolated, "device_of", lambda arguments: "cuda")
    assert isolated.find_faults(FOLDER, Limits()) == []
    shutil.copytree(FOLDER, tmp_path / "copy")
    (tmp_path / "copy" / "model.packed.safetensors").write_bytes(b"damaged")
    assert isolated.find_faults(tmp_path / "copy", Limits())


def _commands(tmp_path: Path) -> dict[str, tuple[str, list[str]]]:
    """Step -> command: each opens a stranger's network."""
    found = tmp_path / "found.npz"
    np.savez(found, images=np.zeros((1, 1, 8, 8), np.float32), indices=np.array([3]))
    graph = tmp_path / "model.onnx"
    onnx.save(_classifier(), graph)
    named = ["--track", "digits", "--architecture", "cnn-small"]
    old = ["--submission", str(FOLDER)]
    weights_file, root = FOLDER / "model.safetensors", ["--root", str(tmp_path)]
    channels = ROOT / "submissions" / "digits-ibp-lwm-10x"
    results = ["--results", str(tmp_path / "none")]
    entries, packed = tmp_path / "submissions", tmp_path / "packed.safetensors"
    reissue(RESULT, tmp_path / "handed-in")
    claims = ["--results", str(tmp_path / "handed-in")]
    shutil.copytree(FOLDER, entries / ENTRY, dirs_exist_ok=True)
    packed.unlink(missing_ok=True)
    repack(weights_file, to_packed=True, out=packed)
    return {
        "recheck": ("recheck", ["recheck", str(RESULT), *old]),
        "contest": ("contest", ["contest", str(RESULT), str(found), *old]),
        "check": ("load", ["check", str(OTHER), "--baseline", str(RESULT)]),
        "import": (
            "import",
            ["import", str(weights_file), *named, "--out", str(tmp_path / "made")],
        ),
        "import a graph": (
            "import",
            ["import", str(graph), "--track", "digits", "--out", str(tmp_path / "made")],
        ),
        "new": (
            "import",
            ["new", "made", "--from", str(weights_file), *named, *root, "--no-ask"],
        ),
        "intake": (
            "compare",
            ["intake", str(entries / ENTRY), *results, "--out", str(tmp_path / "out")],
        ),
        "intake of a result": (
            "load",
            ["intake", str(entries / ENTRY), *claims, "--out", str(tmp_path / "out")],
        ),
        "validate": ("validate", ["validate", str(FOLDER)]),
        "drift": ("load", ["drift", str(RESULT), str(FOLDER), "--sample", "1"]),
        "measure": ("measure", ["measure", str(FOLDER)]),
        "remeasure": (
            "measure",
            ["measure", "--results", str(RESULT), "--submissions", str(FOLDER.parent)],
        ),
        "convert": ("onnx", ["convert", str(FOLDER), "--out", str(tmp_path / "made")]),
        "compact": (
            "compact",
            ["compact", str(channels), "--out", str(tmp_path / "made")],
        ),
        "pack": ("pack", ["pack", str(weights_file), "--out", str(tmp_path / "made")]),
        "pack a folder": ("pack", ["pack", str(entries / ENTRY)]),
        "unpack": ("unpack", ["unpack", str(packed), "--out", str(tmp_path / "made")]),
    }


def _remove(made: Path) -> None:
    shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)


def _classifier() -> onnx.ModelProto:
    return model(
        [node("Flatten", "x", "f"), node("Gemm", "f v", "y", transB=1)],
        {"v": weights(10, 64)},
        image=("N", 1, 8, 8),
    )


ENDS = {
    "crash": (signal.SIGSEGV, "ended by SIGSEGV"),
    "kill": (signal.SIGKILL, "ended by SIGKILL, perhaps because memory ran out"),
    "hang": (signal.SIGSTOP, "no answer within 2 s (--step-limit-s)"),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize(
    "name",
    [
        *("recheck", "contest", "check", "import", "import a graph", "new", "intake", "validate"),
        *("drift", "measure", "remeasure", "convert", "compact"),
        *("pack", "pack a folder", "unpack"),
    ],
)
def test_what_ends_the_process_is_one_clear_error(
    name: str, how: str, tmp_path: Path, trap: Trap, capsys: pytest.CaptureFixture[str]
) -> None:
    step, command = _commands(tmp_path)[name]
    before = {str(path) for path in tmp_path.rglob("*")}
    number, reason = ENDS[how]
    trap(step, number)
    limit = ["--step-limit-s", "2"] if how == "hang" else []
    assert invoke([*command, *limit]) == 2
    said = capsys.readouterr()
    assert f"{step}: its process ended: {reason}" in said.err + said.out
    assert "Traceback" not in said.err + said.out
    assert {str(path) for path in tmp_path.rglob("*")} == before


def _hungry() -> onnx.ModelProto:
    """64 million values for one image, of a file of a few kilobytes."""
    return model(
        [
            node("Conv", "x w", "c", pads=[124, 124, 124, 124]),
            node("GlobalAveragePool", "c", "p"),
            node("Flatten", "p", "f"),
            node("Gemm", "f v", "y", transB=1),
        ],
        {"w": weights(1020, 1, 1, 1), "v": weights(10, 1020)},
        image=("N", 1, 8, 8),
    )


def _slow() -> onnx.ModelProto:
    """300 convolutions with the same weights: a small file that takes minutes."""
    nodes = [node("Conv", "x first", "c0", pads=[60, 60, 60, 60])]
    for number in range(300):
        pads = [1, 1, 1, 1]
        nodes.append(node("Conv", f"c{number} w", f"c{number + 1}", pads=pads))
    nodes += [
        node("GlobalAveragePool", "c300", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f v", "y", transB=1),
    ]
    constants = {
        "first": weights(64, 1, 1, 1),
        "w": weights(64, 64, 3, 3, scale=0.01),
        "v": weights(10, 64),
    }
    return model(nodes, constants, image=("N", 1, 8, 8))


@pytest.mark.parametrize(
    ("make", "limit", "reason"),
    [
        (_hungry, ["--memory-limit-gib", "1.2"], "used more than 1.2 GiB of memory"),
        (_slow, ["--step-limit-s", "3"], "(--step-limit-s)"),
    ],
    ids=["memory", "time"],
)
def test_a_network_that_takes_too_much(
    make: Callable[[], onnx.ModelProto],
    limit: list[str],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Real networks, with nothing in the way but the limits."""
    onnx.save(make(), tmp_path / "model.onnx")
    command = ["import", str(tmp_path / "model.onnx"), "--track", "digits"]
    assert invoke([*command, "--out", str(tmp_path / "made"), *limit]) == 2
    error = capsys.readouterr().err
    assert "import: its process ended: " in error
    assert reason in error
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_step_of_the_gate_that_ends_its_process_is_no_answer(trap: Trap, tmp_path: Path) -> None:
    """Its images count as lost, with the reason, and the gate is red and not silent."""
    trap("clean", signal.SIGSEGV)
    found = run_check(OTHER, reissue(RESULT, tmp_path), Rule(), Limits())
    assert found.verdict == Verdict.FAIL
    reasons = [note for note in found.notes if "clean: ended by SIGSEGV" in note]
    assert reasons
    assert all(note.startswith("no answer: 50 images at ") for note in reasons)
    assert {one.paired.candidate for one in found.judged} == {0}


def test_a_certifier_that_ends_its_process_is_named(trap: Trap, tmp_path: Path) -> None:
    """What is not asked is not compared, so the reader is told that it was not."""
    trap("certify-CROWN-2", signal.SIGSEGV)
    found = run_check(OTHER, reissue(RESULT, tmp_path), Rule(), Limits())
    assert "CROWN was asked about the baseline, but not here: ended by SIGSEGV" in found.notes, (
        found.notes
    )


@pytest.mark.slow
def test_isolation_changes_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command says the same with and without a process of its own."""
    for name, (_, command) in _commands(tmp_path).items():
        if name in ("intake", "check", "drift"):  # compared in tests of their own, for time
            continue
        said = []
        for option in ("--isolate", "--no-isolate"):
            code = invoke([*command, option])
            captured = capsys.readouterr()
            said.append((code, captured.out, captured.err))
            _remove(tmp_path / "made")
            if name == "pack a folder":
                folder = tmp_path / "submissions" / ENTRY
                assert load_manifest(folder) and not (folder / "model.safetensors").exists()
                assert invoke(["unpack", str(folder)]) == 0
                capsys.readouterr()
        assert said[0] == said[1]


def test_faults_name_the_folder_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process makes it in another place, which nobody needs to know."""
    command = ["import", str(FOLDER / "model.safetensors"), "--track", "digits"]
    options = ["--architecture", "cnn-small", "--out", str(tmp_path / "Bad id")]
    assert invoke([*command, *options]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'Bad id'}: 1 fault" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["recheck", "contest", "check", "import", "intake", "validate", "measure", "pack"]
)
def test_the_calling_process_opens_no_network(name: str, tmp_path: Path) -> None:
    """It does not even load torch, so that a command starts quickly, too."""
    _, command = _commands(tmp_path)[name]
    if name == "check":  # equal weights: loaded, measured, not evaluated
        command[1] = str(FOLDER)
    code = (
        "import sys\n"
        "from corobench.benchmark.cli.main import invoke\n"
        "if __name__ == '__main__':\n"
        "  code = invoke(sys.argv[1:])\n"
        "  sys.exit(100 if 'torch' in sys.modules else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    # The image of the contest fools nobody, and the entry's parent is not handed in.
    assert done.returncode == (2 if name in ("contest", "intake") else 0), done.stderr
