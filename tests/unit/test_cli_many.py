"""Many entries on the command line: options, progress, errors; no network is loaded here."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from rich.console import Console
from tables import make_manifest, make_run, make_table

from corobench.benchmark.cli import many, screens
from corobench.benchmark.cli.main import cli, invoke
from corobench.benchmark.cli.screens import LiveTable, OneReport, PlainLines, screen_of, table_of
from corobench.benchmark.errors import ConfigError, CorobenchError, OutputError, SubmissionError
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.executors.board import Board
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.planning import Plan
from corobench.benchmark.executors.status import find_commands
from corobench.benchmark.executors.work import Watch, Work
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.submission.manifest import format_manifest
from corobench.benchmark.tracks import PROTOCOL, round_of


def _folders(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "submission.toml").write_bytes(format_manifest(make_manifest(name)))
    return [str(root / name) for name in names]


def _evaluated(work: Work, **more: object) -> Evaluated:
    """A result that nobody computed, written where it belongs."""
    name = work.folder.name
    run = make_run().model_copy(
        update={"protocol": PROTOCOL, "entry": name, "submission": make_manifest(name), **more}
    )
    path = work.settings.out / round_of(PROTOCOL) / "digits" / f"{name}@8.json"
    result = write_set(path, make_table(run), run, np.zeros((2, 1, 8, 8), dtype=np.float32))
    return Evaluated(result, path, reused=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Work], Crew]]:
    """What the command asks for; every entry but "bad" gets a result."""
    calls: list[tuple[list[Work], Crew]] = []

    def run(
        works: Sequence[Work], limits: object, crew: Crew, watch: Watch
    ) -> list[Evaluated | CorobenchError]:
        calls.append((list(works), crew))
        done: list[Evaluated | CorobenchError] = []
        for work in works:
            watch.began(work)
            watch.told(work, {"kind": "stage", "text": "clean", "number": 8})
            watch.told(work, {"kind": "advance", "text": "", "number": 8})
            watch.told(work, {"kind": "say", "text": "continuing from finished chunks"})
            outcome: Evaluated | CorobenchError = SubmissionError(work.folder, ["no weights"])
            if not work.folder.name.startswith("bad"):
                outcome = _evaluated(work)
            watch.ended(work, outcome)
            done.append(outcome)
        return done

    monkeypatch.setattr("corobench.benchmark.executors.run_evaluations", run)
    return calls


# ----------------------------------------------------------------------------------- the way


def test_many_entries_are_planned_run_and_told(
    tmp_path: Path, asked: list[tuple[list[Work], Crew]], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = _folders(tmp_path / "s", "a", "b", "bad", "bad-too")
    out = tmp_path / "out"
    command = ["evaluate", *folders, str(tmp_path / "none"), "--out", str(out), "--subset", "8"]
    assert invoke([*command, "--workers", "3"]) == 2
    ((works, crew),) = asked
    assert crew.size == 3 and sorted(work.folder.name for work in works) == [
        *("a", "b", "bad", "bad-too")
    ]
    said = capsys.readouterr()
    assert said.out.count("robust accuracy, proven at least") == 2
    for name in ("none", "bad", "bad-too"):  # all errors, at the end
        assert str(tmp_path / ("none" if name == "none" else f"s/{name}")) in said.err
    assert "a@8: continuing from finished chunks" in said.err
    assert "2 done, 2 failed, 0 running, 0 waiting" in said.err
    assert find_commands(out) == ([], [])  # the status file is gone

    assert invoke([*command, "--missing-only"]) == 2
    assert sorted(work.folder.name for work in asked[1][0]) == ["bad", "bad-too"]
    assert "2 results are there already and left alone" in capsys.readouterr().out


def test_missing_only_without_anything_missing_starts_nothing(
    tmp_path: Path, asked: list[tuple[list[Work], Crew]], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = _folders(tmp_path / "s", "a")
    command = ["evaluate", folder, "--out", str(tmp_path / "out"), "--subset", "8"]
    assert invoke(command) == 0
    assert invoke([*command, "--missing-only"]) == 0
    assert len(asked) == 1
    assert "nothing to do" in capsys.readouterr().out


def test_several_subsets_and_a_share(
    tmp_path: Path, asked: list[tuple[list[Work], Crew]], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = _folders(tmp_path / "s", *(f"bad-{number}" for number in range(6)))
    command = ["evaluate", *folders, "--out", str(tmp_path / "out"), "--subset", "8"]
    for number in ("1", "2"):
        assert invoke([*command, "--subset", "9", "--shard", f"{number}/2"]) == 2
    first, second = ({(work.folder, work.settings.n) for work in works} for works, _ in asked)
    assert not first & second and len(first | second) == 12
    assert "belong to other shares (--shard)" in capsys.readouterr().out


def test_more_results_than_fit_are_one_line_each(
    tmp_path: Path, asked: list[tuple[list[Work], Crew]], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = _folders(tmp_path / "s", *"abcdef")
    assert invoke(["evaluate", *folders, "--out", str(tmp_path / "out"), "--subset", "8"]) == 0
    said = capsys.readouterr().out
    assert "robust accuracy, proven" not in said
    assert said.count("1/16: 37.5–62.5 %") == 6


def _by_keyboard() -> None:
    raise KeyboardInterrupt


def _by_scheduler() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()  # the handler raises


@pytest.mark.parametrize("stop", [_by_keyboard, _by_scheduler])
def test_a_stop_says_how_to_go_on(
    stop: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run(works: Sequence[Work], limits: object, crew: Crew, watch: Watch) -> list[Evaluated]:
        watch.began(works[0])
        watch.ended(works[0], _evaluated(works[0]))
        stop()
        return []

    monkeypatch.setattr("corobench.benchmark.executors.run_evaluations", run)
    folders = _folders(tmp_path / "s", "a", "b")
    assert invoke(["evaluate", *folders, "--out", str(tmp_path / "out"), "--subset", "8"]) == 130
    said = capsys.readouterr().err
    assert "1 done, 0 running, 1 waiting; finished results stay" in said
    assert "to continue, give the same command again" in said
    assert signal.getsignal(signal.SIGTERM) == before
    assert find_commands(tmp_path / "out") == ([], [])


def test_a_contradiction_has_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(works: Sequence[Work], *_: Any) -> list[Evaluated | CorobenchError]:
        done = _evaluated(works[0])
        audit = done.result.audit.model_copy(update={"contradictions": ("image 3 at 1/16",)})
        frozen = Evaluated(done.result.model_copy(update={"audit": audit}), done.path, False)
        return [frozen, SubmissionError(works[1].folder, ["no weights"])]

    monkeypatch.setattr("corobench.benchmark.executors.run_evaluations", run)
    folders = _folders(tmp_path / "s", "a", "b")
    assert invoke(["evaluate", *folders, "--out", str(tmp_path / "out"), "--subset", "8"]) == 3
    said = capsys.readouterr().err
    assert "image 3 at 1/16" in said and "no weights" in said


# -------------------------------------------------------------------------------- the options


def test_devices_by_name_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert many.devices_of("cpu") == ("cpu",)
    monkeypatch.setattr(many, "num_accelerators", lambda: 2)
    assert many.devices_of("all") == ("cuda:0", "cuda:1")
    monkeypatch.setattr(many, "num_accelerators", lambda: 0)
    with pytest.raises(ConfigError, match="no CUDA device"):
        many.devices_of("all")
    with pytest.raises(ConfigError, match="each device once"):
        many.devices_of("cuda:0,cuda:0")
    for text in (",", "", "cuda:0,", "cpu, ,cuda:0"):
        with pytest.raises(ConfigError, match="expected cpu, all, or devices"):
            many.devices_of(text)


@pytest.mark.parametrize(("num", "device"), [(0, "cuda"), (1, "cuda:1"), (2, "cuda:0,cuda:7")])
def test_devices_that_are_not_here_are_told_before_the_work(
    num: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "num_accelerators", lambda: num)
    wish = many.Wish(2, 1, None, False, None)
    with pytest.raises(ConfigError, match="not usable here"):
        wish.crew(device)
    assert many.Wish(2, 1, "auto", False, None).crew(device).ray == "auto"


def test_a_folder_of_results_that_is_a_file_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "results"
    there.write_text("mine")
    monkeypatch.setattr(many, "_run", lambda *_: pytest.fail("work was begun"))
    works = (Work(tmp_path, Settings(out=there), 1.0),)
    with pytest.raises(OutputError, match="cannot be written"):
        many.make(Plan(works, (), 0, ()), there, None, Crew(1))
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "expected a number from 1 to 9999, or auto"),
        (["--workers", "many"], "expected a number from 1 to 9999, or auto"),
        (["--shard", "5/4"], "expected i/N"),
        (["--no-isolate", "--workers", "2"], "--no-isolate"),
        (["--no-isolate", "--ray", "auto"], "--no-isolate"),
        (["--missing-only", "--force"], "choose"),
        (["--device", "cpu,cuda:0"], "--device"),
    ],
)
def test_options_that_cannot_be_are_told(
    options: list[str],
    said: str,
    tmp_path: Path,
    asked: list[tuple[list[Work], Crew]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["evaluate", str(tmp_path), *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert asked == []


def test_workers_auto_leaves_the_number_open(
    tmp_path: Path, asked: list[tuple[list[Work], Crew]]
) -> None:
    (folder,) = _folders(tmp_path / "s", "a")
    base = ["evaluate", folder, "--out", str(tmp_path / "out"), "--subset", "8"]
    more = ["--device", "cuda:0,cuda:1", "--workers-per-device", "3", "--ray", "auto"]
    assert invoke(base) == 0 and invoke([*base, *more]) == 0
    assert asked[0][1] == Crew()
    assert asked[1][1] == Crew(None, ("cuda:0", "cuda:1"), 3, "auto")
    assert asked[1][0][0].settings.device == "cuda:0"


@pytest.mark.parametrize("name", ["evaluate", "recertify", "status", "train"])
def test_the_examples_of_the_help_are_parsed(name: str) -> None:
    """Every example is a command line that this program takes; none is run."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.help is not None
    lines = [line.split() for line in command.help.splitlines() if line.startswith("corobench ")]
    lines = lines or [
        line.split() for line in command.help.splitlines() if "corobench " in line[:16]
    ]
    examples = [words[2:] for words in lines if words[1] == name]
    assert len(examples) >= 2
    for words in examples:
        context = command.make_context(name, list(words), resilient_parsing=False)
        assert context.params


