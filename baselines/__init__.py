"""Reference entries: the paper's method and the naive pruners it is compared with."""
