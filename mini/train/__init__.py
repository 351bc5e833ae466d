"""How the miniature's networks are trained: one module per stage, one loop for all (`python -m mini train`)."""
