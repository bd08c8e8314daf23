"""Recipes that train in seconds."""

#: A dense network of digits, to prune from.
DENSE = """
id = "tiny-dense"
title = "tiny"
method = "dense"
track = "digits"
epsilon = "2/16"
validation_rate = 0.9
validation_images = 60
[model]
architecture = "cnn-small"
arguments = { width = 0.25 }
[pretrain]
objective = { name = "natural" }
epochs = 2
batch_size = 32
optimiser = { lr = 0.01 }
"""
