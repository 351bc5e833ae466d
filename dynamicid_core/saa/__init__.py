"""Semantic-Activated Attention: its formula, its weights, and who is drawn where."""
