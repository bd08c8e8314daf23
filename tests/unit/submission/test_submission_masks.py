"""`corobench import` of pruned checkpoints: scores and masks in the public layouts of this field.

The source models here are small scripts of our own that follow the published layouts: their own
layers, their own names, their own forward pass.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission import effective_sha256, import_checkpoint, load_submission
from corobench.benchmark.submission.architectures import Normalize, build
from corobench.benchmark.submission.packed import pack

ARGUMENTS = {"width": 0.25}


class _Scored:
    """A layer whose weights count where the score is among the largest of the layer."""

    def prepare(self, keep_ratio: float, own_rate: bool, of_channels: bool = False) -> None:
        generator = torch.Generator().manual_seed(self.weight.numel())
        shape = self.weight.shape
        if of_channels:
            shape = (1, shape[1], 1, 1) if len(shape) == 4 else (1, shape[1])
        scores = torch.randn(shape, generator=generator)
        self.popup_scores = nn.Parameter(scores)
        if own_rate:
            self.k_score = nn.Parameter(torch.logit(torch.tensor(keep_ratio)))
        self.keep_ratio = keep_ratio

    def effective(self) -> torch.Tensor:
        share = self.keep_ratio
        if hasattr(self, "k_score"):
            share = self.k_score.sigmoid().detach() * 0.99 + 0.01
        if self.popup_scores.shape != self.weight.shape:  # the largest of its input channels
            best = self.popup_scores.abs().topk(
                int(torch.round(share * self.weight.shape[1])), dim=1
            )
            mask = torch.zeros_like(self.popup_scores).transpose(0, 1)
            mask[best.indices.flatten()] = 1.0
            return self.weight * mask.transpose(0, 1)
        sizes = self.popup_scores.abs().flatten()
        num_removed = int((1 - share) * sizes.numel())
        threshold = sizes.sort().values[num_removed]
        return self.weight * (sizes >= threshold).reshape(self.weight.shape).float()


class ScoredConv(_Scored, nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(x, self.effective(), self.bias, self.stride, self.padding)


class ScoredLinear(_Scored, nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.effective(), self.bias)


class MaskedConv(nn.Conv2d):
    """A masked layer as adversarial-pruning code keeps it: the mask is a buffer of its own."""

    def forward(self, x):
        weight = self.weight * self.mask
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)


def _scored(keep_ratio: float, own_rate: bool = False, of_channels: bool = False) -> nn.Module:
    """CNN-small with the layers of HYDRA (or, with own rates, of HARP)."""
    torch.manual_seed(3)
    model = build("cnn-small", (1, 8, 8), 10, ARGUMENTS)
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.__class__ = ScoredConv if isinstance(layer, nn.Conv2d) else ScoredLinear
            layer.prepare(keep_ratio, own_rate, of_channels)
    return model.eval()


def _import(path, out, **over):
    options = {"architecture": "cnn-small", "track": "digits", "arguments": ARGUMENTS} | over
    return import_checkpoint(path, out, **options)


@pytest.mark.parametrize("keep_ratio", [0.1, 0.5, 1.0])
def test_a_hydra_checkpoint_on_real_images(tmp_path, keep_ratio):
    model = _scored(keep_ratio)
    state = nn.DataParallel(model).state_dict()
    assert "module.0.popup_scores" in state
    path = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 7, "arch": "cnn_small", "state_dict": state, "best_prec1": 90.1}, path)
    report = _import(path, tmp_path / "hydra", keep_ratio=keep_ratio, reference=model)
    assert report.max_difference == 0.0
    assert report.images == "the first 16 test images"
    assert report.sparsity == pytest.approx(1 - keep_ratio, abs=0.01)
    assert report.notes[0] == "applied scores of 4 layer(s)"


def test_hydra_needs_its_share(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(_scored(0.1).state_dict(), path)
    with pytest.raises(SubmissionError, match=r"--keep-ratio, such as 0\.1 for 10x"):
        _import(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    options = ["--architecture", "cnn-small", "--track", "digits", "--width", "0.25"]
    options += ["--keep-ratio", "0.1", "--out", str(tmp_path / "out")]
    assert invoke(["import", str(path), *options]) == 0


def test_harp_has_its_shares_inside(tmp_path):
    model = _scored(0.2, own_rate=True)
    path = tmp_path / "harp.pt"
    torch.save(model.state_dict(), path)
    report = _import(path, tmp_path / "harp", reference=model)
    assert report.max_difference == 0.0
    assert report.sparsity == pytest.approx(1 - (0.2 * 0.99 + 0.01), abs=0.01)


@pytest.mark.parametrize("keep_ratio", [0.3, 0.5])
def test_channels_that_harp_keeps_are_those_that_its_forward_pass_reads(tmp_path, keep_ratio):
    model = _scored(keep_ratio, own_rate=True, of_channels=True)
    path = tmp_path / "harp.pth.tar"
    torch.save({"state_dict": model.state_dict(), "arch": "vgg"}, path)
    report = _import(path, tmp_path / "harp", reference=model)
    assert report.max_difference == 0.0
    assert report.notes[0] == "applied scores of 4 layer(s)"
    share = keep_ratio * 0.99 + 0.01
    for name, weight in load_submission(tmp_path / "harp").model.state_dict().items():
        if weight.ndim > 1:
            is_read = (weight != 0).transpose(0, 1).flatten(1).any(dim=1)
            assert int(is_read.sum()) == round(share * weight.shape[1]), name


def test_scores_of_output_channels_are_refused(tmp_path):
    model = _scored(0.3, own_rate=True)
    state = model.state_dict()
    state["2.popup_scores"] = torch.rand(len(state["2.weight"]), 1, 1, 1)
    path = tmp_path / "harp.pt"
    torch.save(state, path)
    with pytest.raises(SubmissionError, match="only HARP's scores of input channels are read"):
        _import(path, tmp_path / "out")


def test_harps_pre_training_uses_all_weights_and_one_has_to_say_so(tmp_path):
    state = _scored(0.3, own_rate=True).state_dict()
    state |= {name: torch.ones(()) for name in state if name.endswith("k_score")}
    path = tmp_path / "pretrained.pt"
    torch.save(state, path)
    with pytest.raises(
        SubmissionError,
        match=r"HARP's pre-training.*confirm this with "
        "--keep-ratio 1",
    ):
        _import(path, tmp_path / "out")
    report = _import(path, tmp_path / "out", keep_ratio=1.0)
    assert report.sparsity == 0.0


def test_masked_layers_behind_a_normalisation(tmp_path):
    torch.manual_seed(0)
    network = build("cnn-small", (1, 8, 8), 10, ARGUMENTS)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = MaskedConv
            layer.register_buffer("mask", (torch.rand(layer.weight.shape) < 0.3).float())
    source = nn.Sequential(Normalize([0.5], [0.25]), network).eval()
    state = {
        name: tensor.view(1, 1, 1, 1) if name.startswith("0.") else tensor
        for name, tensor in source.state_dict().items()
    }
    path = tmp_path / "masked.pt"
    torch.save({"state_dict": state}, path)
    arguments = {**ARGUMENTS, "mean": [0.5], "std": [0.25]}
    report = _import(path, tmp_path / "masked", arguments=arguments, reference=source)
    assert report.max_difference <= 1e-6
    assert report.notes[0] == "applied masks of 2 layer(s)"
    weights = load_submission(tmp_path / "masked").model.state_dict()
    zeros = weights["network.0.weight"][weights["network.0.weight"] == 0]
    assert len(zeros) > 0
    assert not torch.signbit(zeros).any()  # removed weights are 0.0 and never -0.0


def test_a_mask_of_another_shape_is_named(tmp_path):
    state = build("cnn-small", (1, 8, 8), 10, ARGUMENTS).state_dict()
    state["0.mask"] = torch.ones(4)
    path = tmp_path / "m.pt"
    torch.save(state, path)
    with pytest.raises(SubmissionError, match=r"`0\.mask`: expected the shape of `0\.weight`"):
        _import(path, tmp_path / "out")


def test_a_share_that_nothing_needs_is_a_fault(tmp_path):
    path = tmp_path / "plain.pt"
    torch.save(build("cnn-small", (1, 8, 8), 10, ARGUMENTS).state_dict(), path)
    with pytest.raises(SubmissionError, match="the checkpoint has none; leave it out"):
        _import(path, tmp_path / "out", keep_ratio=0.1)
    torch.save(_scored(0.2, own_rate=True).state_dict(), path)
    with pytest.raises(SubmissionError, match="a share for each layer"):
        _import(path, tmp_path / "out", keep_ratio=0.1)


def test_packed_weights_are_imported_like_others(tmp_path):
    state = build("cnn-small", (1, 8, 8), 10, ARGUMENTS).state_dict()
    state["5.weight"][:, ::2] = 0.0
    path = tmp_path / "m.packed.safetensors"
    path.write_bytes(pack(state))
    report = _import(path, tmp_path / "out")
    assert report.weights_sha256 == effective_sha256(state)
