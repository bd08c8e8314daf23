"""The only files that know auto_LiRPA; importing them does not import it."""
