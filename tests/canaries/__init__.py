"""Canaries: small networks whose certificates are wrong for whoever forgets that float32 rounds."""

from __future__ import annotations

from canaries import arithmetic, float_range, hidden_bias, named, other_layers
from canaries.canary import Canary, Maker, write

MAKERS: tuple[Maker, ...] = (
    hidden_bias.first_layers,
    hidden_bias.middle_layers,
    hidden_bias.twelve_pixels,
    hidden_bias.last_layers,
    hidden_bias.absorbed,
    hidden_bias.small_biases,
    named.cnn_small_convolutions,
    named.cnn_small_linear,
    named.cnn_large_middle,
    named.resnet_residual,
    named.resnet_norm,
    named.wide_resnet_residual,
    named.vgg_norm,
    arithmetic.summed_in_order,
    arithmetic.cancelled_at_1e30,
    arithmetic.fused_product,
    arithmetic.products_in_turn,
    arithmetic.flushed_activation,
    arithmetic.flushed_weight,
    arithmetic.overflow,
    arithmetic.overflow_in_order,
    other_layers.convolution,
    other_layers.average_pooling,
    other_layers.input_normalisation,
    other_layers.literal_batch_norm,
    other_layers.folded_batch_norm,
    other_layers.folded_by_the_runtime,
    other_layers.dead_constant,
    float_range.underflow_by_folding,
    float_range.overflow_by_folding,
    float_range.flushed_norm_weight,
    float_range.divided_by_denormal,
    float_range.overflow_in_pooling,
    float_range.flushed_variance,
)
"""Every construction; call one to build it."""

__all__ = ["MAKERS", "Canary", "Maker", "write"]
