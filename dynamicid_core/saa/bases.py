"""Base models that an adapter can be for, and how an adapter's file names its layers in each of them.

A safetensors file says in its metadata, beside `format`, what it is for; a file that says nothing is for a UNet:

    base             a name of BASES
    identity_blocks  which blocks carry people: "all" (also where it is absent), or "double", of Flux's kind the
                     double-stream blocks alone

Its tensors have the same names for every base, under `SAA_module.`. Layers are numbered from 0 through all transformer
blocks, in the order in which the model runs them (UNet: in diffusers' processor order). A block is one layer where it
has one joint attention (Flux, Qwen-Image, ...), and two where it has a self-attention and then a cross-attention
(UNet, Wan, Anima). Of every layer i:

    {i}.to_{q,k,v,out}_lora.down.weight     (rank, in)
    {i}.to_{q,k,v,out}_lora.up.weight       (out, rank)
    {i}.to_{k,v}_ip.weight                  (h * d, token dim), in the layers that people enter alone

People enter every joint attention, or every cross-attention; with "double", those of the first blocks. The file may
then end with the last of these, or go on with layers that have the LoRA alone.

The LoRA is the image stream's: `y = W x + up(down(x))` with W the map that makes the image tokens' queries, keys and
values, and the one that their attention goes through. Where blocks have one stream for text and image, it is that
stream's. Where a base fuses maps into one weight, W is a part of it:

    Flux's kind, double block   to_q, to_k, to_v: rows of img_attn.qkv, in this order; to_out: img_attn.proj
    Flux's kind, single block   to_q, to_k, to_v: the first rows of linear1; to_out: the first h * d columns of linear2,
                                which the attention goes through (its other columns are the feed-forward's)

In diffusers' `FluxTransformer2DModel` these are attn.to_q, to_k, to_v and to_out.0 of a block of `transformer_blocks`,
and attn.to_q, to_k, to_v and the first h * d columns of proj_out of one of `single_transformer_blocks`.

Identity tokens give keys `tokens @ to_k_ip^T` and values alike, not normalized and without a position; they meet the
image's queries as the base makes them: after its query norm, before its rotary embedding. What people add joins the
image tokens' attention before to_out. Regions lie on the grid of image tokens, latent size / patch size.
"""

from typing import NamedTuple

UNET, FLUX = "unet", "flux"
ALL_BLOCKS, DOUBLE_BLOCKS = IDENTITY_BLOCKS = ("all", "double")


class Base(NamedTuple):
    """A kind of base model.

    Attributes:
        title: its name for users.
        attentions: layers of a block: 1 for a joint attention, 2 for a self-attention and a cross-attention.
        has_double: whether its blocks are of Flux's two kinds, double-stream and then single-stream.
    """

    title: str
    attentions: int = 1
    has_double: bool = False


BASES = {
    UNET: Base("a Stable Diffusion UNet", attentions=2),
    FLUX: Base("Flux.1", has_double=True),
    "flux2": Base("Flux.2", has_double=True),
    "chroma": Base("Chroma", has_double=True),
    "krea2": Base("Krea 2"),
    "qwen_image": Base("Qwen-Image"),
    "lumina2": Base("Lumina 2 or Z-Image"),
    "sd3": Base("Stable Diffusion 3"),
    "wan": Base("Wan", attentions=2),
    "anima": Base("Anima", attentions=2),
}
