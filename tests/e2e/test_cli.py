"""The command line as its users meet it: one entry through, resume after a kill, bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from reissue import ROUND
from safetensors.torch import load_file, save_file
from tables import make_run, make_table

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.submission.architectures import build

TEMPLATE = Path(__file__).parents[2] / "submissions" / "_template"


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """A valid submission folder that a test may spoil."""
    folder = tmp_path / "my-model"
    shutil.copytree(TEMPLATE, folder)
    manifest = (folder / "submission.toml").read_text()
    old = next(line for line in manifest.splitlines() if line.startswith("id = "))
    (folder / "submission.toml").write_text(manifest.replace(old, 'id = "my-model"'))
    return folder


def _edit(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "submission.toml"
    path.write_text(change(path.read_text()))


def _weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


# ------------------------------------------------------------------------------- the main way


def test_a_folder_becomes_a_result_a_score_and_a_page(
    entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert invoke(["validate", str(entry)]) == 0
    assert invoke(["evaluate", str(entry), "--subset", "20", "--out", str(results)]) == 0
    path = results / ROUND / "digits" / "my-model@20.json"
    result = read_result(path)
    assert result.quick
    assert result.n == 20
    for score in result.epsilons.values():
        assert sum(score.counts.values()) == 20
        attacked = score.counts[Outcome.MISCLASSIFIED] + score.counts[Outcome.ATTACKED]
        assert score.counts[Outcome.CERTIFIED] <= score.autoattack
        assert score.counts[Outcome.CERTIFIED] <= 20 - attacked <= result.clean
    assert not (results / ".chunks").exists()

    assert invoke(["score", str(path.with_name("my-model@20.outcomes.parquet"))]) == 0
    assert "proven by CROWN-IBP" in capsys.readouterr().out

    # The very same evaluation is recognised; another one is never overwritten unasked.
    again = ["evaluate", str(entry), "--subset", "20", "--out", str(results)]
    assert invoke(again) == 0
    assert "already there" in capsys.readouterr().out
    assert invoke([*again, "--seed", "1"]) == 2
    assert "holds another result" in capsys.readouterr().err

    site = tmp_path / "site"
    assert invoke(["render", str(results), "--out", str(site)]) == 2
    said = capsys.readouterr().err
    assert f"{path}: quick: true" in said and "--quick" in said and not site.exists()
    assert invoke(["render", str(results), "--out", str(site), "--quick"]) == 0
    assert "my-model" in (site / "index.html").read_text()


def test_a_tampered_result_is_noticed(
    entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert invoke(["evaluate", str(entry), "--subset", "5", "--out", str(results)]) == 0
    path = results / ROUND / "digits" / "my-model@5.json"
    payload = json.loads(path.read_text())
    payload["compactness"]["num_nonzero"] = 1
    path.write_text(json.dumps(payload))
    assert invoke(["score", str(path.with_name("my-model@5.outcomes.parquet"))]) == 2
    assert "differs from the scorecard of its outcome table" in capsys.readouterr().err


def test_kill_9_and_start_again_gives_the_same_result(entry: Path, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        arguments = ["evaluate", str(entry), "--subset", "12", "--out", str(out)]
        return [sys.executable, "-m", "corobench", *arguments]

    environment = {**os.environ, "COROBENCH_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(command(killed), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(killed.glob(".chunks/*/certify-*.chunk")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(killed.glob("*/digits/*.json"))

    for out in (killed, whole):
        subprocess.run(command(out), env=environment, check=True, capture_output=True)
    results, tables, images = [], [], []
    for out in (killed, whole):
        path = out / ROUND / "digits" / "my-model@12.json"
        payload = json.loads(path.read_text())
        payload.pop("seconds")
        payload["files"].pop("outcomes.parquet")  # has seconds in it, too
        results.append(payload)
        table, _ = read_outcomes(path.with_name("my-model@12.outcomes.parquet"))
        tables.append(table.drop(columns="seconds"))
        images.append(path.with_name("my-model@12.adversarial.npz").read_bytes())
    assert results[0] == results[1]
    pd.testing.assert_frame_equal(*tables)
    assert images[0] == images[1]


# ----------------------------------------------------------------------------------- bad input


def _probabilities(state: dict[str, torch.Tensor]) -> None:
    """A last layer whose outputs are 0.1 each: a probability distribution."""
    weight, bias = list(state)[-1], list(state)[-2]
    for name in (weight, bias):
        state[name] = torch.full_like(state[name], 0.1 if state[name].ndim == 1 else 1e-9)


def _nan(state: dict[str, torch.Tensor]) -> None:
    next(iter(state.values())).view(-1)[0] = float("nan")


def _wrong_shape(state: dict[str, torch.Tensor]) -> None:
    name = next(name for name, tensor in state.items() if tensor.ndim == 2)
    state[name] = torch.zeros(3, 3)


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _replace(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        def change(text: str) -> str:
            assert old in text
            return text.replace(old, new, 1)

        _edit(folder, change)

    return spoil


SPOILED = {
    "missing weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "missing manifest": (lambda f: (f / "submission.toml").unlink(), "submission.toml"),
    "unknown architecture": (_replace('"cnn-small"', '"cnn-smal"'), "did you mean 'cnn-small'"),
    "unknown key": (_replace("title =", "titel ="), "did you mean 'title'"),
    "unknown track": (_replace('track = "digits"', 'track = "digit"'), "did you mean 'digits'"),
    "not TOML": (lambda f: (f / "submission.toml").write_text("id = ["), "submission.toml"),
    "wrong shape": (lambda f: _weights(f, _wrong_shape), "(3, 3)|3x3|\\[3, 3\\]"),
    "NaN weights": (lambda f: _weights(f, _nan), "(?i)nan"),
    "probabilities": (lambda f: _weights(f, _probabilities), "(?i)probabilit"),
    "truncated weights": (_truncate, "(?i)truncated|incomplete|bytes"),
}


@pytest.mark.parametrize("what", SPOILED)
@pytest.mark.parametrize("command", ["validate", "evaluate"])
def test_bad_input_is_one_clear_error(
    what: str, command: str, entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = SPOILED[what]
    spoil(entry)
    out = tmp_path / "results"
    options = ["--out", str(out)] if command == "evaluate" else []
    assert invoke([command, str(entry), *options]) == 2
    printed = capsys.readouterr()
    text = printed.err + printed.out
    assert "Traceback" not in text
    assert str(entry) in text
    assert re.search(message, text), text
    assert not list(out.rglob("*.json"))


def test_a_wrong_class_count_is_refused(entry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(text: str) -> str:
        lines = [line for line in text.splitlines() if not line.startswith("num_classes")]
        at = lines.index("[model]")
        return "\n".join([*lines[: at + 1], "num_classes = 7", *lines[at + 1 :]])

    _edit(entry, change)
    assert invoke(["validate", str(entry)]) == 2
    text = capsys.readouterr().out
    assert "num_classes" in text
    assert "7" in text
    assert "10" in text


def test_a_missing_dataset_lists_the_three_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    checkpoint, folder, empty = (tmp_path / name for name in ("m.pt", "svhn-model", "empty"))
    torch.save(build("cnn-small", (3, 32, 32), 10, {}).state_dict(), checkpoint)
    how = ["--architecture", "cnn-small", "--track", "svhn", "--out", str(folder)]
    assert invoke(["import", str(checkpoint), *how]) == 0
    empty.mkdir()
    out = ["--data-root", str(empty), "--out", str(tmp_path / "results")]
    assert invoke(["evaluate", str(folder), *out]) == 2
    message = capsys.readouterr().err
    for way in ("--data-root", "COROBENCH_DATA", "download"):
        assert way in message
    assert not (tmp_path / "results").exists()


def test_an_output_folder_that_cannot_be_written(
    entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    code = invoke(["evaluate", str(entry), "--subset", "5", "--out", str(tmp_path / "file")])
    assert code == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epsilons", "0.031"], "0.031 is not 8/255"),
        (["--device", "tpu9"], "--device tpu9"),
        (["--subset", "9999"], "9999"),
        (["--subset", "0"], "subset"),
        (["--sebset", "5"], "(?i)no such option"),
    ],
)
def test_options_out_of_range(
    options: list[str],
    message: str,
    entry: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["evaluate", str(entry), "--out", str(tmp_path / "r"), *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    from corobench.benchmark.cli.main import cli

    context = cli.make_context("corobench", ["tracks"])
    for name in cli.list_commands(context):
        assert invoke([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"corobench {name}" in text.split("Example", 1)[-1], name


def test_score_needs_no_torch(tmp_path: Path) -> None:
    run = make_run()
    path = tmp_path / "test-entry@8.outcomes.parquet"
    path.write_bytes(encode_outcomes(make_table(run), run))
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ImportError('no torch here')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from corobench.benchmark.cli.main import invoke\n"
        "sys.exit(invoke(['score', sys.argv[1], '--write']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "test-entry@8.json").clean == 7