# ------------------------------------------------------------------------------- the progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _works(*names: str) -> list[Work]:
    return [Work(Path(name), Settings(n=8)) for name in names]


def _console(*, terminal: bool, height: int = 30) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=110, height=height)


def _text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_log_has_one_line_per_entry_and_interval() -> None:
    clock, console, (one, two) = Clock(), _console(terminal=False), _works("one", "two")
    board = Board([one, two], clock)
    lines = PlainLines(board, console, interval_s=20.0, clock=clock)

    def tell(work: Work, **message: object) -> None:
        board.told(work, message)
        lines.told(work, message)

    for work in (one, two):
        board.began(work)
        lines.began(work)
        tell(work, kind="stage", text="autoattack 1/16", number=500)
    for second in range(1, 66):
        clock.now = float(second)
        tell(one, kind="advance", text="60.0–70.0 %", number=1)
    said = [line for line in _text(console).splitlines() if line]
    assert len(said) == 3  # at 21, 42 and 63 s
    assert said[0] == "[  21.0 s] one@8: autoattack 1/16: 21/500 images; 60.0–70.0 %"
    tell(two, kind="say", text="no answer for 3 images")
    fault = SubmissionError("two", ["no weights"])
    for watch in (board, lines):
        watch.ended(two, fault)  # type: ignore[attr-defined]
    *_, say, end = _text(console).splitlines()
    assert say == "[  65.0 s] two@8: no answer for 3 images"
    assert end.startswith("[  65.0 s] two@8: failed: no weights (65.0 s); 0 done, 1 failed")


