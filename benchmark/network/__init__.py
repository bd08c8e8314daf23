"""What a network weighs, and smaller networks that compute the same."""
