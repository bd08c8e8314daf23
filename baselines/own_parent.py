"""A dense parent of one's own: an ONNX file, or a network that a Python module makes.

``corobench train RECIPE --parent PARENT`` prunes and fine-tunes it as the recipe says. Python is
imported only because the user named it on the command line; neither a recipe nor a submission can.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from corobench.baselines.recipe import UNKNOWN, Network, Recipe
from corobench.baselines.settings import faults_of
from corobench.benchmark.errors import ConfigError, SubmissionError, nearest
from corobench.benchmark.interactive.export import as_onnx
from corobench.benchmark.interactive.networks import measured_copy
from corobench.benchmark.network.compactness import prunable_layers
from corobench.benchmark.submission.contract import find_broken_clauses, random_images
from corobench.benchmark.submission.files import FileFaultError
from corobench.benchmark.submission.graph.external import read_whole
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.headers import ONNX_SUFFIX
from corobench.benchmark.submission.kinds import is_onnx
from corobench.benchmark.submission.strangers import stranger
from corobench.benchmark.submission.weights import effective_sha256
from corobench.benchmark.tracks import Track, get_track

ONNX = "model.onnx"
_EXPECTED = "expected an ONNX file, or a network as module:name, such as my_project.nets:make_net"


@dataclass(frozen=True, eq=False)
class OwnParent:
    """A network to start from.

    Attributes:
        name: short, for ids and texts.
        what: as the user wrote it.
        network: float32 on the CPU, with its weights; never changed.
        fingerprint: of wiring and weights.
    """

    name: str
    what: str
    network: nn.Module
    fingerprint: str

    def copy(self) -> nn.Module:
        """A copy that can be trained."""
        return copy.deepcopy(self.network).requires_grad_(True)


def load_own_parent(text: str, track: Track) -> OwnParent:
    """The network that ``--parent`` names, checked before any training.

    Args:
        text: path of an ONNX file, or ``module:name`` of a network or a function that makes one.
        track: whose images it takes.

    Raises:
        ConfigError: there is no such file, module or name, or it is no network that can be pruned.
        SubmissionError: it breaks the model contract, or cannot be written as ONNX afterwards.
    """
    module, _, name = text.partition(":")
    if text.endswith(ONNX_SUFFIX) or is_onnx(Path(text)):
        network, name, wiring = _from_file(Path(text), track)
    elif module and name and not Path(text).exists():
        network, name = _from_module(text)
        wiring = repr(network)
    else:
        raise ConfigError(f"--parent {text}: {_EXPECTED}")
    network.eval()
    faults = find_broken_clauses(network, random_images(track.shape), track.num_classes, None)
    if faults:
        raise SubmissionError(text, faults)
    _require_prunable(network, text)
    as_onnx(network, track)  # what cannot be written afterwards is not worth hours of training
    digest = hashlib.sha256(f"{wiring}\n{effective_sha256(network.state_dict())}".encode())
    return OwnParent(name, text, network, digest.hexdigest())


def adopt(recipe: Recipe, parent: OwnParent, entry: str | None) -> Recipe:
    """The recipe that prunes and fine-tunes a parent of one's own as another recipe does its own.

    Args:
        recipe: with ``[prune]`` and ``[finetune]``.
        parent: to start from.
        entry: id of what comes of it; by default the parent's name and the end of the recipe's id.

    Raises:
        ConfigError: the recipe prunes nothing, or goes back to weights from before training.
    """
    if recipe.prune is None:
        raise ConfigError(
            f"--parent {parent.what}: {recipe.id} prunes nothing; expected a recipe with [prune] "
            "and [finetune], such as digits/adv-lwm-10x"
        )
    if recipe.prune.rewind != "none":
        raise ConfigError(
            f"--parent {parent.what}: {recipe.id} goes back to the first weights (`rewind`), which "
            "a trained parent has not; choose another recipe"
        )
    own = entry or f"{parent.name}-{recipe.id.removeprefix(f'{recipe.track}-')}"[:80]
    changes = {
        "id": own,
        "title": f"{parent.name}: {recipe.method}"[:200],
        "description": "",
        "authors": (UNKNOWN,),
        "licence": UNKNOWN,
        "links": (),
        "parent": None,
        "counterpart": None,
        "pretrain": None,
        "model": Network(architecture="onnx"),
    }
    fields = {name: getattr(recipe, name) for name in type(recipe).model_fields}
    try:
        return Recipe.model_validate(fields | changes)
    except ValidationError as error:
        faults = "; ".join(faults_of(error, Recipe))
        raise ConfigError(f"--id {own!r}: {faults}") from error


def _from_file(path: Path, track: Track) -> tuple[nn.Module, str, str]:
    if fault := stranger(path):
        raise ConfigError(f"--parent {path}: {fault}")
    try:
        graph = read_network(read_whole(path), track.shape)
    except FileFaultError as error:
        raise ConfigError(f"--parent {path}: {error}") from error
    if graph.is_quantised:
        raise ConfigError(
            f"--parent {path}: expected float32 weights, but the file is quantised; give the "
            "network from before quantisation"
        )
    return graph.network, _slug(path.stem), graph.description


def _from_module(text: str) -> tuple[nn.Module, str]:
    module_name, _, name = text.partition(":")
    if module_name.endswith(".py"):
        dotted = ".".join(Path(module_name).with_suffix("").parts)
        raise ConfigError(
            f"--parent {text}: expected a module and no file: {dotted}:{name}, in the folder from "
            "which it can be imported"
        )
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--parent {text}: no Python module {error.name!r} here or among the installed "
            f"packages; {_EXPECTED}"
        ) from error
    except (Exception, SystemExit) as error:
        raise _of_its_own(text, error) from error
    if not hasattr(module, name):
        known = [one for one in vars(module) if not one.startswith("_")]
        hint = nearest(name, known) if len(known) <= 20 else f"look into {module.__file__}"
        raise ConfigError(f"--parent {text}: {module_name} has no {name!r}: {hint}")
    found = getattr(module, name)
    if not isinstance(found, nn.Module) and callable(found):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                found = found()
            except (Exception, SystemExit) as error:
                raise _of_its_own(text, error) from error
    if not isinstance(found, nn.Module):
        raise ConfigError(
            f"--parent {text}: expected a torch.nn.Module, or a function without arguments that "
            f"returns one, but found {type(found).__name__}"
        )
    return found.to("cpu", torch.float32).eval(), _slug(name)


def _of_its_own(text: str, error: BaseException) -> ConfigError:
    """What the named code raised, and where in it."""
    first_line = (str(error).strip() or "no message").splitlines()[0][:200]
    places = traceback.extract_tb(error.__traceback__)
    own = [place for place in places if place.filename != __file__ and place.filename[:1] != "<"]
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}, line {error.lineno}"
    else:
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else text.partition(":")[0]
    return ConfigError(
        f"--parent {text}: its code raised {type(error).__name__}: {first_line} ({where}); it must "
        "be a network, or a function without arguments that returns one"
    )


def _require_prunable(network: nn.Module, text: str) -> None:
    """Refuse a network whose weights cannot be removed one by one."""
    layers = prunable_layers(network)
    if not layers:
        raise ConfigError(
            f"--parent {text}: expected convolution or linear layers (nn.Conv2d, nn.Linear) to "
            "remove weights from, but found none"
        )
    owned = dict(network.named_parameters())
    for name, layer in layers.items():
        key = f"{name}.weight" if name else "weight"
        if owned.get(key) is not layer.weight:
            raise ConfigError(
                f"--parent {text}: the weight of layer {name!r} is computed from others or shared "
                "with another layer; bake masks and parametrisations in first, "
                "(torch.nn.utils.prune.remove, parametrize.remove_parametrizations)"
            )


def _slug(name: str) -> str:
    """A name as an id may begin with."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return text or "own"


def written(network: nn.Module, track_name: str) -> bytes:
    """A trained network as an ONNX file that gives the same logits."""
    track = get_track(track_name)
    return as_onnx(measured_copy(network.eval(), track.shape).cpu(), track)[0]
