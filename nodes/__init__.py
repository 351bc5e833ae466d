"""The pack's nodes, one module per step of a graph: load, encode, place, apply, inspect."""

import torch
from comfy_api.latest import ComfyExtension, io

from ..dynamicid_core import runtime
from ..dynamicid_core.host import folders
from .animate import AnimateMotion
from .apply import Apply, ApplyAdvanced
from .edit import EditFacialMotion
from .encode import EncodeIdentity
from .identities import LoadIdentity, MixIdentities, SaveIdentity
from .inspect import ActivationMap
from .layout import AutoLayout
from .load import LoadDynamicID, LoadDynamicIDMini
from .place import PlaceIdentity
from .redraw import RedrawPeople
from .who_is_who import WhoIsWho


class DynamicIDExtension(ComfyExtension):
    """The pack's nodes, for the host."""

    async def on_load(self) -> None:
        folders.register()
        runtime.tell(cuda=torch.cuda.is_available())

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadDynamicID,
            LoadDynamicIDMini,
            EncodeIdentity,
            EditFacialMotion,
            AnimateMotion,
            LoadIdentity,
            SaveIdentity,
            MixIdentities,
            PlaceIdentity,
            AutoLayout,
            Apply,
            ApplyAdvanced,
            ActivationMap,
            WhoIsWho,
            RedrawPeople,
        ]
