"""What a training run tells while it goes and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EpochRow:
    """One row of a stage's log.

    Attributes:
        epoch: from 1.
        lr: learning rate at the epoch's last step.
        epsilon: radius at the epoch's last step.
        loss: mean over the epoch.
        clean, robust, bound: held-out shares in [0, 1], at the recipe's epsilon; the bound is
            None where the network cannot be bounded.
        is_best: whether this epoch is the selected one so far.
        seconds: of the epoch with its measures.
    """

    epoch: int
    lr: float
    epsilon: float
    loss: float
    clean: float
    robust: float
    bound: float | None
    is_best: bool
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a callback is told: after each epoch, and when a pruning stage is done.

    Attributes:
        entry: id being trained; a parent is trained under its own.
        stage: name of the stage.
        num_epochs: of the stage; 0 for pruning.
        row: of the epoch just done; None for pruning.
        sparsity: share of zeros in convolution and linear weights, in [0, 1].
    """

    entry: str
    stage: str
    num_epochs: int
    row: EpochRow | None
    sparsity: float


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        entry: id; the parent's where the time ran out before it was done.
        folder: the submission folder; valid only if finished.
        is_finished: false where the time given ran out first.
        stage: the last stage worked on.
        epoch: of that stage, epochs done.
        seconds: of training in all runs together, the parent's not counted.
        selected: the held-out measures of the published weights, if finished.
    """

    entry: str
    folder: Path
    is_finished: bool
    stage: str
    epoch: int
    seconds: float
    selected: EpochRow | None
