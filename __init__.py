"""DynamicID for ComfyUI: the pack's door. Everything behind it is imported when the host asks."""

import logging
from typing import Any

# The host serves this folder at /extensions/<the pack's folder>, where its page looks for docs/<node id>.md, a node's
# help, and loads the scripts: the panel of Edit Facial Motion (motion_panel.js).
WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """Return the pack's ComfyExtension (ComfyUI V3).

    The host logs a failure in one line, so the traceback is logged here.
    """
    try:
        from .nodes import DynamicIDExtension

        return DynamicIDExtension()
    except Exception:
        logging.getLogger("DynamicID").exception("DynamicID could not be loaded")
        raise
