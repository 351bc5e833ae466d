"""Warnings for the user, in the log and on the node itself."""

import logging

from comfy_api.latest import io

logger = logging.getLogger("DynamicID")


def warn(node: type[io.ComfyNode], message: str) -> None:
    """Log a warning and show it on the node, which must have the hidden input `unique_id`."""
    logger.warning("%s: %s", node.define_schema().display_name, message)
    _show(node, f"\N{WARNING SIGN} {message}")


def tell(node: type[io.ComfyNode], message: str) -> None:
    """Log a message and show it on the node, which must have the hidden input `unique_id`."""
    logger.info("%s: %s", node.define_schema().display_name, message)
    _show(node, message)


def _show(node: type[io.ComfyNode], message: str) -> None:
    node_id = getattr(node.hidden, "unique_id", None)
    if node_id is None:
        return
    # Only a running server numbers nodes; without one its module may not even be importable.
    from server import PromptServer

    PromptServer.instance.send_progress_text(message, node_id)
