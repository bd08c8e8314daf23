"""``python -m benchmark`` is the command line ``corobench``."""

from benchmark.cli import main

if __name__ == "__main__":
    main()
