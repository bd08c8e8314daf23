"""Checkpoints as other tools write them: the plain network's weights, or a refusal with a way."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
import torch
from submission_factory import make_state
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.checkpoint import read_checkpoint
from corobench.benchmark.submission.collecting import collect
from corobench.benchmark.submission.fitting import Matched
from corobench.benchmark.submission.importing import import_checkpoint
from corobench.benchmark.submission.matching import match
from corobench.benchmark.submission.weights import effective_state

WIDTH = {"width": 0.1}


def small(**arguments: object) -> nn.Module:
    network = build("cnn-small", (1, 8, 8), 10, {**WIDTH, **arguments})
    if not arguments:
        network.load_state_dict(make_state())
    return network.eval()


def found(content: object, network: nn.Module | None = None, **options: object) -> Matched:
    """The content after a way through a file."""
    stream = io.BytesIO()
    torch.save(content, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    expected = (network or small()).state_dict()
    return match(Path("model.pt"), collect(loaded), expected, **options)  # type: ignore[arg-type]


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    state, expected = effective_state(state), effective_state(expected)
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def under(prefix: str, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: one for name, one in (state or make_state()).items()}


# ------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "net.",
        "model.net.module._orig_mod.",
        "an_attribute_of_my_own.backbone.",
        "1.",
        "2.0.",
    ],
)
def test_whatever_stands_before_the_names(prefix: str) -> None:
    matched = found({"state_dict": under(prefix)})
    assert_same(matched.state, make_state())
    assert matched.prefix == prefix


def test_an_average_of_torch_has_a_counter_beside_it() -> None:
    matched = found(torch.optim.swa_utils.AveragedModel(small()).state_dict())
    assert_same(matched.state, make_state())
    assert matched.notes == ()


def test_losses_and_metrics_beside_the_network_are_told() -> None:
    state = under("model.") | {"criterion.weight": torch.ones(10), "acc.tp": torch.zeros(10)}
    matched = found({"state_dict": state, "loops": {}, "hyper_parameters": {"lr": 0.1}})
    assert_same(matched.state, make_state())
    assert any("criterion (1), acc (1)" in note for note in matched.notes)


def test_an_unknown_tensor_among_those_of_the_network_is_a_fault() -> None:
    with pytest.raises(SubmissionError, match=r"unknown to the architecture: 9\.weight"):
        found(under("net.") | {"net.9.weight": torch.ones(2, 2)})


def test_a_wrapper_within_the_names() -> None:
    network = build("vgg16-bn", (1, 28, 28), 10, {"width": 0.05})
    state = network.state_dict()
    wrapped = {name.replace("features.", "features.module."): one for name, one in state.items()}
    matched = found({"state_dict": wrapped}, network)
    assert_same(matched.state, state)
    assert "left out of the names: module" in matched.notes


def test_names_of_torchvision() -> None:
    network = build("resnet18", (3, 32, 32), 10, {"width": 0.05})
    state = network.state_dict()
    theirs = {
        name.replace("shortcut", "downsample").replace("linear.", "fc."): one
        for name, one in state.items()
    }
    matched = found(under("module.", theirs), network)
    assert_same(matched.state, state)
    assert "names: downsample is shortcut here, fc is linear here" in matched.notes
    assert any("max-pooling behind conv1" in note for note in matched.notes)


def test_a_word_that_could_stand_for_two_is_not_guessed() -> None:
    network = nn.ModuleDict({key: nn.Linear(3, 3, bias=False) for key in "abcdef"})
    state = {
        name.replace("a.", "x.").replace("b.", "y."): one
        for name, one in network.state_dict().items()
    }
    with pytest.raises(SubmissionError, match=r"2 tensor\(s\) missing"):
        found(state, network)


# ------------------------------------------------------------------------------ normalisation


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (("normalizer.new_mean", "normalizer.new_std"), "model."),
        (("normalize.mean", "normalize.std"), "model."),
        (("norm.mean", "norm.std"), "net."),
        (("0.mean", "0.sigma"), "1."),
        (("mu", "sigma"), ""),
        (("module.normalizer.new_mean", "module.normalizer.new_std"), "module.model."),
    ],
)
def test_a_normalisation_by_any_name(names: tuple[str, str], prefix: str) -> None:
    pair = {names[0]: torch.full((1, 1, 1), 0.3), names[1]: torch.full((1, 1, 1), 0.4)}
    content = {**pair, **under(prefix)}
    network = small(mean=[0.3], std=[0.4])
    matched = found(content, network)
    expected = {f"network.{name}": one for name, one in make_state().items()}
    expected |= {"normalize.mean": torch.tensor([0.3]), "normalize.std": torch.tensor([0.4])}
    assert_same(matched.state, expected)
    with pytest.raises(SubmissionError, match=r"\(--mean 0\.3 --std 0\.4\)"):
        found(content)


def test_one_number_for_all_channels() -> None:
    network = build("cnn-small", (3, 32, 32), 10, {**WIDTH, "mean": [0.5] * 3, "std": [0.2] * 3})
    state = {name.removeprefix("network."): one for name, one in network.state_dict().items()}
    state |= {"normalize.mean": torch.tensor(0.5), "normalize.std": torch.tensor(0.2)}
    assert_same(found(state, network).state, network.state_dict())


def test_the_robustness_library_holds_its_network_twice() -> None:
    content = {
        "model": {
            **under("module.model."),
            **under("module.attacker.model."),
            **{
                f"module.{place}.new_{key}": torch.full((1, 1, 1), value)
                for place in ("normalizer", "attacker.normalize")
                for key, value in (("mean", 0.3), ("std", 0.4))
            },
        },
        "epoch": 3,
    }
    network = small(mean=[0.3], std=[0.4])
    matched = found(content, network)
    assert_same(
        {name: one for name, one in matched.state.items() if name.startswith("network.")},
        under("network."),
    )
    assert matched.prefix == "module.model." and matched.notes == ()
    content["model"]["module.attacker.normalize.new_std"] = torch.full((1, 1, 1), 0.5)
    with pytest.raises(SubmissionError, match="expected one normalisation of the input"):
        found(content, network)


# ------------------------------------------------------------------------------ several sets


def other() -> dict[str, Tensor]:
    return {name: one + 0.5 for name, one in make_state().items()}


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"model": other(), "model_ema": make_state()}, ("model", "model_ema")),
        ({"state_dict": other(), "ema": {"module": make_state()}}, ("state_dict", "ema.module")),
        (
            {"state_dict": {**under("model.", other()), **under("ema.module.")}},
            ("state_dict.model", "state_dict.ema.module"),
        ),
        (
            {"checkpoint": {"last": other(), "best": make_state()}},
            ("checkpoint.last", "checkpoint.best"),
        ),
    ],
)
def test_raw_and_averaged_weights_ask_which(content: object, keys: tuple[str, str]) -> None:
    with pytest.raises(SubmissionError, match="--state-key: ") as info:
        found(content)
    assert set(str(info.value).rpartition("--state-key: ")[2].split(", ")) == set(keys)
    for key, state in zip(keys, (other(), make_state()), strict=True):
        assert_same(found(content, key=key).state, state)


def test_an_average_without_names_is_told() -> None:
    averages = {"decay": 0.99, "shadow_params": [one + 0.5 for one in make_state().values()]}
    matched = found({"model": make_state(), "ema": averages})
    assert_same(matched.state, make_state())
    assert any("not taken: other weights under ema.shadow_params" in one for one in matched.notes)


def test_twice_the_same_weights_and_keys_in_keys() -> None:
    content = {"run": {"state_dict": make_state(), "best": make_state()}, "epoch": 3}
    assert_same(found(content).state, make_state())


def test_the_state_of_an_optimiser_is_nobodys_weights() -> None:
    network = small()
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 1, 8, 8)).sum().backward()
    optimiser.step()
    content = {"net": network.state_dict(), "optimizer": optimiser.state_dict()}
    matched = found(content)
    assert_same(matched.state, network.state_dict())
    assert matched.notes == ()


# ------------------------------------------------------------------------------ masks


def masks() -> dict[str, Tensor]:
    return {
        name: (one.abs() > one.abs().median()).float()
        for name, one in make_state().items()
        if one.dim() > 1
    }


def masked() -> dict[str, Tensor]:
    own = masks()
    return {
        name: torch.where(own[name] != 0, one, torch.zeros_like(one)) if name in own else one
        for name, one in make_state().items()
    }


@pytest.mark.parametrize(
    "beside",
    [
        {"masks": masks()},
        {"mask": {name.removesuffix(".weight"): one.bool() for name, one in masks().items()}},
        {"mask": list(masks().values())},
        {"pruner": {"masks": {f"module.{name}": one for name, one in masks().items()}}},
        {"masks": {name: one.to_sparse() for name, one in masks().items()}},
        {"masks": dict(enumerate(masks().values()))},
        {"masks": {f"{name.removesuffix('weight')}pruning_mask": m for name, m in masks().items()}},
        {"masks": masks(), "best_masks": masks(), "old_masks": {}},
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_masks_under_a_key_of_their_own_are_applied(beside: dict[str, object], prefix: str) -> None:
    matched = found({"state_dict": under(prefix), **beside})
    assert_same(matched.state, masked())
    assert "applied masks of 4 weight(s), from a key of their own" in matched.notes


def test_masks_of_all_weights_and_biases_in_their_order() -> None:
    own = [masks().get(name, torch.ones_like(one)) for name, one in make_state().items()]
    matched = found({"state_dict": make_state(), "masks": own})
    assert_same(matched.state, masked())
    assert "applied masks of 8 weight(s), from a key of their own" in matched.notes


def test_masks_belong_to_the_weights_beside_them() -> None:
    """Those of other weights in the file are not put on the weights that were asked for."""
    raw = {f"{name}_orig": 2 * make_state()[name] for name in masks()}
    raw |= {f"{name}_mask": one for name, one in masks().items()}
    raw |= {name: one for name, one in make_state().items() if name not in masks()}
    content = {"raw": raw, "ema": make_state()}
    assert_same(found(content, key="ema").state, make_state())
    with pytest.raises(SubmissionError, match="--state-key: ema, raw"):
        found(content)


def test_a_mask_of_whole_channels() -> None:
    mask = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    state = found({"model": make_state(), "mask": {"0.weight": mask}}).state
    assert torch.equal(state["0.weight"][0], make_state()["0.weight"][0])
    assert not bool(state["0.weight"][1].any())


@pytest.mark.parametrize(
    ("beside", "fault"),
    [
        ({"masks": {"9.weight": torch.ones(3, 3)}}, "a mask that is named like no weight"),
        ({"masks": [torch.ones(3, 3)]}, "a mask that is named like no weight"),
        ({"masks": {"0.weight": torch.ones(3)}}, r"a mask of shape \[3\] for weights of shape"),
        ({"masks": {"0.weight": make_state()["0.weight"]}}, "other values than 0 and 1"),
        ({"masks": {"0.weight": [1, 0]}}, "expected masks as tensors"),
        ({"pruned": {k: one.bool() for k, one in masks().items()}}, "are they masks"),
        ({"keep": {k: one.flatten() for k, one in masks().items()}}, "are they masks"),
        ({"tickets": list(masks().values())}, "are they masks"),
        ({"kept": {k: one.flatten().nonzero()[:, 0] for k, one in masks().items()}}, "places of"),
        ({"masks": {"0.weight": [[[[1.0]]]]}, "old": 3}, "`masks.0.weight`: expected masks as ten"),
        (
            {"masks": masks(), "old_masks": {k: 1 - one for k, one in masks().items()}},
            "another mask than `masks.0.weight`",
        ),
    ],
)
def test_masks_that_cannot_be_applied_are_refused(beside: dict[str, object], fault: str) -> None:
    with pytest.raises(SubmissionError, match=fault) as info:
        found({"state_dict": make_state(), **beside})
    assert "layer.weight.data.mul_(mask)" in str(info.value)


def test_a_set_of_zeros_and_ones_beside_a_wrapped_network_is_no_rest() -> None:
    pruner = {f"pruner.{number}": one for number, one in enumerate(masks().values())}
    with pytest.raises(SubmissionError, match=r"4 tensors such as `pruner\.0`.*are they masks"):
        found({**under("net."), **pruner})


def test_a_soft_mask_of_a_layer_is_refused() -> None:
    state = make_state() | {"0.weight_mask": torch.full_like(make_state()["0.weight"], 0.5)}
    with pytest.raises(SubmissionError, match="expected a mask of zeros and ones"):
        found(state)


def test_pruned_biases_and_masks_of_booleans() -> None:
    network = small()
    prune.l1_unstructured(network[5], "weight", 0.5)
    prune.l1_unstructured(network[5], "bias", 0.5)
    state = network.state_dict()
    state = {name: one.bool() if name.endswith("_mask") else one for name, one in state.items()}
    matched = found(state)
    prune.remove(network[5], "weight")
    prune.remove(network[5], "bias")
    assert_same(matched.state, network.state_dict())


# ------------------------------------------------------------------------------ computed weights


NORMS = {
    "spectral, old": lambda layer: nn.utils.spectral_norm(layer),
    "spectral, new": lambda layer: parametrizations.spectral_norm(layer),
    "weight, old": lambda layer: torch.nn.utils.weight_norm(layer),
    "weight, old, all": lambda layer: torch.nn.utils.weight_norm(layer, dim=None),
    "weight, old, inputs": lambda layer: torch.nn.utils.weight_norm(layer, dim=1),
    "weight, new": lambda layer: parametrizations.weight_norm(layer),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("place", [2, 5])
def test_norms_of_torch_give_the_weights_to_the_last_bit(norm: str, place: int) -> None:
    network = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        NORMS[norm](network[place])
        with torch.no_grad():
            for name, one in network.named_parameters():
                if name.endswith(("_g", "original0")):
                    one.mul_(1.5)
            network.train()(torch.rand(4, 1, 8, 8))
            network.eval()(torch.rand(4, 1, 8, 8))
        matched = found(under("module.", network.state_dict()))
    plain = small()
    plain.load_state_dict(matched.state)
    x = torch.rand(8, 1, 8, 8)
    assert torch.equal(plain(x), network(x))
    assert torch.equal(plain[place].weight, network[place].weight)


def test_a_mask_on_a_part_of_a_weight_norm_is_applied() -> None:
    network = small()
    nn.utils.weight_norm(network[5])
    prune.l1_unstructured(network[5], "weight_v", 0.5)
    network(torch.rand(1, 1, 8, 8))  # hooks compute the weight
    state = found(network.state_dict()).state
    assert torch.equal(state["5.weight"], network[5].weight.detach())


def test_a_network_prepared_for_quantisation_is_named() -> None:
    network = small()
    network.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = torch.ao.quantization.prepare(network)
    prepared(torch.rand(2, 1, 8, 8))
    with pytest.raises(SubmissionError, match=r"prepared for quantisation.*quantize_static"):
        found(prepared.state_dict())


def test_masks_that_torch_does_not_save_are_named() -> None:
    from torch.ao.pruning import WeightNormSparsifier

    network = small()
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1))
    sparsifier.prepare(network, [{"tensor_fqn": "5.weight"}])
    sparsifier.step()
    with pytest.raises(SubmissionError, match=r"`5\.weight`.*sparsifier\.squash_mask\(\)"):
        found(network.state_dict())
    sparsifier.squash_mask()
    assert_same(found(network.state_dict()).state, network.state_dict())


def test_another_parametrisation_says_how_to_bake_it() -> None:
    network = small()
    parametrizations.orthogonal(network[5])
    with pytest.raises(SubmissionError, match=r"remove_parametrizations\(layer, 'weight'\)"):
        found(network.state_dict())


def test_a_mask_that_was_left_behind_says_how_to_bake_it() -> None:
    state = make_state()
    state["5.weight_orig"] = state.pop("5.weight")
    with pytest.raises(SubmissionError, match=r"prune\.remove\(layer, 'weight'\)"):
        found(state)


# ------------------------------------------------------------------------------ kinds of tensors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_sparse_csc"])
def test_sparse_tensors_are_read(layout: str) -> None:
    state = {
        name: getattr(one, layout)() if one.dim() == 2 else one for name, one in masked().items()
    }
    assert_same(found(state).state, masked())


def test_tensors_without_values_are_named() -> None:
    with pytest.raises(SubmissionError, match=r"`0\.weight` and 7 more: on the meta device"):
        found({name: one.to("meta") for name, one in make_state().items()})


@pytest.mark.filterwarnings("ignore")
def test_tensors_quantised_by_torch_are_named() -> None:
    state = make_state()
    state["5.weight"] = torch.quantize_per_tensor(state["5.weight"], 0.01, 0, torch.qint8)
    with pytest.raises(SubmissionError, match=r"`5\.weight`: quantised by torch \(qint8\).*QDQ"):
        found(state)


def test_scripts_and_archives_say_what_to_save(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(small()), str(path))
    with pytest.raises(SubmissionError, match=r"torch\.jit\.load\(path\)\.state_dict\(\)") as info:
        read_checkpoint(path)
    assert "\x1b" not in str(info.value) and "\\x1b" not in str(info.value)
    program = torch.export.export(small(), (torch.rand(2, 1, 8, 8),))
    torch.export.save(program, tmp_path / "model.pt2")
    (tmp_path / "model.pt2").rename(path)
    with pytest.raises(SubmissionError, match="torch-export"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [(torch.rand(3), "a single tensor"), ({}, "nothing in the file"), ({"epoch": 3}, "epoch")],
)
def test_what_is_no_state_dict_is_named(content: object, what: str) -> None:
    with pytest.raises(SubmissionError, match=f"expected a state dict .* but found .*{what}"):
        found(content)


def test_a_number_beside_the_layers_is_left_out() -> None:
    matched = found({**make_state(), "epoch": torch.tensor(3)})
    assert_same(matched.state, make_state())
    assert "left out, a number and no weight: epoch" in matched.notes


def test_a_key_may_end_with_its_dot() -> None:
    content = {"a": make_state(1), "b": make_state()}
    assert_same(found(content, key="b.").state, make_state())


def test_a_list_of_tensors_has_no_names() -> None:
    with pytest.raises(SubmissionError, match=r"but found list; save it with torch\.save"):
        found(list(make_state().values()))


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt-epoch=3"
    torch.save({"checkpoint": {"state_dict": make_state()}}, path)
    report = import_checkpoint(
        path, tmp_path / "entry", architecture="cnn-small", track="digits", arguments=WIDTH
    )
    assert report.max_difference == 0.0
