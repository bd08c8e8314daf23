"""``corobench train``: what a user sees."""

from __future__ import annotations

import io
from pathlib import Path

from click.testing import CliRunner
from rich.console import Console

from corobench.baselines.cli import train
from corobench.baselines.display import Display
from corobench.baselines.progress import EpochRow, Progress
from corobench.benchmark.errors import ConfigError

RECIPE = """
id = "tiny"
title = "tiny"
method = "dense"
track = "digits"
epsilon = "2/16"
validation_rate = 0.9
validation_images = 40
[model]
architecture = "cnn-small"
[pretrain]
objective = { name = "natural" }
epochs = 2
"""


def test_train_says_where_the_submission_is(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    out = tmp_path / "out"
    result = CliRunner().invoke(train, [str(tmp_path / "tiny.toml"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "tiny: pretrain: epoch 2/2, loss" in result.output
    assert str(out / "tiny") in result.output
    assert (out / "tiny" / "submission.toml").is_file()


def test_a_slice_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    command = [str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(train, [*command, "--max-minutes", "0.0000001"])
    assert result.exit_code == 0
    assert "paused in pretrain after epoch 1" in result.output
    assert "run the same command again" in result.output
    result = CliRunner().invoke(train, command)
    assert "tiny: done" in result.output


def test_bad_input_is_a_corobench_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["no-such-recipe", "--out", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)


def test_help_has_examples() -> None:
    result = CliRunner().invoke(train, ["--help"])
    assert "corobench train digits/adv-lwm-10x --out runs" in result.output


def test_a_terminal_shows_a_live_bar() -> None:
    console = Console(force_terminal=True, width=140, record=True, file=io.StringIO())
    row = EpochRow(1, 1e-3, 0.1, 0.5, 0.9, 0.8, None, True, 1.0)
    with Display(console) as display:
        display(Progress("entry", "pretrain", 5, row, 0.0))
        display._bars.refresh()
    text = console.export_text()
    assert "entry: pretrain" in text and "bound –" in text
