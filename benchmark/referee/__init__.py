"""The only measuring stick: distance, ball, and whether an image is wrong, at batch size 1."""
