"""`corobench convert`, `compact`, `new`, `measure`, and `import` of ONNX."""

from __future__ import annotations

import pytest
import torch
from onnx_models import classifier
from submission_factory import make_folder, make_state

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import OutputError, SubmissionError
from corobench.benchmark.network.compactness import measure
from corobench.benchmark.submission import effective_sha256, load_submission
from corobench.benchmark.submission.architectures import ARCHITECTURES, build
from corobench.benchmark.submission.converting import compact, to_onnx, to_safetensors
from corobench.benchmark.submission.graph.exporting import export_checked
from corobench.benchmark.submission.validate import validate

DEEP = ("resnet18", "vgg16-bn", "wrn-28-4")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in DEEP else [])
        for name in ARCHITECTURES
    ],
)
def test_an_export_of_every_architecture_comes_back(name):
    arguments = {"width": 0.25, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}
    torch.manual_seed(0)
    model = build(name, (3, 32, 32), 10, arguments).eval()
    images = torch.rand(4, 3, 32, 32)
    _, graph, difference = export_checked(model, (3, 32, 32), images)
    assert difference <= 1e-4 * max(1.0, float(model(images).detach().abs().max()))
    sizes = measure(graph.network, (3, 32, 32))
    # Exporters fold batch-norm: the work stays, and nothing is hidden.
    assert sizes.macs_dense == measure(model, (3, 32, 32)).macs_dense
    assert len(sizes.layers) == len(measure(model, (3, 32, 32)).layers)


def test_to_onnx_and_back_gives_the_same_weights(tmp_path):
    folder = make_folder(tmp_path)
    there = to_onnx(folder, tmp_path / "there")
    assert there.difference <= 1e-5
    assert there.images == "the first 16 test images"
    assert validate([there.folder]) == [(there.folder, [])]
    back = to_safetensors(there.folder, tmp_path / "back", "cnn-small", {"width": 0.1})
    assert load_submission(back.folder).weights_sha256 == effective_sha256(make_state())
    assert load_submission(back.folder).manifest.title == "An entry"
    with pytest.raises(OutputError, match="already exists; expected a new folder"):
        to_onnx(folder, tmp_path / "there")
    with pytest.raises(SubmissionError, match="or other shapes"):
        to_safetensors(there.folder, tmp_path / "other", "cnn-small", {"width": 0.2})


def _with_dead_channels(num: int) -> dict[str, torch.Tensor]:
    """CNN-small of width 1 with `num` dead channels in its second convolution."""
    torch.manual_seed(0)
    state = build("cnn-small", (1, 8, 8), 10, {}).state_dict()
    state["2.weight"][:num] = 0.0
    state["2.bias"][:num] = torch.linspace(-1, 1, num)
    return state


def test_compact_writes_a_smaller_network_that_computes_the_same(tmp_path):
    state = _with_dead_channels(24)
    folder = make_folder(
        tmp_path,
        state,
        model={"arguments": {"width": 1.0}},
        sparsity=24 * 256 / (16 * 16 + 32 * 16 * 16 + 128 * 100 + 1000),
    )
    done = compact(folder, tmp_path / "small")
    small = load_submission(done.folder)
    x = torch.rand(50, 1, 8, 8)
    assert torch.allclose(small.model(x), load_submission(folder).model(x), atol=1e-5)
    assert "24 of 148 removed" in done.lines[0]
    assert validate([done.folder]) == [(done.folder, [])]
    layers = [layer.num_weights for layer in measure(small.model, (1, 8, 8)).layers]
    assert layers == [256, 8 * 256, 8 * 4 * 100, 1000]
    assert invoke(["compact", str(done.folder), "--out", str(tmp_path / "again")]) == 2


def test_what_cannot_be_compacted_says_so(tmp_path):
    with pytest.raises(SubmissionError, match="channels can be removed"):
        compact(make_folder(tmp_path), tmp_path / "out")


def test_new_by_flags_and_the_commands_it_names(tmp_path, capsys):
    options = ["--root", str(tmp_path), "--track", "digits", "--no-ask"]
    assert invoke(["new", "mine", "--architecture", "cnn-small", *options]) == 0
    assert "8 tensors of cnn-small" in capsys.readouterr().out
    ((_, faults),) = validate([tmp_path / "mine"])
    assert faults == ["model.safetensors: expected this file in the folder, but it is missing"]
    assert invoke(["new", "mine", "--architecture", "cnn-small", *options]) == 2
    assert invoke(["new", "a/b", "--architecture", "cnn-small", *options]) == 2
    assert invoke(["new", "other", "--architecture", "cnn-smal", *options]) == 2
    assert "did you mean 'cnn-small'?" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_new_asks_on_a_terminal(tmp_path):
    from click.testing import CliRunner

    from corobench.benchmark.cli.new import new

    checkpoint = tmp_path / "model.pt"
    torch.save(build("cnn-small", (1, 8, 8), 10, {}).state_dict(), checkpoint)
    answers = ["digits", "cnn-small", "A title", "Ada", "MIT", "LWM 10x", str(checkpoint)]
    done = CliRunner().invoke(
        new, ["asked", "--root", str(tmp_path), "--ask"], input="\n".join(answers) + "\n"
    )
    assert done.exit_code == 0, done.output
    folder = tmp_path / "asked"
    assert validate([folder]) == [(folder, [])]
    manifest = load_submission(folder).manifest
    assert (manifest.title, manifest.authors, manifest.licence, manifest.method.name) == (
        "A title",
        ("Ada",),
        "MIT",
        "LWM 10x",
    )


def test_an_onnx_file_is_imported_and_compared_with_its_runtime(tmp_path, capsys):
    source = tmp_path / "net.onnx"
    source.write_bytes(classifier().SerializeToString())
    options = ["--track", "digits", "--out", str(tmp_path / "net")]
    assert invoke(["import", str(source), *options]) == 0
    assert "compared with onnxruntime" in capsys.readouterr().out
    assert validate([tmp_path / "net"]) == [(tmp_path / "net", [])]
    new = ["new", "second", "--root", str(tmp_path), "--track", "digits", "--no-ask"]
    assert invoke([*new, "--from", str(source)]) == 0
    assert load_submission(tmp_path / "second").format == "onnx"
    assert invoke(["import", str(source), "--architecture", "cnn-small", *options]) == 2
    assert invoke(["import", str(tmp_path / "model.pt2"), *options]) == 2


def test_measure_as_a_program_reads_it(tmp_path, capsys):
    import json

    folder = make_folder(tmp_path)
    assert invoke(["measure", str(folder), "--json", "--latency"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compactness"]["format"] == "safetensors"
    assert 0 < found["latency"]["low_ms"] <= found["latency"]["high_ms"]
    assert found["latency"]["hardware"]
    assert invoke(["measure"]) == 2
    assert invoke(["measure", str(folder)]) == 0
    assert "multiply-adds" in capsys.readouterr().out
