"""A folder to a model, and every way in which a folder is refused."""

from __future__ import annotations

import os
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from submission_factory import make_folder, make_state, raw_safetensors

from corobench.benchmark.errors import ConfigError, OutputError, SubmissionError
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.submission import (
    effective_sha256,
    load_manifest,
    load_submission,
    write_weights,
)
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.submission.manifest import format_manifest, parse_manifest
from corobench.benchmark.submission.validate import validate
from corobench.benchmark.submission.weights import read_weights


def _faults(folder, track=None):
    with pytest.raises(SubmissionError) as caught:
        load_submission(folder, track)
    assert caught.value.path == str(folder)
    assert caught.value.exit_code == 2
    return caught.value.faults


def _only(faults):
    assert len(faults) == 1, faults
    return faults[0]


# ---------------------------------------------------------------------------- valid


def test_valid_folder_is_loaded_as_it_was_written(tmp_path):
    state = make_state()
    submission = load_submission(make_folder(tmp_path, state))
    assert submission.track.name == "digits"
    assert submission.weights_sha256 == effective_sha256(state)
    assert submission.sparsity == 0.0
    assert not submission.model.training
    source = build("cnn-small", (1, 8, 8), 10, {"width": 0.1}).eval()
    source.load_state_dict(state)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(submission.model(x), source(x))
    assert validate([tmp_path / "entry"]) == [(tmp_path / "entry", [])]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_types_become_float32(tmp_path, dtype):
    import safetensors.torch

    folder = make_folder(tmp_path)
    state = {name: tensor.to(dtype) for name, tensor in make_state().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    submission = load_submission(folder)
    assert {p.dtype for p in submission.model.parameters()} == {torch.float32}
    assert submission.weights_sha256 == effective_sha256(state)


def test_batch_norm_counters_are_no_weights(tmp_path):
    import safetensors.torch

    state = build("resnet18", (1, 8, 8), 10, {"width": 0.05}).state_dict()
    model = {"architecture": "resnet18", "arguments": {"width": 0.05}}
    folder = make_folder(tmp_path, state, model=model)
    without = load_submission(folder)
    safetensors.torch.save_file(state, folder / "model.safetensors")
    assert load_submission(folder).weights_sha256 == without.weights_sha256
    assert all(torch.isfinite(tensor).all() for tensor in without.model.state_dict().values())


def test_effective_hash():
    state = make_state()
    sha256 = effective_sha256(state)
    assert sha256 == effective_sha256(dict(reversed(state.items())))
    for name in state:
        changed = {key: tensor.clone() for key, tensor in state.items()}
        changed[name].view(-1)[0] = torch.nextafter(changed[name].view(-1)[0], torch.tensor(9.0))
        assert effective_sha256(changed) != sha256
    assert effective_sha256({"a": torch.zeros(2, 3)}) != effective_sha256({"a": torch.zeros(3, 2)})


def test_override_of_the_track(tmp_path):
    arguments = {"model": {"arguments": {"width": 0.1}}}
    torch.manual_seed(0)
    state = build("cnn-small", (3, 32, 32), 10, {"width": 0.1}).state_dict()
    folder = make_folder(tmp_path, state, track="cifar10", **arguments)
    assert load_submission(folder, "svhn").track.name == "svhn"
    fault = _only(_faults(folder, "digits"))
    assert "expected a model for 1x8x8 images and 10 classes, but the manifest's track" in fault
    with pytest.raises(ConfigError, match="unknown track 'svnh': did you mean 'svhn'"):
        load_submission(folder, "svnh")


def test_manifest_goes_round(tmp_path):
    manifest = load_manifest(make_folder(tmp_path, parent="big", links=["https://example.org/a"]))
    assert isinstance(manifest, Manifest)
    assert parse_manifest(format_manifest(manifest)) == manifest


# ------------------------------------------------------------------------- manifest


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"titel": "x"}, "unknown key `titel`: did you mean 'title'?"),
        ({"model": {"archtecture": "x"}}, "unknown key `model.archtecture`: did you mean 'archit"),
        ({"method": {"objektive": "x"}}, "unknown key `method.objektive`"),
        ({"authors": None}, "missing key `authors`"),
        ({"training": {"data": None}}, "missing key `training.data`"),
        ({"authors": []}, "`authors`: expected at least 1 item(s), but found []"),
        ({"schema": 2}, "`schema`: expected 1, but found 2"),
        ({"schema": True}, "`schema`: expected the whole number 1, but found True"),
        ({"schema": 1.0}, "`schema`: expected the whole number 1, but found 1.0"),
        ({"sparsity": "0.9"}, "`sparsity`: expected a number, but found '0.9'"),
        ({"sparsity": 1.5}, "`sparsity`: expected at most 1.0, but found 1.5"),
        ({"sparsity": float("nan")}, "`sparsity`: expected"),
        ({"id": "../x"}, "`id`: expected at most 80 letters a-z"),
        (
            {"links": ["javascript:alert(1)"]},
            "`links.0`: expected an address that begins with http",
        ),
        (
            {"model": {"weights": "../x.safetensors"}},
            "`model.weights`: expected the name of a file",
        ),
        ({"model": {"num_classes": True}}, "`model.num_classes`: expected an integer"),
        ({"model": {"arguments": {"width": {}}}}, "`model.arguments.width`: expected true or fal"),
        ({"method": {"pipeline": "later"}}, "`method.pipeline`: expected 'before', 'during'"),
        ({"track": "digit"}, "`track`: unknown track 'digit': did you mean 'digits'?"),
        ({"model": 3}, "`model`: expected "),
        ({"model": {"architecture": "cnn-smal"}}, "unknown architecture 'cnn-smal': did you mean"),
        ({"model": {"arguments": {"widht": 1}}}, "unknown argument 'widht' of architecture"),
        ({"model": {"num_classes": 7}}, "`model.num_classes`: expected 10 (track digits), but fo"),
        ({"sparsity": 0.9}, "`sparsity`: declared 0.9000, but the weights have 0.0000"),
    ],
)
def test_manifest_faults(tmp_path, over, message):
    faults = _faults(make_folder(tmp_path, **over))
    assert any(message in fault and fault.startswith("submission.toml: ") for fault in faults)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x\xff\xfe", "expected UTF-8, but byte 1 is not"),
        (b"schema = 1\nschema = 1\n", "expected valid TOML with every key once"),
        (b"schema =", "expected valid TOML"),
        (b"", "missing key `title`"),
        (b"x" * 70_000, "submission.toml: expected at most 65536 bytes, but found 70000"),
        (b"links = " + b"[" * 20_000, "expected"),
        (b"links = " + b"[" * 300 + b"]" * 300, "expected tables that are nested less deeply"),
    ],
)
def test_manifests_that_are_no_manifest(tmp_path, content, message):
    folder = make_folder(tmp_path)
    (folder / "submission.toml").write_bytes(content)
    assert any(message in fault for fault in _faults(folder))


