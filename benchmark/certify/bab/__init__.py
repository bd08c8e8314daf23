"""Branch and bound on the signs of ReLUs, and the gradient ascent of alpha-CROWN."""
