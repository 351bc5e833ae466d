"""The host in this process, on the CPU and in a folder of its own: tests/host/conftest.py prepares it."""

from ..host import conftest  # noqa: F401
