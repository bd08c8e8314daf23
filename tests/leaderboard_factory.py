"""Results with consistent counts, built through the record that evaluation writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.records import Result
from benchmark.tracks import TRACKS, Protocol, settings_of

CANONICAL = "c0ffee" * 10 + "c0ff"
MIRROR = "badcab" * 10 + "badc"


def make_score(
    n: int = 500, clean: int = 480, certified: int = 300, attacked: int = 100, **more: Any
) -> dict[str, Any]:
    """Counts at one epsilon that add up to n; what remains is undecided."""
    timeout, error = more.pop("timeout", 0), more.pop("error", 0)
    undecided = clean - certified - attacked - timeout - error
    score = {
        "counts": {
            "misclassified": n - clean,
            "attacked": attacked,
            "certified": certified,
            "undecided": undecided,
            "timeout": timeout,
            "error": error,
        },
        "pgd50": clean - attacked // 2,
        "autoattack": clean - attacked,
        "certified_by": {
            "IBP": certified // 2,
            "CROWN-IBP": certified,
            "CROWN": certified,
            "cascade": certified,
        },
        "flags": [],
        "decided_by": {"IBP": certified // 2, "apgd-ce": attacked, "clean": n - clean},
    }
    return score | more


def make_result(entry: str = "lwm-10x", track: str = "digits", **more: Any) -> Result:
    """A result; keywords replace keys of the file, `submission` keys of its manifest."""
    return Result.model_validate_json(json.dumps(make_raw(entry, track, **more)), strict=True)


def make_raw(entry: str = "lwm-10x", track: str = "digits", **more: Any) -> dict[str, Any]:
    """The same as the JSON object of a file, which a test may break."""
    n = more.setdefault("n", 500)
    clean = more.setdefault("clean", round(0.96 * n))
    scores = [
        make_score(n, clean, certified=clean // share, attacked=clean // 5) for share in (2, 4)
    ]
    raw: dict[str, Any] = {
        "schema": 1,
        "protocol": "1.0",
        "entry": entry,
        "track": track,
        "quick": n == TRACKS[track].quick_subset,
        "data": {"kind": "canonical", "fingerprint": CANONICAL, "source": "scikit-learn"},
        "weights_sha256": "ab" * 32,
        "seed": 0,
        "device": "cpu",
        "versions": {"torch": "2.9.0", "pyautoattack": "0.2.0", "auto_LiRPA": "0.3"},
        "epsilons": dict(zip(TRACKS[track].epsilons, scores, strict=True)),
        "compactness": make_compactness(),
        "seconds": {"clean": 0.1, "attack": 12.5, "certify": 3.0},
        "settings": settings_of(Protocol(), TRACKS[track]),
        "submission": make_manifest(entry, track) | more.pop("submission", {}),
        "not_asked": {},
    }
    return raw | more


def make_manifest(entry: str, track: str) -> dict[str, Any]:
    """A manifest of a model pruned to a tenth."""
    return {
        "schema": 1,
        "id": entry,
        "title": "Least weight magnitude, 10x",
        "authors": ["Ada Example", "Ben Example"],
        "links": ["https://example.org/paper"],
        "description": "Robust objective before and after pruning.",
        "licence": "MIT",
        "track": track,
        "sparsity": 0.9,
        "parent": None,
        "model": {"architecture": "cnn-small"},
        "method": {
            "name": "LWM 10x",
            "pipeline": "after",
            "pretrain_objective": "pgd-at",
            "finetune_objective": "pgd-at",
            "schedule": "one-shot",
            "structure": "unstructured",
            "scope": "layer-wise",
            "criterion": "least-weight-magnitude",
        },
        "training": {"data": "the track's training set", "seed": 0},
    }


def make_compactness(num_parameters: int = 40_000, keep_ratio: float = 0.1) -> dict[str, Any]:
    """A compactness record of two layers."""
    kept = round(num_parameters * keep_ratio)
    layers = [
        {
            "name": name,
            "kind": kind,
            "num_weights": num_parameters // share,
            "num_nonzero": kept // share,
            "macs_dense": 10 * num_parameters // share,
            "macs_nonzero": 10 * kept // share,
        }
        for name, kind, share in (("features.0", "conv", 5), ("classifier.1", "linear", 2))
    ]
    return {
        "num_parameters": num_parameters,
        "num_nonzero": kept,
        "macs_dense": 400_000,
        "macs_nonzero": round(400_000 * keep_ratio),
        "bytes_dense": 4 * num_parameters,
        "bytes_packed": min(4 * num_parameters, 4 * kept + num_parameters // 8),
        "sparsity": 1 - keep_ratio,
        "layers": layers,
    }


def write_result(root: Path, result: Result | dict[str, Any]) -> Path:
    """Write a result at its place under a folder."""
    raw = result if isinstance(result, dict) else result.model_dump(mode="json", by_alias=True)
    path = root / raw["protocol"] / raw["track"] / f"{raw['entry']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def write_evidence(path: Path, shift: int = 0) -> None:
    """An outcome table, adversarial images and clean images that fit a result file.

    Args:
        path: of the result file.
        shift: rotates the outcomes over the images, so that entries differ in which they hold.
    """
    raw = json.loads(path.read_text())
    n, shape = raw["n"], TRACKS[raw["track"]].shape
    labels = np.arange(n) % 10
    parts, num_rows = [], 0
    for epsilon, score in raw["epsilons"].items():
        outcomes = [name for name, count in score["counts"].items() for _ in range(count)]
        outcome = np.roll(np.asarray(outcomes, dtype=object), shift)
        attacked = outcome == "attacked"
        rows = np.where(attacked, num_rows + np.cumsum(attacked) - 1, -1)
        num_rows += int(attacked.sum())
        parts.append(
            pd.DataFrame(
                {
                    "image": np.arange(n, dtype="int32") + 1000,
                    "position": np.arange(n, dtype="int32"),
                    "label": labels.astype("int16"),
                    "predicted": np.where(outcome == "misclassified", 9 - labels, labels),
                    "epsilon": epsilon,
                    "outcome": outcome,
                    "margin": np.where(outcome == "certified", 0.5, np.nan).astype("float32"),
                    "adversarial": rows.astype("int32"),
                }
            )
        )
    pd.concat(parts).to_parquet(path.with_name(f"{path.stem}.outcomes.parquet"), index=False)
    images = np.full((num_rows, *shape), 0.75, dtype=np.float32)
    np.savez_compressed(path.with_name(f"{path.stem}.adversarial.npz"), images=images)
    fingerprint = raw["data"]["fingerprint"]
    np.savez_compressed(
        path.with_name(f"clean-images.{fingerprint[:8]}.npz"),
        images=np.full((min(n, 200), *shape), 0.5, dtype=np.float32),
        indices=np.arange(min(n, 200), dtype=np.int32) + 1000,
        fingerprint=np.asarray(fingerprint),
    )
