"""The Identity-Motion Reconfigurator: its networks, and the motions that it reads."""
