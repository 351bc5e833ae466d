"""Faces of an image drawn anew one by one: crops about them, what a prompt says of a crop, and which result is kept."""
