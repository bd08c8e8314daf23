"""What people call from Python: scores of a network in memory, in notebooks and in their own tests.

``import corobench`` re-exports it (docs/python.md); this package holds the logic, one file per
function. Importing it imports no torch.
"""
