"""A submission in a process of its own: whatever ends it, the harness and the reason stay."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trapped
from reissue import ROUND
from rich.console import Console

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.executors import child, isolated, landlock
from corobench.benchmark.executors.limits import GIB, Limits
from corobench.benchmark.executors.scheduling import MAX_TRIES
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.records.result import Outcome

TEMPLATE = Path(__file__).parents[3] / "submissions" / "_template"


class _At(Reporter):
    """Sends a signal to the process that works when a stage begins, a number of times."""

    def __init__(self, stage: str, number: int, times: int = 1) -> None:
        super().__init__("test", Console(file=io.StringIO()))
        self.at, self.number, self.left = stage, number, times

    def stage(self, name: str, total: int) -> None:
        super().stage(name, total)
        if name == self.at and self.left:
            self.left -= 1
            (worker,) = multiprocessing.active_children()
            assert worker.pid is not None
            os.kill(worker.pid, self.number)

    @property
    def text(self) -> str:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue()


def _evaluate(out: Path, limits: Limits, report: Reporter, epsilon: str = "1/16") -> Evaluated:
    settings = Settings(n=4, epsilons=(epsilon,), out=out, is_limited=limits.is_less_than(Limits()))
    return isolated.evaluate(TEMPLATE, settings, limits, report)


def _quiet() -> Reporter:
    return Reporter("test", Console(file=io.StringIO()))


def _comparable(path: Path) -> dict[str, object]:
    payload = json.loads(path.read_text())
    payload.pop("seconds")
    payload["files"].pop("outcomes.parquet")  # has seconds in it, too
    return payload


def test_isolation_changes_no_result_and_progress_is_shown(tmp_path: Path) -> None:
    from corobench.benchmark.evaluation.evaluate import evaluate

    report = _At("", 0)
    apart = _evaluate(tmp_path / "apart", Limits(), report, "1/2")
    here = evaluate(TEMPLATE, Settings(n=4, epsilons=("1/2",), out=tmp_path / "here"), _quiet())
    assert _comparable(apart.path) == _comparable(here.path)
    assert "clean: 4 of 4 right" in report.text
    assert "autoattack 1/2: " in report.text
    # Nothing is left behind but the result.
    assert [path.name for path in (tmp_path / "apart").iterdir()] == [ROUND]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_of_a_step_each_time_is_an_error_with_its_reason(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "serve", partial(trapped.serve, "clean", number))
    report = _At("", 0)
    done = _evaluate(tmp_path, Limits(), report)
    score = done.result.epsilons["1/16"]
    assert score.counts[Outcome.ERROR] == 4
    name = signal.Signals(number).name
    assert any(f"clean: ended by {name}" in line for line in done.result.errors)
    assert report.text.count(f"lost its process: ended by {name}") == MAX_TRIES - 1
    assert f"ended its process: ended by {name}" in report.text


@pytest.mark.slow
def test_where_every_certifier_fails_the_rest_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "serve", partial(trapped.serve_raising, "certify-"))
    done = _evaluate(tmp_path, Limits(), _quiet())
    assert done.result.clean == 4
    assert done.result.errors == ()
    counts = done.result.epsilons["1/16"].counts
    assert counts[Outcome.ATTACKED] + counts[Outcome.UNDECIDED] == 4
    assert len(done.result.not_asked) == 5
    assert all("IndexError" in reason for reason in done.result.not_asked.values())


def test_a_kill_that_comes_once_changes_nothing(tmp_path: Path) -> None:
    report = _At("pgd50 1/16", signal.SIGKILL)
    done = _evaluate(tmp_path / "killed", Limits(), report)
    undisturbed = _evaluate(tmp_path / "calm", Limits(), _quiet())
    assert "lost its process: ended by SIGKILL" in report.text
    assert _comparable(done.path) == _comparable(undisturbed.path)


def test_a_hang_is_a_timeout_with_its_reason(tmp_path: Path) -> None:
    """The process is frozen, as by an endless loop, when its first step has begun."""
    done = _evaluate(tmp_path, Limits(step_s=3.0), _At("clean", signal.SIGSTOP))
    score = done.result.epsilons["1/16"]
    ended = score.counts[Outcome.TIMEOUT]
    assert ended + score.counts[Outcome.ATTACKED] + score.counts[Outcome.CERTIFIED] <= 4
    assert done.result.errors or done.result.not_asked
    reasons = [*done.result.errors, *done.result.not_asked.values()]
    assert any("no answer within 3 s" in line for line in reasons)
    assert done.result.quick


def test_too_much_memory_in_every_step_is_an_error_of_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[child.Child] = []
    create = child.Child.__init__

    def created(self: child.Child, *arguments: Any) -> None:
        create(self, *arguments)
        begun.append(self)

    def resident(pid: int) -> int:
        return 2 * 16 * GIB if begun[-1].step not in ("start", "load", "measure") else 0

    monkeypatch.setattr(child.Child, "__init__", created)
    monkeypatch.setattr(child, "resident_bytes", resident)
    monkeypatch.setattr(child, "LOOK_S", 0.0)
    done = _evaluate(tmp_path, Limits(), _quiet())
    assert 2 <= len(begun) <= 5
    reasons = " ".join([*done.result.errors, *done.result.not_asked.values()])
    assert "used more than 16 GiB of memory" in reasons


def test_what_cannot_even_be_loaded_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"used more than 0\.01 GiB of memory"):
        _evaluate(tmp_path, Limits(memory_bytes=GIB // 100), _quiet())
    assert not list(tmp_path.rglob("*.json"))


def test_one_bad_entry_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(TEMPLATE, bad)
    (bad / "model.safetensors").write_bytes(b"nothing")
    manifest = (bad / "submission.toml").read_text()
    (bad / "submission.toml").write_text(manifest.replace('id = "template"', 'id = "bad"'))
    out = tmp_path / "results"
    options = ["--subset", "3", "--epsilons", "1/2", "--out", str(out)]
    assert invoke(["evaluate", str(bad), str(TEMPLATE), *options]) == 2
    assert "a file of less than 8 bytes" in capsys.readouterr().err
    assert [path.name for path in out.rglob("*.json")] == ["template@3.json"]


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "old").write_text("kept")
    code = (
        "import os, sys, socket\n"
        "from pathlib import Path\n"
        "from corobench.benchmark.executors import landlock\n"
        "inside, outside = map(Path, sys.argv[1:])\n"
        "assert landlock.allow_writes_below([inside, Path(os.devnull)])\n"
        "(inside / 'new').write_text('fine')\n"
        "Path(os.devnull).write_text('fine')\n"
        "tries = [lambda: (outside / 'new').write_text('x'), (outside / 'old').unlink,\n"
        "  lambda: (outside / 'old').write_text('x'), (outside / 'd').mkdir,\n"
        "  lambda: os.rename(inside / 'new', outside / 'new'),\n"
        "  lambda: os.truncate(outside / 'old', 0),\n"
        "  lambda: (outside / 'link').symlink_to('old')]\n"
        "if landlock.version() >= 4:\n"
        "  tries.append(lambda: socket.create_connection(('127.0.0.1', 9), timeout=5))\n"
        "if landlock.version() >= 6:\n"
        "  tries.append(lambda: os.kill(os.getppid(), 0))\n"
        "tries.append(lambda: open(f'/proc/{os.getppid()}/mem', 'rb'))\n"
        "for number, change in enumerate(tries):\n"
        "  try:\n"
        "    change()\n"
        "  except PermissionError:\n"
        "    continue\n"
        "  except OSError as error:\n"
        "    if error.errno == 18: continue\n"
        "    raise\n"
        "  sys.exit(f'{number} was allowed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(inside), str(outside)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (outside / "old").read_text() == "kept"
    assert [path.name for path in outside.iterdir()] == ["old"]


def test_the_limit_of_a_written_file_and_of_processor_time_hold() -> None:
    code = (
        "import sys\n"
        "from corobench.benchmark.executors.limits import Limits, allow_processor_time, apply\n"
        "apply(Limits(file_bytes=1000))\n"
        "try:\n"
        "  open(sys.argv[1], 'wb', buffering=0).write(b'x' * 5000)\n"
        "  assert open(sys.argv[1], 'ab', buffering=0).write(b'x')\n"
        "except OSError: pass\n"
        "else: sys.exit('wrote')\n"
        "allow_processor_time(0.5, 1)\n"
        "while True: pass\n"
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
        assert done.returncode == -signal.SIGXCPU, done.stderr
        assert path.stat().st_size == 1000
