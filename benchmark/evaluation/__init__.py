"""One network in, one outcome table out: facts, stages, their order, identity."""
