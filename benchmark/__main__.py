"""``python -m benchmark`` is the command line ``corobench``."""

from benchmark.cli import main

main()
