"""The command line: it parses and calls; one file per group of commands."""
