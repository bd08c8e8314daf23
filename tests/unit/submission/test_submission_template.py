"""The template is valid, right, and made by the script in its README."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.data import load_test
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.validate import validate

TEMPLATE = Path(__file__).parents[3] / "submissions" / "_template"


def _accuracy(folder: Path) -> float:
    model, test = load_submission(folder).model, load_test("digits")
    with torch.no_grad():
        predicted = model(torch.from_numpy(test.images)).argmax(dim=1).numpy()
    return float((predicted == test.labels).mean())


def test_template_is_valid_small_and_a_real_model():
    assert validate([TEMPLATE]) == [(TEMPLATE, [])]
    assert sum(path.stat().st_size for path in TEMPLATE.iterdir()) < 50_000
    assert _accuracy(TEMPLATE) > 0.9


def test_template_names_every_key():
    """A submitter sees each key of the manifest once, set or commented out."""
    from corobench.benchmark.records.result import Manifest, Method, Model, Training

    text = (TEMPLATE / "submission.toml").read_text(encoding="utf-8")
    for record in (Manifest, Model, Method, Training):
        for name, field in record.model_fields.items():
            key = field.alias or name
            table = rf"^(# )?{key} = |^\[(model\.)?{key}\]"
            assert re.search(table, text, re.MULTILINE), key


@pytest.mark.timeout(120)
def test_script_of_the_readme_makes_it(tmp_path):
    readme = (TEMPLATE / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    folder = tmp_path / "_template"
    folder.mkdir()
    (folder / "submission.toml").write_bytes((TEMPLATE / "submission.toml").read_bytes())
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=110)
    assert validate([folder]) == [(folder, [])]
    assert _accuracy(folder) > 0.9


def test_the_readme_leads_from_a_checkpoint_to_a_valid_folder(tmp_path, monkeypatch, capsys):
    """Its lines for a checkpoint and for weights from Python, as they stand there."""
    readme = (TEMPLATE / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    model = build("resnet18", (3, 32, 32), 10, {})
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, "model.pt")
    (given,) = re.findall(r"^    corobench (new my-model .*--from .*)$", readme, re.MULTILINE)
    assert invoke(given.split()) == 0
    assert "largest difference of a logit from model.pt is 0 on" in capsys.readouterr().out
    assert invoke(["validate", "submissions/my-model"]) == 0
    (imported,) = re.findall(
        r"known architecture .*`corobench (import .*)` \|$", readme, re.MULTILINE
    )
    assert invoke(imported.split()) == 2  # one or the other, as the README says
    assert "choose another name, or move it away" in capsys.readouterr().err
    shutil.rmtree("submissions")
    assert invoke([*imported.split(), "--mean", "0.49,0.48,0.45", "--std", "0.25,0.24,0.26"]) == 0
    assert invoke(["validate", "submissions/my-model"]) == 0
    shutil.rmtree("submissions")
    (made,) = re.findall(r"^    corobench (new my-model .*--width .*)$", readme, re.MULTILINE)
    assert invoke([*made.split(), "--no-ask"]) == 0
    part = readme.split("## From Python")[1].split("## What the model")[0]
    lines = re.findall(r"^    ((?:from|model|write_weights).*)$", part, re.MULTILINE)
    assert len(lines) == 4
    exec("\n".join(lines), {})
    assert invoke(["validate", "submissions/my-model"]) == 0


def test_a_normalisation_that_the_weights_do_not_have_is_explained(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(TEMPLATE, folder)
    path = folder / "submission.toml"
    text = path.read_text(encoding="utf-8").replace('id = "template"', 'id = "mine"')
    path.write_text(text.replace("# mean =", "mean =").replace("# std =", "std ="), "utf-8")
    ((_, faults),) = validate([folder])
    assert "import the checkpoint again with --mean and --std" in faults[0]
