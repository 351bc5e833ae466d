"""safetensors files written by hand: headers that lie."""

import json
import struct
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from .text import odd_text

Header = dict[str, Any]


def packed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", (len(header) if length is None else length) % 2**64) + header + data


def entry(dtype: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def zeros(shapes: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Any = None) -> bytes:
    """Return a sound file of zeros: name -> dtype and shape."""
    size = {"F64": 8, "I64": 8, "C64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
    header: Header = {} if metadata is None else {"__metadata__": metadata}
    begin = 0
    for name, (dtype, shape) in shapes.items():
        length = size.get(dtype, 1)
        for axis in shape:
            length *= axis
        header[name] = entry(dtype, list(shape), begin, begin + length)
        begin += length
    return packed(json.dumps(header).encode(), bytes(begin))


def headers(rng: Random, name: str = "SAA_module.0.to_q_lora.down.weight") -> tuple[str, bytes]:
    """Return the bytes of a file whose header lies, and words for it."""
    side = rng.choice((0, 1, -1, 2**31, 2**40, 2**63, 2**64, 1.5, 1e400, "3", None, [2], True, 10**3000))
    many = rng.choice((5_000, 20_000, 100_000))
    sound = entry("F32", [2, 2], 0, 16)

    def dumped(header: Any, data: int = 16) -> bytes:
        return packed(json.dumps(header).encode(), bytes(data))

    kinds: dict[str, Callable[[], bytes]] = {
        "a length": lambda: packed(b"{}", length=rng.choice((0, 1, 3, 99, 2**31, 2**40, 2**63, 2**64 - 1))),
        "spaces": lambda: packed(b"{}" + b" " * rng.choice((10**3, 10**6, 3 * 10**7))),
        "brackets": lambda: packed(b'{"a":' + b"[" * many + b"]" * many + b"}"),
        "braces": lambda: packed(b'{"a":' * many + b"1" + b"}" * many),
        "no object": lambda: packed(rng.choice((b'{"a"', b"{1:2}", b'{"a":NaN}', b"{]", b"{\xff}", b'{"\\ud800":1}'))),
        "a long number": lambda: packed(b'{"a":{"dtype":"F32","shape":[' + b"9" * many + b'],"data_offsets":[0,1]}}'),
        "a name twice": lambda: packed(
            f'{{"{name}":{json.dumps(sound)},"{name}":{json.dumps(sound)}}}'.encode(), bytes(16)
        ),
        "a dtype": lambda: dumped(
            {name: entry(rng.choice(("F4", "", "C64", "BOOL", None, 3, ["F32"], "\x1b")), [2, 2], 0, 16)}
        ),
        "a shape": lambda: dumped({name: entry("F32", rng.choice(([side], [side, 2], [2, side], side, "22")), 0, 16)}),
        "no bytes": lambda: dumped({name: entry("F32", [0, 2**40], 0, 0)}, 0),
        "many axes": lambda: dumped({name: entry("F32", [1] * many, 0, 4)}, 4),
        "offsets": lambda: dumped({name: entry("F32", [2, 2], side, rng.choice((16, side)))}),
        "offsets that overlap": lambda: dumped({name: sound, name + "2": entry("F32", [2, 2], 8, 24)}, 24),
        "one place for all": lambda: dumped({f"{name}{i}": sound for i in range(many)}),
        "a hole": lambda: dumped({name: entry("F32", [2, 2], 8, 24)}, 24),
        "bytes left over": lambda: dumped({name: sound}, 99),
        "too few bytes": lambda: dumped({name: sound}, 15),
        "no offsets": lambda: dumped({name: {"dtype": "F32", "shape": [2, 2]}}),
        "an entry that is none": lambda: dumped({name: rng.choice((None, 3, [], "x", {}))}),
        "metadata": lambda: dumped(
            {"__metadata__": rng.choice((None, 3, [], {"format": 3}, {"format": None})), name: sound}
        ),
        "odd metadata": lambda: dumped({"__metadata__": {"format": "dynamicid" + odd_text(rng)}, name: sound}),
        "an odd name": lambda: dumped({odd_text(rng): sound}),
        "an odd name of a part": lambda: dumped({"SAA_module." + odd_text(rng): sound}),
        "an odd kind": lambda: zeros(
            {"image_proj.norm.weight": ("F32", (2,)), "ip_adapter.1.to_k_ip.weight": ("F32", (2, 2))},
            {"kind": odd_text(rng)},
        ),
        "many names": lambda: zeros({f"{name}.{i}": ("F32", (1,)) for i in range(many)}),
        "many layers": lambda: zeros(
            {f"imr.disentangleNet.{i}.0.to_q.weight": ("F32", (1, 1)) for i in range(min(many, 9_000))}
        ),
        "many layers of the face encoder": lambda: zeros(
            {f"proj_module.perceiver_resampler.layers.{i}.0": ("F16", (1, 1)) for i in range(min(many, 9_000))}
        ),
        "another model": lambda: zeros({f"model.{i}.weight": ("F16", (64, 64)) for i in range(900)}),
    }
    words = rng.choice(list(kinds))
    return words, kinds[words]()
