"""``corobench.evaluate``: a network in memory, a submission folder or an ONNX file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ConfigError, SubmissionError
from corobench.benchmark.interactive.arguments import (
    folder_of,
    identifier_of,
    text_of,
    whole_number,
)
from corobench.benchmark.interactive.places import entry_at
from corobench.benchmark.interactive.progress import reporter
from corobench.benchmark.interactive.result import EvaluationInterrupted, EvaluationResult
from corobench.benchmark.submission.kinds import is_onnx
from corobench.benchmark.tracks import get_track

if TYPE_CHECKING:
    from torch import nn

    from corobench.benchmark.evaluation.settings import Evaluated, Settings


def evaluate(
    model: nn.Module | str | Path,
    track: str | None = None,
    n: int | None = None,
    *,
    epsilons: Sequence[str | Fraction] | None = None,
    seed: int = 0,
    device: str | None = None,
    data_root: str | Path | None = None,
    name: str | None = None,
    cache: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
    isolate: bool = True,
    verbose: bool = True,
) -> EvaluationResult:
    """Score a network: how often it is right, how often provably so, and what it weighs.

    A *network in memory* may have any architecture that keeps the model contract (RULES.md): from
    float32 images (B, C, H, W) in [0, 1] to finite float32 logits (B, classes), any normalisation
    inside, in eval mode, the same answer every time. Pruning masks and parametrisations are baked
    into a copy; the network itself is not changed. Certifiers are asked where they can be. The
    result is a quick look for its owner, never ranked and written nowhere.

    A *submission folder*, the name of an entry, or an *ONNX file* gets the evaluation of
    ``corobench evaluate``: a process of its own with limits, an identity, result files in `out`.

    Ctrl-C raises `EvaluationInterrupted`, a KeyboardInterrupt whose `result` holds what is known.
    The same call goes on from the finished chunks.

    Args:
        model: a ``torch.nn.Module`` in eval mode, or a path, or an entry's name.
        track: "digits", "fashion-mnist", "cifar10" or "svhn"; for a folder by default its own.
        n: images, the first n of the published order; by default 100 for a network in memory and
            the standard subset for a folder or file.
        epsilons: exact radii in (0, 1] such as "8/255" instead of the track's.
        seed: of all random numbers, from 0 on.
        device: "cpu" or "cuda"; by default where the network's weights are, and the CPU for files.
        data_root: folder of the dataset; None for the usual search (docs/commands.md).
        name: what the result calls a network in memory, or an ONNX file; by default its class, or
            the file's name.
        cache: folder of unfinished work of a network in memory; None for the user's cache folder.
        out: folder of result files, "results" by default; for folders and files only.
        force: replace another result of the same name; for folders and files only.
        isolate: work on a folder or file in a process of its own, with limits.
        verbose: show progress; False shows nothing.

    Returns:
        The result. It shows itself as a table, in a notebook as a picture.

    Raises:
        ContractError: the network breaks a clause of the model contract, with its name.
        CorobenchError: anything else a user can fix.
        EvaluationInterrupted: stopped by the keyboard.

    >>> import torch, corobench
    >>> layer = torch.nn.Linear(64, 10)
    >>> _ = torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    >>> with torch.no_grad():
    ...     _ = layer.weight[3].fill_(1.0)  # says 3, and none of the ten is one
    >>> says_three = torch.nn.Sequential(torch.nn.Flatten(), layer).eval()
    >>> result = corobench.evaluate(says_three, track="digits", n=10, verbose=False)
    >>> result.quick, result.clean, result.brackets["1/16"].certified
    (True, 0, 0)
    """
    import torch

    whole_number(n, "n", 1)
    whole_number(seed, "seed", 0)
    texts = _texts(epsilons)
    root = folder_of(data_root, "data_root")
    name, device = text_of(name, "name"), text_of(device, "device")
    kept, written = folder_of(cache, "cache"), folder_of(out, "out")
    if isinstance(model, torch.nn.Module | type):
        _require_unset("a network in memory", out=out, force=force or None)
        return _in_memory(model, track, n, texts, seed, device, root, name, kept, verbose=verbose)
    _require_unset("a folder or file", cache=cache)
    place = entry_at(model)
    if not is_onnx(place):
        _require_unset("a submission folder, which has a name", name=name)
    from corobench.benchmark.evaluation.settings import Settings

    settings = Settings(
        track=track,
        n=n,
        epsilons=texts,
        device=device or "cpu",
        seed=seed,
        data_root=root,
        out=written or Path("results"),
        force=force,
    )
    if not is_onnx(place):
        done = _evaluated(place, settings, isolate=isolate, verbose=verbose)
        return EvaluationResult(done.result, done.path)
    return _onnx_file(place, settings, name, isolate=isolate, verbose=verbose)


def _in_memory(
    model: nn.Module,
    track: str | None,
    n: int | None,
    epsilons: tuple[str, ...] | None,
    seed: int,
    device: str | None,
    data_root: Path | None,
    name: str | None,
    cache: Path | None,
    *,
    verbose: bool,
) -> EvaluationResult:
    from corobench.benchmark.interactive import in_memory, networks

    network = networks.require_network(model)
    if track is None:
        raise ConfigError(
            'track: expected the images to evaluate a network in memory on, such as track="cifar10"'
        )
    chosen = get_track(track)
    called = name or networks.name_of(network)
    wish = in_memory.Wish(
        model=network,
        name=called,
        track=chosen,
        n=n or chosen.quick_subset,
        epsilons=in_memory.epsilons_of(epsilons, chosen),
        seed=seed,
        device=device,
        data_root=data_root,
        cache=cache,
    )
    try:
        return in_memory.evaluate_network(wish, reporter(called, verbose=verbose))
    except EvaluationInterrupted:
        raise
    except KeyboardInterrupt:  # before anything was known
        raise EvaluationInterrupted from None


def _evaluated(folder: Path, settings: Settings, *, isolate: bool, verbose: bool) -> Evaluated:
    """The evaluation of ``corobench evaluate``."""
    from corobench.benchmark.interactive.processes import quiet_main
    from corobench.benchmark.submission.manifest import load_manifest

    report = reporter(load_manifest(folder).id, verbose=verbose)
    try:
        if isolate:
            from corobench.benchmark.executors import isolated
            from corobench.benchmark.executors.limits import Limits

            with quiet_main():
                return isolated.evaluate(folder, settings, Limits(), report)
        from corobench.benchmark.evaluation.evaluate import evaluate as evaluate_here

        return evaluate_here(folder, settings, report)
    except KeyboardInterrupt:
        raise EvaluationInterrupted from None


def _onnx_file(
    path: Path, settings: Settings, name: str | None, *, isolate: bool, verbose: bool
) -> EvaluationResult:
    """An ONNX file as an entry of its own, in a folder that is gone afterwards."""
    from corobench.benchmark.executors import run_import
    from corobench.benchmark.executors.limits import Limits
    from corobench.benchmark.interactive.processes import quiet_main

    if settings.track is None:
        raise ConfigError(
            f'{path}: expected the track of the file\'s images, such as track="cifar10"'
        )
    with tempfile.TemporaryDirectory(prefix="corobench-") as place, quiet_main():
        folder = Path(place) / identifier_of(name or path.stem)
        try:
            run_import(
                path,
                folder,
                Limits() if isolate else None,
                track=settings.track,
                data_root=settings.data_root,
                title=name or path.name,
            )
        except SubmissionError as error:
            raise type(error)(path, error.faults) from error
        done = _evaluated(folder, settings, isolate=isolate, verbose=verbose)
    return EvaluationResult(done.result, done.path)


def _texts(epsilons: Sequence[str | Fraction] | None) -> tuple[str, ...] | None:
    """Radii as exact texts.

    Raises:
        ConfigError: one is no exact fraction.
    """
    if epsilons is None:
        return None
    from corobench.benchmark.interactive.arguments import epsilon_of

    if not isinstance(epsilons, Sequence):
        raise ConfigError(f"epsilons: expected radii such as ['8/255'], but found {epsilons!r}")
    given = epsilons.split(",") if isinstance(epsilons, str) else list(epsilons)
    if not given:
        raise ConfigError("epsilons: expected at least one radius such as '8/255', but found none")
    for one in given:
        epsilon_of(one)
    return tuple(
        one.strip() if isinstance(one, str) else f"{one.numerator}/{one.denominator}"
        for one in given
    )


def _require_unset(what: str, **given: object) -> None:
    """Refuse arguments that mean nothing here.

    Raises:
        ConfigError: names the first one.
    """
    for name, value in given.items():
        if value is not None:
            hint = ""
            if name in ("out", "force"):
                hint = "; its result is written nowhere, `corobench.export` makes an entry of it"
            raise ConfigError(f"{name}: means nothing for {what}{hint}")
