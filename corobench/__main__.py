"""``python -m corobench`` is the command line ``corobench``."""

from corobench.benchmark.cli.entry import main

if __name__ == "__main__":
    main()