def test_all_faults_at_once(tmp_path):
    faults = _faults(make_folder(tmp_path, titel="x", sparsity=-1, authors=None))
    assert len(faults) == 3
    state = make_state() | {"extra": torch.zeros(1)}
    state["7.bias"] = torch.zeros(3)
    (tmp_path / "b").mkdir()
    faults = _faults(make_folder(tmp_path / "b", state, model={"num_classes": 9}))
    assert [fault.split(": ")[0] for fault in faults] == [
        "submission.toml",
        "model.safetensors",
        "model.safetensors",
        "model.safetensors",
    ]


# -------------------------------------------------------------------------- weights


def test_missing_folder_and_files(tmp_path):
    assert "submission folder, but there is none" in _only(_faults(tmp_path / "no"))
    folder = make_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    assert _only(_faults(folder)) == (
        "model.safetensors: expected this file in the folder, but it is missing"
    )
    (folder / "submission.toml").unlink()
    assert "submission.toml: expected this file" in _only(_faults(folder))


def test_tensors_that_do_not_fit(tmp_path):
    state = make_state()
    del state["0.weight"]
    state["mask"] = torch.ones(2)
    state["5.weight"] = torch.zeros(4, 4)
    faults = _faults(make_folder(tmp_path, state))
    assert faults == (
        "model.safetensors: missing tensor `0.weight`",
        "model.safetensors: unexpected tensor `mask`",
        "model.safetensors: tensor `5.weight`: expected shape [10, 12], but found [4, 4]",
    )


def test_names_in_a_file_cannot_write_to_a_terminal_or_a_job_s_log(tmp_path, capsys):
    from corobench.benchmark.cli.main import invoke

    state = make_state() | {"\x1b[2J\n::add-mask::\u202e": torch.zeros(1)}
    folder = make_folder(tmp_path, state)
    assert invoke(["validate", str(folder)]) == 2
    text = capsys.readouterr().out
    assert "unexpected tensor `\\x1b[2J\\n::add-mask::\\u202e`" in text
    assert "\x1b[2J" not in text
    assert not any(line.startswith("::") for line in text.splitlines())