def _shown(board: Board, num_rows: int) -> str:
    console = _console(terminal=False)
    for part in table_of(board.snapshot(), num_rows, board.clock):
        console.print(part)
    return _text(console)


def test_the_table_shows_what_runs_and_counts_what_does_not_fit(tmp_path: Path) -> None:
    clock, works = Clock(), _works(*(f"entry-{number}" for number in range(9)))
    board = Board(works, clock)
    board.workers("4 workers")
    for work in works[:4]:
        own = Work(work.folder, Settings(n=8, out=tmp_path))
        board.began(work)
        clock.now += 30.0
        board.ended(work, _evaluated(own) if work is not works[1] else CorobenchError("no weights"))
    for work in works[4:7]:
        board.began(work)
        board.told(work, {"kind": "stage", "text": "BaB 1/16", "number": 40})
        board.told(work, {"kind": "advance", "text": "50.0–60.0 %", "number": 16})
    clock.now += 90.0
    wide = _shown(board, 20)
    assert wide.count("16/40") == 3 and wide.count("37.5–62.5 %") == 3 and "no weights" in wide
    assert "1 min 30 s" in wide
    assert "3 done, 1 failed, 3 running, 2 waiting; 4 workers" in wide
    narrow = _shown(board, 4)  # what failed stays longest
    assert narrow.count("16/40") == 3 and "no weights" in narrow and "62.5 %" not in narrow
    tiny = _shown(board, 2)
    assert tiny.count("16/40") == 2 and "1 running ones not shown" in tiny


def test_on_a_terminal_several_entries_are_a_live_table() -> None:
    console, works = _console(terminal=True), _works("one", "two")
    board = Board(works)
    with screen_of(board, console) as screen:
        assert isinstance(screen, LiveTable)
        board.began(works[0])
        board.told(works[0], {"kind": "stage", "text": "CROWN 1/16", "number": 4})
        screen._live.refresh()
        screen.told(works[0], {"kind": "say", "text": "continuing from finished chunks"})
    text = _text(console)
    assert "one@8" in text and "CROWN 1/16" in text and "continuing from finished" in text


def test_one_entry_is_reported_as_ever() -> None:
    console, (work,) = _console(terminal=False), _works("one")
    with screen_of(Board([work]), console) as screen:
        assert isinstance(screen, OneReport)
        screen.began(work)
        for kind, text, number in (
            ("title", "one", 0),
            ("stage", "clean", 8),
            ("advance", "", 8),
            ("finish", "7 of 8 right", 0),
        ):
            screen.told(work, {"kind": kind, "text": text, "number": number})
    assert "one: clean: 7 of 8 right (" in _text(console)
    assert "@8" not in _text(console)


def test_a_log_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., object] = screens.screen_of
    assert isinstance(found(Board(_works("a", "b")), _console(terminal=False)), PlainLines)
