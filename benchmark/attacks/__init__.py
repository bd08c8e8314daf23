"""The stages of an evaluation: clean, certify, PGD-50 and AutoAttack."""