def test_long_lists_are_cut(tmp_path):
    state = make_state() | {f"x{index:02d}": torch.zeros(1) for index in range(25)}
    faults = _faults(make_folder(tmp_path, state))
    assert len(faults) == 11
    assert faults[-1] == "model.safetensors: unexpected tensors: 15 more"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path, value):
    state = make_state()
    state["2.bias"][1] = value
    assert _only(_faults(make_folder(tmp_path, state))) == (
        "model.safetensors: tensor `2.bias`: expected finite float32 values, but found 1 NaN or "
        "infinite"
    )


def test_float64_that_overflows_float32(tmp_path):
    import safetensors.torch

    folder = make_folder(tmp_path)
    state = {name: tensor.double() for name, tensor in make_state().items()}
    state["2.bias"][0] = 1e300
    safetensors.torch.save_file(state, folder / "model.safetensors")
    assert "tensor `2.bias`: expected finite float32" in _only(_faults(folder))


def test_integer_weights_are_refused_by_name(tmp_path):
    import safetensors.torch

    folder = make_folder(tmp_path)
    state = make_state() | {"2.bias": torch.zeros(3, dtype=torch.int64)}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    assert "tensor `2.bias`: expected one of F64, F32, F16, BF16, but found I64" in _only(
        _faults(folder)
    )


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a file of less than 8 bytes"),
        (raw_safetensors({}, size=2**40), "header of at most 4194304 bytes, but found 1099511627"),
        (raw_safetensors({}, size=999), "the file ends after 2: it is truncated"),
        (raw_safetensors(b"\xff\xff"), "expected a safetensors header in JSON"),
        (raw_safetensors(b"[" * 100_000), "expected a safetensors header in JSON"),
        (raw_safetensors(b'{"a":{},"a":{}}'), "a name is listed twice"),
        (raw_safetensors([]), "expected a header that lists"),
        (raw_safetensors({"a": ENTRY}), "expected 4 bytes of values, but found 0: the file is tr"),
        (raw_safetensors({"a": ENTRY}, b"12345"), "expected 4 bytes of values, but found 5"),
        (raw_safetensors({"a": ENTRY | {"shape": [2**62, 4]}}), "sizes out of range"),
        (raw_safetensors({"a": ENTRY | {"shape": [2**31] * 9}}), "sizes out of range"),
        (raw_safetensors({"a": ENTRY | {"shape": [-1]}}), "sizes out of range"),
        (raw_safetensors({"a": ENTRY | {"shape": [2]}}), "shape and offsets disagree"),
        (raw_safetensors({"a": ENTRY | {"shape": [1.0]}}), "sizes must be integers"),
        (
            raw_safetensors({"a": ENTRY, "b": ENTRY}, b"1234"),
            "right after those of another, but found 0 where 4 was expected: overlapping",
        ),
        (
            raw_safetensors({"a": ENTRY | {"data_offsets": [4, 8]}}, b"12345678"),
            "found 4 where 0 was expected: overlapping or unused bytes",
        ),
        (raw_safetensors({"a": 3}), "tensor `a`: expected a valid header entry"),
        (raw_safetensors({"__a": ENTRY}, b"1234"), "unexpected tensor `__a`"),
        (b"PK\x03\x04" + bytes(100), "header of at most"),
    ],
)
def test_damaged_weights(tmp_path, content, message):
    folder = make_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    faults = _faults(folder)
    assert any(message in fault and fault.startswith("model.safetensors: ") for fault in faults)


def test_truncated_weights(tmp_path):
    folder = make_folder(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert "the file is truncated or damaged" in _only(_faults(folder))


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 700), value=st.integers(0, 255), cut=st.integers(0, 60))
def test_no_flipped_byte_escapes_as_a_traceback(tmp_path_factory, position, value, cut):
    folder = tmp_path_factory.mktemp("fuzz")
    state = make_state()
    write_weights(folder / "w", state)
    content = bytearray((folder / "w").read_bytes())
    content[position % len(content)] = value
    (folder / "w").write_bytes(bytes(content[: len(content) - cut]))
    try:
        loaded = read_weights(folder, "w", state)
    except SubmissionError as error:
        assert error.faults
    else:
        assert {name: t.shape for name, t in loaded.items()} == {
            name: t.shape for name, t in state.items()
        }


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_of_a_manifest_escape_as_a_traceback(content):
    with pytest.raises(SubmissionError):
        parse_manifest(content)


# ------------------------------------------------------------------ leaving the folder


@pytest.mark.parametrize("name", ["model.safetensors", "submission.toml"])
def test_symbolic_links_are_refused(tmp_path, name):
    folder = make_folder(tmp_path)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert _only(_faults(folder)) == f"{name}: expected a regular file, but found a symbolic link"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_folders_are_refused(tmp_path):
    folder = make_folder(tmp_path)
    path = folder / "model.safetensors"
    path.unlink()
    os.mkfifo(path)
    assert "expected a regular file, but found something else" in _only(_faults(folder))
    path.unlink()
    path.mkdir()
    assert "expected a regular file, but found something else" in _only(_faults(folder))


