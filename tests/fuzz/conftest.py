"""The host in this process, on the CPU and in a folder of its own, and its server: tests/host/conftest.py has them."""

from ..host.conftest import make_server, miniature_server, server  # noqa: F401 (fixtures)
