"""`corobench --help`: every command in one group, whole lines on a terminal of 80 columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from corobench.benchmark.cli import doctor
from corobench.benchmark.cli.main import GROUPS, cli, invoke
from corobench.benchmark.errors import ConfigError


def _names() -> list[str]:
    return cli.list_commands(click.Context(cli))


def _help(arguments: list[str]) -> str:
    """What a user of a terminal of 80 columns reads."""
    context = click.Context(cli, info_name="corobench", terminal_width=80)
    for name in arguments:
        command = cli.get_command(context, name)
        assert command is not None
        context = click.Context(command, context, info_name=name, terminal_width=80)
    return context.command.get_help(context)


def test_every_command_is_in_one_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == _names()


def test_the_groups_are_shown_in_order_with_whole_summaries() -> None:
    lines = _help([]).splitlines()
    titles = [lines.index(f"{title}:") for title in GROUPS]
    assert titles == sorted(titles)
    for begin, names in zip(titles, GROUPS.values(), strict=True):
        for line, name in zip(lines[begin + 1 :], names, strict=False):
            command = cli.get_command(click.Context(cli), name)
            assert command is not None
            summary = (command.help or "").split("\n\n")[0]
            assert line.split(maxsplit=1) == [name, summary.removesuffix(".")]


@pytest.mark.parametrize("name", ["", *_names()])
def test_nothing_is_cut_off_at_80_columns(name: str) -> None:
    text = _help([name] if name else [])
    examples = [line for line in text.splitlines() if line.lstrip().startswith("corobench ")]
    assert "..." not in text.split("\n", 1)[1]  # behind the line of the usage
    assert [one for one in text.splitlines() if len(one) > 80 and one not in examples] == []


@pytest.mark.parametrize("name", _names())
def test_the_first_sentence_of_a_command_fits_its_line(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    summary = (command.help or "").split("\n\n")[0]
    assert "\n" not in summary and summary[-1] in ".?"
    assert 10 <= len(summary.rstrip(".")) <= 80 - 2 - max(map(len, _names())) - 2


def _recording(monkeypatch: pytest.MonkeyPatch, code: int) -> list[list[str]]:
    """Commands that would run, each with this exit code."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(doctor.subprocess, "run", run)
    return ran


def test_doctor_fix_installs_what_is_missing_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = _recording(monkeypatch, 0)
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "corobench-is-not-here"))
    said: list[str] = []
    doctor.install_missing(said.append)
    assert ran == [[sys.executable, "-m", "pip", "install", "corobench-is-not-here"]]
    assert said == ["$ pip install corobench-is-not-here"]


def test_doctor_fix_takes_the_bound_library_without_its_pins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its release pins torch below 1.13: with its dependencies it would replace torch."""
    ran = _recording(monkeypatch, 0)
    missing = doctor.Finding("auto_LiRPA", False, "not installed", doctor.install("auto_LiRPA"))
    monkeypatch.setattr(doctor, "PACKAGES", ("auto_LiRPA",))
    monkeypatch.setattr(doctor, "_version", lambda package: missing)
    doctor.install_missing(lambda line: None)
    assert ran == [[sys.executable, "-m", "pip", "install", "--no-deps", "auto_LiRPA==0.3"]]


def test_doctor_fix_says_when_pip_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    _recording(monkeypatch, 1)
    monkeypatch.setattr(doctor, "PACKAGES", ("corobench-is-not-here",))
    with pytest.raises(ConfigError, match="pip install corobench-is-not-here: pip ended with"):
        doctor.install_missing(lambda line: None)


def test_doctor_without_fix_installs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = _recording(monkeypatch, 0)
    monkeypatch.setattr(doctor, "PACKAGES", ("corobench-is-not-here",))
    monkeypatch.setattr(doctor, "examine", lambda root: [doctor.Finding("a", True, "b")])
    assert invoke(["doctor", "--data-root", str(tmp_path)]) == 0
    assert ran == []