@pytest.mark.parametrize("name", ["../w", "a/b", "/etc/passwd", "..", "", "a\\b"])
def test_paths_are_refused(tmp_path, name):
    with pytest.raises(SubmissionError, match="expected the name of a file in the folder"):
        read_weights(tmp_path, name, make_state())


def test_huge_files_are_refused_unread(tmp_path):
    folder = make_folder(tmp_path)
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(3 * 1024**3)
    assert "expected at most 2147483648 bytes, but found 3221225472" in _only(_faults(folder))


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write it"):
        write_weights(tmp_path / "file" / "w.safetensors", make_state())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


# ------------------------------------------------------------------ claims and validate


def test_sparsity_is_measured(tmp_path):
    state = make_state()
    weights = [name for name in state if name.endswith("weight")]
    total = sum(state[name].numel() for name in weights)
    state["5.weight"].zero_()
    share = state["5.weight"].numel() / total
    folder = make_folder(tmp_path, state, sparsity=round(share, 3))
    assert load_submission(folder).sparsity == pytest.approx(share)
    (tmp_path / "b").mkdir()
    wrong = make_folder(tmp_path / "b", state, sparsity=round(share + 0.01, 3))
    assert "they may differ by 0.005" in _only(_faults(wrong))


def test_normalisation_of_the_file_and_the_manifest_agree(tmp_path):
    arguments = {"width": 0.1, "mean": [0.5], "std": [0.25]}
    state = build("cnn-small", (1, 8, 8), 10, arguments).state_dict()
    folder = make_folder(tmp_path, state, model={"arguments": arguments})
    assert load_submission(folder).model[0].std.tolist() == [0.25]
    state["normalize.std"] += 1
    write_weights(folder / "model.safetensors", state)
    assert "tensor `normalize.std`: expected [0.25]" in _only(_faults(folder))


def test_validate_lists_every_folder(tmp_path):
    good = make_folder(tmp_path)
    (tmp_path / "b").mkdir()
    bad = make_folder(tmp_path / "b", titel="x")
    misnamed = tmp_path / "other"
    good.rename(misnamed)
    results = validate([misnamed, bad, tmp_path / "none"])
    assert [path for path, _ in results] == [misnamed, bad, tmp_path / "none"]
    assert "`id`: expected the name of its folder, 'other'" in _only(results[0][1])
    assert "did you mean 'title'" in _only(results[1][1])
    assert "there is none" in _only(results[2][1])


def test_validate_checks_the_contract(tmp_path):
    state = {name: tensor.double() * 1e30 for name, tensor in make_state().items()}
    state = {name: tensor.float() for name, tensor in state.items()}
    ((_, faults),) = validate([make_folder(tmp_path, state)])
    assert any(fault.startswith("contract clause finite") for fault in faults)


def test_header_length_of_the_format_is_little_endian():
    """The helper above writes what the library writes."""
    import safetensors.torch

    content = safetensors.torch.save({"a": torch.zeros(1)})
    assert struct.unpack("<Q", content[:8])[0] == len(content) - 8 - 4


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("payload.num_batches_tracked", torch.rand(50, 50)),
        ("num_batches_tracked", torch.tensor(3)),
        ("payload/of anybody.num_batches_tracked", torch.zeros(3, 3, dtype=torch.bool)),
    ],
)
def test_a_counter_is_one_that_the_network_has(tmp_path, name, tensor):
    """Tensors of that name are neither computed with nor counted, and could hold anything."""
    import safetensors.torch

    folder = make_folder(tmp_path)
    safetensors.torch.save_file(make_state() | {name: tensor}, folder / "model.safetensors")
    (fault,) = _faults(folder)
    assert f"unexpected tensor `{name}`" in fault


def test_a_counter_that_the_network_has_is_one_whole_number(tmp_path):
    import safetensors.torch

    model = {"architecture": "resnet8", "arguments": {"width": 0.25}}
    torch.manual_seed(0)
    state = build("resnet8", (1, 8, 8), 10, {"width": 0.25}).state_dict()
    folder = make_folder(tmp_path, state, model=model, sparsity=0.0)
    name = next(name for name in state if name.endswith("num_batches_tracked"))
    for tensor in (torch.tensor(7), torch.rand(9), torch.rand(())):
        safetensors.torch.save_file(
            {key: one.contiguous() for key, one in state.items()} | {name: tensor},
            folder / "model.safetensors",
        )
        if tensor.dtype == torch.int64:
            load_submission(folder)
        else:
            assert f"unexpected tensor `{name}`" in _faults(folder)[0]
