"""One training stage: epochs of an objective under masks, resumable after ``kill -9``.

Everything random in an epoch comes from a seed derived from (seed, track, stage, epoch), and
every schedule is a function of the step. A resumed stage therefore takes the very steps that it
would have taken, and ends at the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corobench.baselines import checkpoint, schedules
from corobench.baselines.averaging import WeightAverage, estimate_norms
from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.measures import LazyBounds, Measures, measure
from corobench.baselines.objectives import AdversarialObjective, Moment
from corobench.baselines.objectives.base import Teaching
from corobench.baselines.progress import EpochRow
from corobench.baselines.regrowth import Regrower, forget
from corobench.baselines.train_stage import TrainStage
from corobench.baselines.training_data import TrainingData, augment, batches_of
from corobench.baselines.weight_perturbation import perturbed, statistics_kept
from corobench.benchmark.errors import ConfigError


class Paused(Exception):  # noqa: N818
    """The time given has run out; the stage is saved and goes on when it is run again."""


@dataclass(frozen=True)
class Clock:
    """When to stop, and how often to save.

    Attributes:
        deadline_s: on the monotonic clock; infinity for none.
        checkpoint_every_s: least seconds between two saves within a stage.
    """

    deadline_s: float = math.inf
    checkpoint_every_s: float = 15.0

    def has_time_for(self, seconds: float) -> bool:
        return time.monotonic() + seconds <= self.deadline_s


class StageTrainer:
    """Trains a model in place.

    Args:
        stage: name, which also separates the stage's random numbers from others'.
        settings: the recipe's table.
        model: on the data's device; removed weights are zero.
        masks: of removed weights.
        data: fitted and held-out images.
        epsilon: of the held-out measures, and of training unless the stage has its own.
        seed_of: (purpose, index) -> seed.
        bounds: over `model`.
        teacher: of an objective that needs one.
        choose_masks: from the weights in the model, for settings with `thresholding`.

    Attributes:
        masks: of the weights in the model; they change where the settings say so.
    """

    def __init__(
        self,
        stage: str,
        settings: TrainStage,
        model: nn.Module,
        masks: Masks,
        data: TrainingData,
        epsilon: Fraction,
        seed_of: Callable[[str, int], int],
        bounds: LazyBounds,
        teacher: Teaching | None = None,
        choose_masks: Callable[[], Masks] | None = None,
    ) -> None:
        self.stage, self.settings, self.model, self.data = stage, settings, model, data
        self.seed_of, self.epsilon, self.bounds = seed_of, float(epsilon), bounds
        self.train_epsilon = float(Fraction(settings.epsilon or epsilon))
        self.masks, self._masks, self._teacher = masks, masks.bind(model), teacher
        self._parameters = list(model.parameters())
        self._optimiser = optimiser(settings, self._parameters)
        self._generator = torch.Generator(data.device)
        needs_bounds = settings.objective.needs_bounds
        # In bf16 bounds prove nothing: here they are a loss; what is measured is float32.
        self._is_half = settings.precision != "float32" and has_fast_bf16(
            data.device, settings.precision
        )
        bounds.in_float32 = settings.precision == "mixed"
        # Convolutions are faster with the channels last on a GPU, and on a CPU in bf16. In float32
        # bounds keep the usual layout, and so do all CPU runs, to repeat bit by bit.
        self._layout = torch.contiguous_format
        is_all_half = self._is_half and settings.precision == "bf16"
        if is_all_half or (data.device.type == "cuda" and not needs_bounds):
            self._layout = torch.channels_last
        model.to(memory_format=self._layout)
        if needs_bounds:
            bounds.build()
        self._measured_bounds = bounds if bounds.is_available() else None
        self._weights = list(prunable_weights(model).values())
        averaging = settings.averaging
        self._average = None if averaging is None else WeightAverage(model, averaging)
        self._steps_per_epoch = len(batches_of(len(data.labels_N), settings.batch_size, 0))
        self._regrower = None
        if settings.regrowth is not None:
            num_steps = self._steps_per_epoch * settings.epochs
            self._regrower = Regrower(settings.regrowth, num_steps)
        self._choose_masks = choose_masks
        if settings.thresholding is not None:  # what was removed trains, too, until the next choice
            assert choose_masks is not None
            self._masks = Masks().bind(model)
        self.history: list[EpochRow] = []
        self._best: dict[str, Any] = {"value": -math.inf, "weights": None}

    def run(
        self,
        path: Path,
        identity: checkpoint.Identity,
        clock: Clock,
        report: Callable[[EpochRow], None],
    ) -> None:
        """Train to the end and leave the selected weights in the model.

        Args:
            path: of the stage's checkpoint; found there, training goes on from it.
            identity: what must be the same for that.
            clock: when to pause and save.
            report: called after each epoch.

        Raises:
            Paused: out of time; saved.
            ConfigError: the loss is no longer finite, or the checkpoint is another recipe's.
        """
        state = checkpoint.load(path, identity, self.data.device)
        if state is not None:
            self._restore(state)
        saved_s = time.monotonic()
        for epoch in range(len(self.history), self.settings.epochs):
            row = self._epoch(epoch)
            self.history.append(row)
            is_last = epoch + 1 == self.settings.epochs
            out_of_time = not is_last and not clock.has_time_for(row.seconds)
            if is_last or out_of_time or time.monotonic() - saved_s >= clock.checkpoint_every_s:
                checkpoint.save(path, identity, self._state())
                saved_s = time.monotonic()
            report(row)
            if out_of_time:
                raise Paused
        self.model.load_state_dict(self._best["weights"])
        if self.settings.changes_masks:
            self.masks = Masks(self._best["masks"])

    def _epoch(self, epoch: int) -> EpochRow:
        started_s = time.monotonic()
        seed = self.seed_of(f"train:{self.stage}", epoch)
        self._generator.manual_seed(seed)
        self.model.train()
        total = torch.zeros((), device=self.data.device)
        batches = batches_of(len(self.data.labels_N), self.settings.batch_size, seed)
        for index, batch in enumerate(batches):
            position = epoch + index / len(batches)
            total += self._step(batch.to(self.data.device), position)
        loss = float(total) / len(batches)
        if not math.isfinite(loss):
            raise ConfigError(
                f"{self.stage}: the loss became {loss} in epoch {epoch + 1}; lower "
                f"[{self.stage}.optimiser] lr, set clip_norm, or lengthen the ramp"
            )
        if self._is_chosen_after(epoch):
            assert self._choose_masks is not None
            self._hold(self._choose_masks())
        with self._average.in_place() if self._average is not None else nullcontext():
            found, is_best = self._measure(epoch, batches)
        last = epoch + 1 - 1 / len(batches)
        return EpochRow(
            epoch=epoch + 1,
            lr=self._lr(last),
            epsilon=self.train_epsilon * self._progress(last),
            loss=loss,
            clean=found.clean,
            robust=found.robust,
            bound=found.bound,
            is_best=is_best,
            seconds=time.monotonic() - started_s,
        )

    def _measure(self, epoch: int, batches: tuple[Tensor, ...]) -> tuple[Measures, bool]:
        """Measure what would be handed on, and whether it is the best so far."""
        data = self.data
        if self.settings.norm_batches:
            chosen = batches[: self.settings.norm_batches]
            estimate_norms(self.model, (data.x_NCHW[one.to(data.device)] for one in chosen))
        found = measure(
            self.model, data.held_x_NCHW, data.held_labels_N, self.epsilon, self._measured_bounds
        )
        return found, self._select(epoch, found)

    def _step(self, batch: Tensor, position: float) -> Tensor:
        for group in self._optimiser.param_groups:
            group["lr"] = self._lr(position)
        progress = self._progress(position)
        moment = Moment(
            epsilon=self.train_epsilon * progress,
            progress=progress,
            generator=self._generator,
            lower_margins=self.bounds.lower_margins,
            upper_losses=self.bounds.upper_losses,
            relu_inputs=self.bounds.relu_inputs,
            shrunk_margins=self.bounds.shrunk_margins,
            teacher=self._teacher,
        )
        x_BCHW = augment(self.data.x_NCHW[batch], self.settings.augmentation, self._generator)
        x_BCHW = x_BCHW.contiguous(memory_format=self._layout)
        loss = self._backward(x_BCHW, self.data.labels_N[batch], moment, position)
        step = round(position * self._steps_per_epoch)
        if self._regrower is not None and self._regrower.is_due(step):
            self._change_masks(self._regrower.masks(self.model, self.masks, step))
        else:
            self._masks.zero_gradients()
            if self.settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
            self._optimiser.step()
            self._masks.zero_weights()
        if self._average is not None:
            self._average.update()
        return loss

    def _backward(
        self, x_BCHW: Tensor, labels_B: Tensor, moment: Moment, position: float
    ) -> Tensor:
        """Leave the gradients of a batch in the parameters; the loss, detached."""
        objective, awp = self.settings.objective, self.settings.awp
        if awp is None or position < awp.warmup_epochs:
            with self._precision():
                loss = objective.loss(self.model, x_BCHW, labels_B, moment)
            return self._with_gradients(loss)
        assert isinstance(objective, AdversarialObjective)
        with self._precision():
            found_BCHW = objective.adversarial(self.model, x_BCHW, labels_B, moment)

        def outer() -> Tensor:
            with self._precision():
                return objective.outer(self.model, x_BCHW, found_BCHW, labels_B, moment)

        with self._worst_weights(outer, awp.gamma):
            return self._with_gradients(outer())

    def _with_gradients(self, loss: Tensor) -> Tensor:
        if self.settings.l1:
            loss = loss + self.settings.l1 * sum(weight.abs().sum() for weight in self._weights)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach()

    @contextmanager
    def _worst_weights(self, outer: Callable[[], Tensor], gamma: float) -> Iterator[None]:
        self._optimiser.zero_grad(set_to_none=True)
        with statistics_kept(self.model):
            outer().backward()
        self._masks.zero_gradients()
        taking_part = [weight for weight in self._weights if weight.grad is not None]
        gradients = [weight.grad for weight in taking_part if weight.grad is not None]
        with perturbed(taking_part, gradients, gamma):
            yield

    def _is_chosen_after(self, epoch: int) -> bool:
        table = self.settings.thresholding
        return table is not None and (epoch + 1) % table.every == 0

    def _hold(self, masks: Masks) -> None:
        """Set what masks remove to 0; it trains on from there."""
        self.masks = masks
        masks.apply(self.model)
        if self._average is not None:
            self._average.restrict(masks)

    def _change_masks(self, masks: Masks) -> None:
        """Go on under other masks; what comes back starts from zero."""
        parameters = dict(self.model.named_parameters())
        for name, kept in masks.items():
            forget(self._optimiser, parameters[name], ~(kept & self.masks[name].to(kept.device)))
        self.masks, self._masks = masks, masks.bind(self.model)
        self._masks.zero_weights()
        if self._average is not None:
            self._average.restrict(masks)

    def _select(self, epoch: int, found: Measures) -> bool:
        """Keep the best epoch at full radius, by the objective's own measure; ties go late."""
        if self._progress(epoch + 1) < 1.0:
            return False
        if self.settings.thresholding is not None and not self._is_chosen_after(epoch):
            return False  # still dense
        value = getattr(found, self.settings.objective.metric)
        if value < self._best["value"]:
            return False
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self._best = {"value": value, "weights": weights, **self._mask_state()}
        return True

    def _precision(self) -> AbstractContextManager[object]:
        if self._is_half:
            return torch.autocast(self.data.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _progress(self, position: float) -> float:
        table = self.settings.ramp
        return schedules.ramp(position, table.warmup_epochs, table.epochs, table.shape)

    def _lr(self, position: float) -> float:
        table = self.settings.lr_schedule
        return self.settings.optimiser.lr * schedules.lr_factor(
            table.name, position / self.settings.epochs, table.milestones, table.factor
        )

    def _state(self) -> dict[str, Any]:
        state = {
            "weights": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "best": self._best,
            "history": [asdict(row) for row in self.history],
            **self._mask_state(),
        }
        if self._average is not None:
            state["average"] = self._average.state()
        return state

    def _mask_state(self) -> dict[str, Any]:
        return {"masks": self.masks.state_dict()} if self.settings.changes_masks else {}

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._best = state["best"]
        if self.settings.changes_masks:
            self.masks = Masks(state["masks"])
        if self._regrower is not None:
            self._masks = self.masks.bind(self.model)
        if self._average is not None:
            self._average.restore(state["average"])
        self.history[:] = [EpochRow(**row) for row in state["history"]]


def has_fast_bf16(device: torch.device, precision: str = "bf16") -> bool:
    """Whether bf16 is faster than float32 there: any GPU, or a CPU that has instructions for it.

    Args:
        device: where training runs.
        precision: "bf16" asks for matrix units (AMX), as the recipes that say so were measured
            with them; "mixed" for AMX or AVX-512 BF16.
    """
    if device.type != "cpu":
        return True
    # torch has no public question for it; where this one goes away, training is float32.
    names = ["_is_amx_tile_supported"]
    if precision == "mixed":
        names.append("_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


def optimiser(settings: TrainStage, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that a stage asks for."""
    table = settings.optimiser
    if table.name == "adam":
        return torch.optim.Adam(parameters, lr=table.lr, weight_decay=table.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=table.lr,
        momentum=table.momentum,
        nesterov=table.nesterov,
        weight_decay=table.weight_decay,
    )
