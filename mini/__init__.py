"""A world in miniature: rendered people with exact truth (who, where, which expression, which pose)."""
