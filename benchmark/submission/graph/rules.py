"""What an ONNX file may hold: operators, attributes and limits, and the fault that names a rule.

Everything that is not listed is refused. The rules by name stand in RULES.md.
"""

from __future__ import annotations

from corobench.benchmark.submission.files import FileFaultError

MAX_NODES = 10_000
MAX_CONSTANTS = 20_000
MAX_DIMENSIONS = 8
#: Values of one activation of one image.
MAX_ACTIVATION = 2**26
#: Integers in a tensor that says a shape, an axis or pads.
MAX_INTEGERS = 64
#: Different numbers in attributes, of all operators that the logits need.
MAX_NUMBERS = 32
#: Parts that are taken out of values, and values that are joined: so many in any network, and so
#: many more for each layer that has stored numbers (a DenseNet joins about ten for each).
MAX_WIRES, WIRES_PER_LAYER = 256, 16
MIN_OPSET, MAX_OPSET = 9, 25
DOMAINS = ("", "ai.onnx")

_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")

#: Operators that work on the image or what was made of it -> attributes they may have.
OPERATORS: dict[str, tuple[str, ...]] = {
    "Abs": (),
    "Add": (),
    "AveragePool": (*_WINDOW, "ceil_mode", "count_include_pad"),
    "BatchNormalization": ("epsilon", "momentum", "spatial", "training_mode"),
    "Celu": ("alpha",),
    "Clip": ("max", "min"),
    "Concat": ("axis",),
    "Conv": (*_WINDOW, "group"),
    "Div": (),
    "Elu": ("alpha",),
    "Erf": (),
    "Expand": (),
    "Flatten": ("axis",),
    "Gelu": ("approximate",),
    "Gemm": ("alpha", "beta", "transA", "transB"),
    "GlobalAveragePool": (),
    "GlobalMaxPool": (),
    "Greater": (),
    "GroupNormalization": ("epsilon", "num_groups", "stash_type"),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "InstanceNormalization": ("epsilon",),
    "LayerNormalization": ("axis", "epsilon", "stash_type"),
    "LeakyRelu": ("alpha",),
    "LogSoftmax": ("axis",),
    "LpNormalization": ("axis", "p"),
    "MatMul": (),
    "Max": (),
    "MaxPool": (*_WINDOW, "ceil_mode", "storage_order"),
    "Min": (),
    "Mish": (),
    "Mul": (),
    "Neg": (),
    "PRelu": (),
    "Pad": ("mode", "pads", "value"),
    "Pow": (),
    "RMSNormalization": ("axis", "epsilon", "stash_type"),
    "Reciprocal": (),
    "ReduceL2": ("axes", "keepdims", "noop_with_empty_axes"),
    "ReduceMax": ("axes", "keepdims", "noop_with_empty_axes"),
    "ReduceMean": ("axes", "keepdims", "noop_with_empty_axes"),
    "ReduceSum": ("axes", "keepdims", "noop_with_empty_axes"),
    "Relu": (),
    "Reshape": ("allowzero",),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Slice": ("axes", "ends", "starts"),
    "Softmax": ("axis",),
    "Softplus": (),
    "Softsign": (),
    "Split": ("axis", "num_outputs", "split"),
    "Sqrt": (),
    "Squeeze": ("axes",),
    "Sub": (),
    "Tanh": (),
    "Transpose": ("perm",),
    "Unsqueeze": ("axes",),
    "Where": (),
}

#: Operators that are resolved while the file is read and are no step of the network.
RESOLVED: dict[str, tuple[str, ...]] = {
    "Cast": ("saturate", "to"),
    "Constant": ("value", "value_float", "value_floats", "value_int", "value_ints"),
    "ConstantOfShape": ("value",),
    "DequantizeLinear": ("axis", "block_size"),
    "Dropout": ("ratio", "seed"),
    "Gather": ("axis",),
    "Identity": (),
    "QuantizeLinear": ("axis", "block_size", "saturate"),
    "ReduceProd": ("axes", "keepdims"),
    "Shape": ("end", "start"),
}

