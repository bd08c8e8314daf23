"""The template is valid, right, and made by the script in its README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmark.data import load_test
from benchmark.submission import load_submission, validate

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
    from benchmark.records import Manifest, Method, Model, Training

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
