"""One strict reader per format, for the referee and the pages alike. Imports no torch.

``result_file``: result JSON; ``table_file``: outcome parquet; ``arrays_file``: npz. They check what
one file can show by itself; `benchmark.scoring.scored` reads a result and its table together.
"""
