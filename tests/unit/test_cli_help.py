"""`corobench --help`: every command in one group, whole lines on a terminal of 80 columns."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from corobench.benchmark.cli import doctor, listing
from corobench.benchmark.cli.main import GROUPS, cli, invoke


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


MISSING = doctor.Finding("auto_LiRPA", False, "not installed")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that `doctor` would run; the bound library is missing."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, "pip" in command and 1)

    monkeypatch.setattr(listing.subprocess, "run", run)
    monkeypatch.setattr(doctor, "examine", lambda root: [MISSING])
    return commands


def test_doctor_takes_the_bound_library_without_its_pins_and_says_when_pip_fails(
    ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its release pins torch below 1.13: with its dependencies it would replace torch."""
    assert invoke(["doctor", "--fix", "--yes"]) == 2
    assert ran == [[sys.executable, "-m", "pip", "install", "--no-deps", "auto_LiRPA==0.3"]]
    said = " ".join(capsys.readouterr().err.split())
    assert "pip install --no-deps auto_LiRPA==0.3 failed; its output is above" in said


def test_doctor_without_fix_installs_nothing(ran: list[list[str]]) -> None:
    assert invoke(["doctor"]) == 2
    assert ran == []
