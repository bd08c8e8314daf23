"""The checker: has the last word on every certificate.

It recomputes a lower bound of every margin from the definitions, in float64, for the network as it
is deployed: float32, any order of summation, with or without fused multiply-add. It knows neither
the bound library nor a gradient, and all but `reading` is numpy alone. Read in this order:
`rounding`, `layers`, `activations`, `network`, `proofs`, `trees`; `reading` turns a torch module
into a `Network`.
"""
