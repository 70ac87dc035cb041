"""Methods x datasets x seeds: planned, run, stored."""
