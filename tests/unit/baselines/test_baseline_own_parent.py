"""The paper's method on an architecture of one's own: an ONNX file, or Python code of mine."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from corobench.baselines.cli import train
from corobench.baselines.own_parent import adopt, load_own_parent
from corobench.baselines.recipe_file import load_recipe
from corobench.benchmark.errors import ConfigError, SubmissionError
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.graph.exporting import export
from corobench.benchmark.submission.validate import find_submission_faults
from corobench.benchmark.tracks import get_track

DIGITS = get_track("digits")
RECIPE = """
id = "tiny-10x"
title = "tiny 10x"
method = "LWM 10x"
track = "digits"
epsilon = "2/16"
validation_rate = 0.9
validation_images = 40
[model]
architecture = "cnn-small"
[prune]
pruner = { name = "lwm" }
keep_ratio = 0.1
[finetune]
objective = { name = "OBJECTIVE" }
epochs = 2
batch_size = 32
"""
CODE = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(1, 6, 1)
        self.head = nn.Linear(6 * 64, 10)

    def forward(self, x):
        return self.head(torch.relu(self.left(x) + self.right(x)).flatten(1))

class Probable(Odd):
    def forward(self, x):
        return super().forward(x).softmax(1)

number = 3
"""


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    return nn.Sequential(*layers).eval()


@pytest.fixture
def recipe(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "tiny-10x.toml"
    path.write_text(RECIPE.replace("OBJECTIVE", getattr(request, "param", "natural")))
    return path


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of mine in the folder that I work in."""
    (tmp_path / "own_nets_of_a_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_nets_of_a_test", raising=False)
    return "own_nets_of_a_test"


def _train(recipe: Path, parent: str, out: Path, *more: str) -> str:
    command = [str(recipe), "--parent", parent, "--out", str(out), *more]
    result = CliRunner().invoke(train, command)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.mark.parametrize("recipe", ["natural", "ibp"], indirect=True)
def test_an_onnx_file_is_pruned_and_fine_tuned(recipe: Path, tmp_path: Path) -> None:
    source = _network()
    (tmp_path / "My Net.onnx").write_bytes(export(source, (1, 8, 8)))
    _train(recipe, str(tmp_path / "My Net.onnx"), tmp_path / "out")
    folder = tmp_path / "out" / "my-net-tiny-10x"
    made = load_submission(folder)
    assert find_submission_faults(folder) == []
    assert made.format == "onnx" and made.manifest.model.architecture is None
    assert made.sparsity == pytest.approx(0.9, abs=2e-3)
    method = made.manifest.method
    assert (method.pipeline, method.pretrain_objective) == ("after", "unknown")
    assert method.criterion == "least-weight-magnitude"
    # What is kept started from the parent's weights: the largest of them.
    before = source[3].weight.detach()
    after = max((p for p in made.model.parameters()), key=torch.Tensor.numel).detach()
    after = after if after.shape == before.shape else after.T
    kept = after != 0
    assert before.abs()[kept].min() >= before.abs()[~kept].max()


def test_code_of_mine_is_pruned_and_goes_on_after_a_pause(
    recipe: Path, code: str, tmp_path: Path
) -> None:
    parent, out = f"{code}:Odd", tmp_path / "out"
    said = _train(recipe, parent, out, "--id", "odd-10x", "--max-minutes", "0.0000001")
    assert "paused" in said and not (out / "odd-10x" / "model.onnx").exists()
    assert "done" in _train(recipe, parent, out, "--id", "odd-10x")
    assert load_submission(out / "odd-10x").sparsity == pytest.approx(0.9, abs=2e-3)
    whole = tmp_path / "whole"
    _train(recipe, parent, whole, "--id", "odd-10x")
    shas = [load_submission(place / "odd-10x").weights_sha256 for place in (out, whole)]
    assert shas[0] == shas[1]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("Probable", SubmissionError, "probabilities"),
        ("number", ConfigError, "found int"),
        ("Ood", ConfigError, "did you mean 'Odd'"),
    ],
)
def test_what_is_no_network_is_refused_before_training(
    code: str, name: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        load_own_parent(f"{code}:{name}", DIGITS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no/such.onnx", "there is none"),
        ("my/nets.py:make", "no file: my.nets:make"),
        (":make", "expected an ONNX file, or a network as module:name"),
        ("torch.nn:", "expected an ONNX file, or a network as module:name"),
        ("digits-adv-dense", "expected an ONNX file, or a network as module:name"),
        ("no_such_module_at_all:net", "no Python module 'no_such_module_at_all'"),
    ],
)
def test_what_is_not_there_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_own_parent(text, DIGITS)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no GPU')", "RuntimeError: no GPU .*broken_own_1.py, line 1"),
        ("def make(:", "SyntaxError: .*broken_own_2.py, line 1"),
        ("import sys; sys.exit(3)", "SystemExit: 3 .*broken_own_3.py, line 1"),
        ("def make(size):\n    pass", "TypeError: .*missing 1 required positional argument"),
        ("def make():\n    open('no/such')", "FileNotFoundError: .*broken_own_5.py, line 2"),
    ],
)
def test_what_my_code_raises_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    number = [one in said for one in ("GPU", "Syntax", "Exit", "Type", "File")].index(True) + 1
    (tmp_path / f"broken_own_{number}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=f"its code raised {said}"):
        load_own_parent(f"broken_own_{number}:make", DIGITS)


def test_a_file_with_its_values_beside_it_is_a_parent(tmp_path: Path) -> None:
    proto = onnx.load_from_string(export(_network(), (1, 8, 8)))
    path = tmp_path / "net.onnx"
    options = {"location": "net.onnx.data", "size_threshold": 0}
    onnx.save_model(proto, path, save_as_external_data=True, **options)
    assert load_own_parent(str(path), DIGITS).name == "net"


def test_a_recipe_that_prunes_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(export(_network(), (1, 8, 8)))
    parent = load_own_parent(str(tmp_path / "net.onnx"), DIGITS)
    with pytest.raises(ConfigError, match="prunes nothing"):
        adopt(load_recipe("digits/adv-dense"), parent, None)
    with pytest.raises(ConfigError, match="--id 'nul'"):
        adopt(load_recipe("digits/adv-lwm-10x"), parent, "nul")
    adopted = adopt(load_recipe("digits/adv-lwm-10x"), parent, None)
    assert (adopted.id, adopted.licence) == ("net-adv-lwm-10x", "unknown")
    # Neither a recipe nor a submission can name code.
    path = tmp_path / "r.toml"
    path.write_text('id = "x"\ntitle = "x"\nmethod = "x"\nparent = "os:getcwd"\n')
    with pytest.raises(ConfigError, match="no recipe of that id"):
        load_recipe(path)


def test_shared_weights_are_refused(code: str, tmp_path: Path) -> None:
    (tmp_path / f"{code}.py").write_text(
        CODE
        + """
def shared():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64),
                        nn.Linear(64, 10))
    net[3].weight = net[1].weight
    return net
"""
    )
    with pytest.raises(ConfigError, match="shared"):
        load_own_parent(f"{code}:shared", DIGITS)
