"""The checker: has the last word on every certificate.

It recomputes a lower bound of every margin from the definitions, in float64, for the network as it
is deployed: float32, any order of summation, with or without fused multiply-add. It knows neither
the bound library nor a gradient, and what decides is numpy alone. Read in this order: `rounding`,
`intervals`, `layers`, `exact`, `activations`, `bends`, `curves`, `boxed`, `endings`, `network`,
`passes`, `proofs`, `clipping`, `trees`. Six files turn a torch module into a `Network`: `reading`,
`building`, `modules`, `nonlinear`, `pooling`, `nearly`.
"""
