"""``submission.toml`` as records: what an entry says of itself. Imports no torch.

Documented key by key in docs/file-formats.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from corobench.benchmark.records.base import (
    FileName,
    FirstSchema,
    Identifier,
    Link,
    LongText,
    OptionalText,
    Record,
    ShortText,
    Visible,
)


class Model(Record):
    """Table ``[model]``: how the weights become a network.

    Attributes:
        architecture: a name from ``corobench architectures``; None for an ONNX file, which is
            a network by itself.
        weights: file beside the manifest: safetensors, packed safetensors, or ONNX.
        num_classes: logits the network returns; must equal the track's.
        arguments: keyword arguments of the architecture, e.g. ``width = 0.5``.
    """

    architecture: ShortText | None = None
    weights: FileName = "model.safetensors"
    num_classes: Annotated[int, Field(ge=2, le=100_000)] = 10
    arguments: dict[str, bool | int | float | Visible | list[float]] = Field(default_factory=dict)

    @property
    def network(self) -> str:
        """What the network is called: its architecture, or ONNX."""
        return self.architecture or "ONNX"


class Method(Record):
    """Table ``[method]``: where the entry stands in the taxonomy of pruning for robustness.

    Attributes:
        name: what the board shows, e.g. "LWM 10x".
        pipeline: when weights were removed relative to training; "none" for a dense model.
        pretrain_objective: training objective before pruning, e.g. "pgd-at", "ibp".
        finetune_objective: training objective after pruning; empty for a dense model.
        schedule: whether weights were removed at once or in rounds.
        structure: whether single weights or whole channels were removed.
        scope: whether the share removed is the same per layer or set globally.
        criterion: what decided, e.g. "least-weight-magnitude", "random", "gradient".
    """

    name: ShortText
    pipeline: Literal["before", "during", "after", "none"]
    pretrain_objective: ShortText
    finetune_objective: OptionalText = ""
    schedule: Literal["one-shot", "iterative", "none"] = "none"
    structure: Literal["unstructured", "structured", "none"] = "none"
    scope: Literal["layer-wise", "global", "none"] = "none"
    criterion: ShortText = "none"


class Training(Record):
    """Table ``[training]``: the data regime, stated beside every number.

    Attributes:
        data: what the model was trained on.
        extra_data: whether anything beyond the track's own training set was used.
        extra_data_source: what, if so.
        seed: of the training, if there was one.
        epochs: passes over the training images in all steps together, those of a dense parent and
            of a mask search included; left out where it is not told.
    """

    data: ShortText
    extra_data: bool = False
    extra_data_source: LongText = ""
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    epochs: Annotated[int | float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None

    @model_serializer(mode="wrap")
    def _without_missing(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A budget that is not told has no key, so that earlier files keep their bytes."""
        dumped: dict[str, object] = handler(self)
        if self.epochs is None:
            dumped.pop("epochs", None)
        return dumped


class Manifest(Record):
    """``submission.toml``: what an entry says of itself. Claims are checked, not believed.

    Attributes:
        schema_version: key ``schema``; 1.
        id: name of the entry, equal to its folder's.
        sparsity: declared share of zeros in all convolution and linear weights, in [0, 1];
            measured, and refused when it is off by more than 0.005. None where the manifest
            leaves it out; what is loaded then has the measured one.
        parent: id of the dense entry that this one was compressed from, or stands in for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: FirstSchema = Field(alias="schema")
    id: Identifier
    title: ShortText
    authors: Annotated[tuple[ShortText, ...], Field(min_length=1)]
    links: tuple[Link, ...] = ()
    description: LongText = ""
    licence: ShortText
    track: ShortText
    sparsity: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    parent: Identifier | None = None
    model: Model
    method: Method
    training: Training
