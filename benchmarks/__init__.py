"""Comparisons of policies: what was run, what was measured. Not installed; run from a checkout."""
