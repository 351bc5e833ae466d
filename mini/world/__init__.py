"""The renderer: drawn people with exact truth (who, where, which expression, which pose)."""
