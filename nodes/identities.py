"""Load Identity, Save Identity, Mix Identities."""

from dataclasses import replace
from pathlib import Path

import torch
from comfy_api.latest import io

from ..dynamicid_core.host import folders
from ..dynamicid_core.identity.identity import Identity, load_identity, save_identity
from ..dynamicid_core.identity.identity import mix as mix_identities
from ..dynamicid_core.messages import quoted
from .door import checked
from .notify import warn
from .sockets import IdentitySocket, number


class LoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDLoadIdentity",
            display_name="Load Identity",
            category="DynamicID/identity",
            description="Loads a person saved with Save Identity from models/dynamicid/identities.",
            search_aliases=["load face", "face model", "load person", "faceid"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folders.identity_names(),
                    tooltip="A saved person. Press R to refresh the list after saving a new one.",
                )
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="The person.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str) -> tuple[int, int]:
        """Return what changes when an identity is saved again under the same name."""
        stat = folders.identity_path(name).stat()
        return stat.st_mtime_ns, stat.st_size

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(load_identity(folders.identity_path(name)))


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDSaveIdentity",
            display_name="Save Identity",
            category="DynamicID/identity",
            description="Saves a person to models/dynamicid/identities, to be used again with Load Identity.",
            search_aliases=["save face", "face model", "save person"],
            is_output_node=True,
            inputs=[
                IdentitySocket.Input("identity", tooltip="The person to save."),
                io.String.Input(
                    "name",
                    default="person",
                    tooltip="File name without a suffix; a / puts it into a folder, such as friends/alice.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace another person saved under this name. Off: stop with an error and save nothing.",
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="The person, under the new name.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(cls, identity: Identity | None, name: str, overwrite: bool = False) -> io.NodeOutput:
        if identity is None:
            warn(cls, "nobody was saved: Encode Identity skipped this person, since no photograph shows the face.")
            return io.NodeOutput(None)
        path = folders.new_identity_path(name)
        named = replace(identity, name=path.stem)
        if path.exists() and not overwrite and not _same_person(identity, path):
            raise FileExistsError(
                f"Another person is saved as {quoted(name)} already. Choose another name, or turn overwrite on to "
                "replace that person."
            )
        save_identity(named, path)
        return io.NodeOutput(named)


def _same_person(identity: Identity, path: Path) -> bool:
    try:
        saved = load_identity(path)
    except (ValueError, OSError):
        return False
    curves = [(one.curve.frames, one.curve.tokens) if one.curve else ((), one.tokens) for one in (saved, identity)]
    (frames, tokens), (own_frames, own_tokens) = curves
    return saved.shares == identity.shares and frames == own_frames and torch.equal(tokens, own_tokens)


class MixIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDMix",
            display_name="Mix Identities",
            category="DynamicID/identity",
            description="Makes one person out of two by scaling their attention scores against each other.",
            search_aliases=["blend faces", "merge faces", "average face", "morph"],
            inputs=[
                IdentitySocket.Input("identity_a", tooltip="The person at mix 0."),
                IdentitySocket.Input("identity_b", tooltip="The person at mix 1."),
                number(
                    "mix",
                    0.5,
                    "0 is only the first person, 1 only the second. In between, the first person's scores are "
                    "multiplied by 1 - mix, the second person's by mix.",
                    step=0.05,
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="The mixed person.")],
        )

    @classmethod
    @checked
    def execute(cls, identity_a: Identity | None, identity_b: Identity | None, mix: float) -> io.NodeOutput:
        if identity_a is None or identity_b is None:  # Encode Identity skipped one: the other remains
            return io.NodeOutput(identity_b if identity_a is None else identity_a)
        return io.NodeOutput(mix_identities(identity_a, identity_b, mix))
