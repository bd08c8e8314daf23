"""What identifies a result: change any of it, and it is another result."""

from __future__ import annotations

import importlib.metadata

import torch

from corobench import benchmark
from corobench.benchmark.data import Dataset
from corobench.benchmark.evaluation import engine
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.result import Earlier, Run
from corobench.benchmark.submission import Submission
from corobench.benchmark.tracks import Protocol, settings_of

#: Of the source that is being imported; a file that changes later is not what runs.
ENGINE = engine.version()


def versions() -> dict[str, str]:
    """Versions of everything whose change makes another result."""
    from corobench.benchmark.certify import lirpa_version

    return {
        "corobench": benchmark.__version__,
        "engine": ENGINE,
        "torch": torch.__version__,
        "pyautoattack": importlib.metadata.version("pyautoattack"),
        "auto_LiRPA": lirpa_version().removeprefix("auto_LiRPA").strip(),
    }


def name_of(device: torch.device, in_tf32: bool) -> str:
    """What a result says of the device; searching in TF32 makes it another one."""
    if device.type == "cpu":
        return "cpu"
    return torch.cuda.get_device_name(device) + (" (search in TF32)" if in_tf32 else "")


def identify(
    submission: Submission,
    dataset: Dataset,
    n: int,
    epsilons: tuple[str, ...],
    settings: Settings,
    protocol: Protocol,
    device_name: str,
    earlier: Earlier | None = None,
) -> Run:
    """The run that an evaluation makes, as far as it is known before it.

    Args:
        submission: the entry.
        dataset: the test set.
        n: images.
        epsilons: exact radii as text, ascending.
        settings: what the user chose.
        protocol: settings of every stage.
        device_name: name of the device, from `name_of`.
        earlier: the result whose attacks are taken over.
    """
    track = submission.track  # the manifest's, unless the user asked for another one
    manifest = submission.manifest.model_copy(update={"track": track.name})
    run = Run(
        protocol=protocol.version,
        entry=manifest.id,
        track=track.name,
        n=n,
        quick=not track.is_ranked(n) or epsilons != track.epsilons or protocol != Protocol(),
        epsilons=epsilons,
        data=dataset.info,
        weights_sha256=submission.weights_sha256,
        seed=settings.seed,
        device=device_name,
        versions=versions(),
        settings=settings_of(protocol, track),
        constants=dict(engine.constants()),
        submission=manifest,
        compactness=submission.measure(),
        earlier=earlier,
    )
    return run.model_copy(update={"identity": identity_of(run)})
