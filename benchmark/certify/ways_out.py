"""What would be needed for a proof where the checker does not know a part of a network."""

from __future__ import annotations

_WAYS: tuple[tuple[str, str], ...] = (
    (
        "a forward pass that cannot be traced",
        "write the forward pass without branches on values, or hand the network in as ONNX",
    ),
    ("a model that cannot be copied", "hand the network in as ONNX"),
    ("hooks on", "remove the hooks"),
    ("in training mode", "call model.eval() before"),
    ("a forward pass of its own", "put the code into the class, not on one object"),
    (
        "whose weights are computed in the forward pass",
        "store the weights themselves (torch.nn.utils.parametrize.remove_parametrizations)",
    ),
    ("overwritten in place and read elsewhere", "write the step without inplace=True"),
    ("an operator on constants", "store the result of what is computed from stored numbers"),
    ("weights of type", "store the weights as float32"),
    ("that mixes images", "keep the batch as the first axis, and -1 for its size"),
    ("the number of images", "keep the batch as the first axis, and name the axes of a squeeze"),
    ("more than one input", "take the image alone"),
    ("without running statistics", "train batch-norms with track_running_stats=True"),
    ("ceil_mode", "pad the input, so that windows need not be rounded up"),
    ("padding_mode", "write the border as a layer of its own (nn.ReflectionPad2d)"),
    ("to sizes that do not divide the map", "use AvgPool2d with a kernel of its own"),
    (
        "over the batch",
        "take it over an axis of one image: the batch is the first axis, and images never mix",
    ),
    ("a length that mixes images", "take it over axes of one image, not over the batch"),
    ("such a norm of rows", "take the norm of order 2, or write it with Abs, ReduceSum and Div"),
    (
        "a CELU whose alpha",
        "write a ReLU, from which a CELU of so small an alpha differs by less than alpha; below 0 "
        "it is an exponential without end",
    ),
    (
        "an ELU whose alpha",
        "scale the weights of the layer behind it, so that alpha is below 2**20",
    ),
    ("that a runtime takes for", "store the float32 next to that number"),
    ("a layer norm with an exponent", "take the exponent 2, as a layer norm has it"),
    (
        "a normalisation whose eps is 0 or nearly so",
        "take an eps of 2**-60 or more: with less, a group of equal values is divided by nothing",
    ),
    (
        "weights of a normalisation",
        "move the factor into the layer behind it, so that weights are between 2**-40 and 2**40",
    ),
    ("a softplus with", "keep the threshold between 20 and 80, torch's default being 20"),
    (
        "scaled_dot_product_attention",
        "write it as softmax(q @ k.transpose(-2, -1) * scale, -1) @ v, or hand the network in as "
        "ONNX",
    ),
    ("the layer Transformer", "hand the network in as ONNX, whose exporters write its operators"),
    ("the layer MultiheadAttention", "write q, k and v as linear layers, and their products"),
    ("a maximum over other axes", "take maxima over windows of maps (MaxPool2d), or of two values"),
    ("of unequal ranks", "keep reduced axes (keepdim=True), so that both have as many axes"),
    ("the keyword", "give the argument its default, or use the layer instead of the function"),
)
_OTHERWISE = (
    "it needs bounds of its own in the checker; the layers that have them stand in RULES.md"
)


def way_out(reason: str) -> str:
    """What to do about a refusal of the checker.

    Args:
        reason: its text.

    >>> way_out("hooks on a Linear")
    'remove the hooks'
    """
    return next((text for part, text in _WAYS if part in reason), _OTHERWISE)
