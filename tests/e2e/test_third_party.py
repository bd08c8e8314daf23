"""A real model nobody here trained: the ResNet-18 that the attack package ships.

The images are 200 lossless CIFAR-10 test images, which lie beside a developer's checkout; the
comparison skips without them. The import itself needs only the package.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reissue import ROUND

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import derive_seed

SHARED = Path(os.environ.get("COROBENCH_SHARED", Path(__file__).parents[3] / "shared"))
IMAGES = SHARED / "data" / "cifar10-sdp200"
#: Images of the slow comparison: at 1/255 about half are robust and cost minutes each.
NUM_SLOW = int(os.environ.get("COROBENCH_RESNET_IMAGES", "4"))


def _checkpoint() -> Path:
    spec = importlib.util.find_spec("pyautoattack")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "examples" / "model_test.pt"
    if not path.exists():
        pytest.skip("this version of pyautoattack ships no example checkpoint")
    return path


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as a submission folder, through the command line."""
    folder = tmp_path_factory.mktemp("import") / "resnet18-natural"
    code = invoke(
        [
            "import",
            str(_checkpoint()),
            "--architecture",
            "resnet18",
            "--track",
            "cifar10",
            "--author",
            "the AutoAttack authors",
            "--out",
            str(folder),
        ]
    )
    assert code == 0
    return folder


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 200 images as lossless PNG files in an image folder."""
    if not IMAGES.is_dir():
        pytest.skip(f"{IMAGES} is not here")
    root = tmp_path_factory.mktemp("cifar10")
    pixels = np.load(IMAGES / "images_nhwc_float01.npy")
    labels = np.load(IMAGES / "labels.npy")
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / "test" / str(int(label))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(folder / f"{number:03d}.png")
    return root


def test_import_gives_the_logits_of_its_source(entry: Path) -> None:
    checkpoint = _checkpoint()
    sys.path.insert(0, str(checkpoint.parent))
    try:
        from resnet import ResNet18  # the package's own definition
    finally:
        sys.path.pop(0)
    source = ResNet18()
    source.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    source.eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_submission(entry).model(x), source(x))


def _compare(
    entry: Path, image_folder: Path, out: Path, epsilons: tuple[str, ...], n: int
) -> dict[str, tuple[list[bool], list[bool]]]:
    """Robust flags per epsilon: of `corobench evaluate`, and of the package called directly."""
    from corobench.benchmark.data import load_test, subset

    options = ["--subset", str(n), "--epsilons", ",".join(epsilons)]
    options += ["--data-root", str(image_folder), "--out", str(out)]
    assert invoke(["evaluate", str(entry), *options]) == 0
    table, _ = read_outcomes(out / ROUND / "cifar10" / f"resnet18-natural@{n}.outcomes.parquet")
    images, labels, _ = subset(load_test("cifar10", image_folder), n)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    model = load_submission(entry).model
    flags = {}
    for epsilon in epsilons:
        seed = derive_seed(0, "cifar10", f"autoattack:{epsilon}", 0)
        suite = AutoAttackStandard(10).build(model, Fraction(epsilon), seed, x.device)
        adversarial, _ = suite.run_standard_evaluation(x, y, batch_size=100)
        direct = ~is_wrong(predict_one_by_one(model, adversarial), y)
        ours = table.loc[table["epsilon"] == epsilon, "autoattack"].to_numpy(dtype=bool)
        flags[epsilon] = (ours.tolist(), direct.tolist())
    return flags


def test_flags_equal_the_package_at_8_255(entry: Path, image_folder: Path, tmp_path: Path) -> None:
    flags = _compare(entry, image_folder, tmp_path, ("8/255",), n=2)
    ours, direct = flags["8/255"]
    assert ours == direct == [False] * 2


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes per robust image on one core
def test_flags_equal_the_package_at_three_epsilons(
    entry: Path, image_folder: Path, tmp_path: Path
) -> None:
    flags = _compare(entry, image_folder, tmp_path, ("1/255", "2/255", "8/255"), n=NUM_SLOW)
    print(flags)
    for ours, direct in flags.values():
        assert ours == direct
    assert any(flags["1/255"][0])
