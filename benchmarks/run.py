"""What people cost: step time, floating-point operations, operator calls and memory, with and without them.

    python dev.py bench [--people 1 2 4] [--size 512x512 768x512] [--pairs N] [--quick] [--json FILE]

Prints text tables and writes a JSON file. Nothing here passes or fails; on two CPU cores a full run takes most of an
hour, `--quick` a minute or two. This file only makes the host and the pack importable; `command.py` does the work.
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACK = "dynamicid_pack"


def _make_importable() -> None:
    """The host's modules under their own names, this checkout as the package that the host would import it as."""
    host = os.environ.get("COMFYUI_PATH")
    if not host:
        sys.exit("benchmarks: the host is missing. Run `python dev.py bench`, or set COMFYUI_PATH to ComfyUI's folder.")
    sys.path[0] = host
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])

    # Before any other module of the host, which read it when they are imported.
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()


if __name__ == "__main__":
    _make_importable()
    from dynamicid_pack.benchmarks.command import main

    main(sys.argv[1:])