#: Attribute -> its kind, the same for every operator that has it.
KINDS: dict[str, str] = {
    **dict.fromkeys(("alpha", "beta", "epsilon", "max", "min", "momentum", "ratio"), "FLOAT"),
    **dict.fromkeys(("gamma", "value_float"), "FLOAT"),
    **dict.fromkeys(("axes", "dilations", "ends", "kernel_shape", "pads", "perm"), "INTS"),
    **dict.fromkeys(("split", "starts", "strides", "value_ints"), "INTS"),
    **dict.fromkeys(("approximate", "auto_pad", "mode"), "STRING"),
    "value": "TENSOR",
    "value_floats": "FLOATS",
}


#: The one form of quantised files that is read, and how to write it.
QDQ = (
    "of quantised files pairs of QuantizeLinear and DequantizeLinear (QDQ) around 8-bit integers "
    "are read: onnxruntime.quantization.quantize_static(model, out, reader, "
    "quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)"
)

#: Operator that is refused -> the way out.
WAYS_OUT: dict[str, str] = {
    **dict.fromkeys(
        ("If", "Loop", "Scan", "SequenceAt"),
        "export the network traced, without branches or loops in its forward pass",
    ),
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"),
        "take the noise out: the same image must give the same logits",
    ),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "QGemm"), QDQ),
    **dict.fromkeys(
        ("ArgMax", "TopK", "Hardmax", "NonMaxSuppression"),
        "take it off: the output must be logits, which have a gradient",
    ),
    **dict.fromkeys(
        ("Sign", "Round", "Floor", "Ceil"),
        "it has no gradient that an attack needs; write a steep line between two values "
        "(Mul and Clip), or quantise by QuantizeLinear and DequantizeLinear, whose gradient passes",
    ),
    **dict.fromkeys(
        ("GatherND", "GatherElements", "ScatterND", "ScatterElements"),
        "write it with Slice, Gather of one place along one axis, Transpose and Concat",
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "recurrent layers are not read; unroll them"),
    "ConvTranspose": "write it as zeros put between values and a Conv, or leave it out",
    "Einsum": "write it with MatMul, Transpose and Reshape",
    "Resize": "write it with AveragePool, a Conv or a Gemm, or resize the images before",
    "ThresholdedRelu": "it jumps at its threshold; write it with Relu or LeakyRelu",
    "LpPool": "write it with Pow, AveragePool and Sqrt",
    "LRN": "local response normalisation is not read; use a batch-norm",
}


_BEFORE_IT = "hand in the file from before onnxruntime's optimiser joined operators"
#: Beginning of an operator that is refused -> the way out.
_FAMILIES = {
    "QLinear": QDQ,
    "DynamicQuantize": QDQ,
    "Quantize": QDQ,
    "Dequantize": QDQ,
    "Fused": _BEFORE_IT,
    "Random": WAYS_OUT["RandomNormal"],
}


def way_out(op: str | bytes, domain: str | bytes = "") -> str:
    """What to do instead of an operator that is refused; a name may be bytes that are no text.

    >>> way_out("Einsum")
    'write it with MatMul, Transpose and Reshape'
    """
    name = shown(op)
    families = (text for start, text in _FAMILIES.items() if name.startswith(start))
    if shown(domain).startswith("com.microsoft.nchwc"):
        return _BEFORE_IT
    return WAYS_OUT.get(name) or next(families, "RULES.md lists those to write it with")


class GraphFaultError(FileFaultError):
    """An ONNX file breaks a rule.

    Args:
        rule: its name, as in RULES.md.
        text: what was expected and what was found.
    """

    def __init__(self, rule: str, text: str) -> None:
        self.rule = rule
        super().__init__(f"{rule}: {text}")


def shown(name: str | bytes) -> str:
    """A name from a file, short and printable; bytes that are no UTF-8 come as such."""
    text = name if isinstance(name, str) else name.decode("utf-8", "replace")
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 60 and text.isprintable() else repr(text[:60])
