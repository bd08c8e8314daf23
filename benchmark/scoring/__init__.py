"""Outcome table -> scorecard; statistics, rounds, migrations. Imports no torch."""
