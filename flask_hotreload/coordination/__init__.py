"""One transaction over several worker processes: a two-phase commit over a small store."""
