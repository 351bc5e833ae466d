"""What dev.py makes environments with. Python's own library is all it needs."""
