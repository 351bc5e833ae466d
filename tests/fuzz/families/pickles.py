"""Pickles written by hand, opcode by opcode, and the files of PyTorch around them."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

Op = bytes
REBUILD = "torch._utils _rebuild_tensor_v2"


def text(value: str) -> Op:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> Op:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def items(*values: Op) -> Op:
    return b"(" + b"".join(values) + b"t"


def mapping(pairs: dict[Op, Op]) -> Op:
    return b"}(" + b"".join(key + value for key, value in pairs.items()) + b"u"


def function(name: str) -> Op:
    module, _, attribute = name.rpartition(" ")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def call(name: str, *arguments: Op) -> Op:
    return function(name) + items(*arguments) + b"R"


def storage(key: str, numel: int, kind: str = "torch FloatStorage", device: str = "cpu") -> Op:
    return items(text("storage"), function(kind), text(key), text(device), integer(numel)) + b"Q"


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], numel: int, offset: int = 0, key: str = "0") -> Op:
    sizes, steps = (items(*map(integer, numbers)) for numbers in (shape, strides))
    return call(REBUILD, storage(key, numel), integer(offset), sizes, steps, b"\x89", call("collections OrderedDict"))


def whole(content: Op) -> bytes:
    """Return a pickle of protocol 2."""
    return b"\x80\x02" + content + b"."


def zipped(content: bytes, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return the archive that torch.save writes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        for key, data in records.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
    return file.getvalue()


def before_zip(content: bytes, records: dict[str, bytes]) -> bytes:
    """Return the file that torch.save wrote before that; records are of float32."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    pickles = [pickle.dumps(value, protocol=2) for value in head]
    data = [struct.pack("<q", len(record) // 4) + record for record in records.values()]
    # a storage is named with its view there
    content = content.replace(b"tQ", b"NtQ")
    return b"".join([*pickles, content, pickle.dumps([*records], protocol=2), *data])


NAME = "SAA_module.0.to_q_lora.down.weight"


def small(rng: Random) -> Op:
    """Return something harmless of a few bytes."""
    return rng.choice((b"N", b"\x88", b"}", b"]", b")", integer(rng.randrange(-9, 99)), text("word"), b"G" + bytes(8)))


def _payload(mark: str) -> Op:
    return call("builtins exec", text(f"open({mark!r}, 'w').close()"))


def contents(rng: Random, mark: str) -> tuple[str, Op]:
    """Return what a hostile pickle holds, and words for it. `mark` is made by whatever runs code from it."""
    side = rng.choice((0, 1, 3, 20_000, 2**20, 2**31, 2**40, 2**62, -1))
    many = rng.choice((1_000, 20_000, 60_000))
    kinds: dict[str, Callable[[], Op]] = {
        "exec": lambda: _payload(mark),
        "exec in a tensor": lambda: mapping({text(NAME): call(REBUILD, _payload(mark))}),
        "exec by setstate": lambda: call("collections OrderedDict") + mapping({text("x"): _payload(mark)}) + b"b",
        "os.system": lambda: call("posix system", text(f"touch {mark}")),
        "eval through getattr": lambda: call("builtins getattr", function("builtins __import__"), text("__call__")),
        "torch.load": lambda: call("torch load", text("/dev/zero")),
        "a global with an odd name": lambda: b"c" + rng.choice((b"a\xff", b"x" * 10**6, b"a.b\x1b[2J")) + b"\nc\n",
        "a bytearray": lambda: mapping({text("x"): call("builtins bytearray", integer(abs(side)))}),
        "bytes": lambda: mapping({text("x"): call("_codecs encode", text("a" * 99), text("zip"))}),
        "strides of 0": lambda: mapping({text(NAME): tensor((side, side), (0, 0), 1)}),
        "strides below 0": lambda: mapping({text(NAME): tensor((2, 2), (-1, side), 4)}),
        "a large size": lambda: mapping({text(NAME): tensor((side, 2), (2, 1), 8)}),
        "a large storage": lambda: mapping({text(NAME): tensor((2, 2), (2, 1), side)}),
        "an offset": lambda: mapping({text(NAME): tensor((2, 2), (2, 1), 8, offset=side)}),
        "axes": lambda: mapping({text(NAME): tensor((1,) * many, (1,) * many, 8)}),
        "sizes that are words": lambda: mapping(
            {text(NAME): call(REBUILD, storage("0", 8), small(rng), small(rng), small(rng), small(rng), small(rng))}
        ),
        "a tensor without its storage": lambda: mapping({text(NAME): call(REBUILD, small(rng), integer(0))}),
        "an odd device": lambda: mapping({text(NAME): storage("0", 8, device="\ud800:999999")}),
        "an odd storage": lambda: mapping({text(NAME): items(*(small(rng) for _ in range(5))) + b"Q"}),
        "a sparse tensor": lambda: mapping(
            {text(NAME): call("torch._utils _rebuild_sparse_tensor", small(rng), items(small(rng), small(rng)))}
        ),
        "a meta tensor": lambda: mapping(
            {text(NAME): call("torch._utils _rebuild_meta_tensor_no_storage", small(rng), items(integer(abs(side))))}
        ),
        "a nested tensor": lambda: mapping(
            {text(NAME): call("torch._utils _rebuild_nested_tensor", small(rng), small(rng), small(rng), small(rng))}
        ),
        "a tensor made new": lambda: function("torch FloatTensor") + items(integer(abs(side))) + b"\x81",
        "attributes named items": lambda: (
            call("collections OrderedDict")
            + mapping({text("items"): small(rng), text("detach"): small(rng), text("keys"): b"N"})
            + b"b"
        ),
        "attributes of a parameter": lambda: mapping(
            {
                text(NAME): call(
                    "torch._utils _rebuild_parameter_with_state",
                    tensor((2, 2), (2, 1), 8),
                    b"\x89",
                    call("collections OrderedDict"),
                    mapping({text("detach"): b"N", text("shape"): small(rng)}),
                )
            }
        ),
        "shared dicts": lambda: nested(rng.choice((3, 30, 3000)), rng.choice((2, 30, 300))),
        "a dict that holds itself": lambda: b"}q\x00" + text("a") + b"h\x00s",
        "deep lists": lambda: b"]" * many + b"a" * (many - 1),
        "deep tuples": lambda: b")" + b"\x85" * many,
        "many names": lambda: b"}(" + b"".join(text(f"SAA_module.{i}.x") + b"N" for i in range(many)) + b"u",
        "many layers": lambda: layers(
            many, rng.choice(("SAA_module.", "imr.disentangleNet.", "proj_module.perceiver_resampler.layers."))
        ),
        "a far memo": lambda: b"}r" + struct.pack("<I", rng.choice((2**20, 2**31, 2**32 - 1))),
        "a memo that is not there": lambda: b"j" + struct.pack("<I", rng.randrange(2**32)),
        "a text longer than the file": lambda: b"X" + struct.pack("<I", rng.choice((2**24, 2**31, 2**32 - 1))) + b"a",
        "a text that is no UTF-8": lambda: mapping({b"X\x02\0\0\0\xff\xfe": b"N"}),
        "an odd key": lambda: mapping({text(rng.choice(_KEYS)): tensor((2, 2), (2, 1), 8)}),
        "odd keys": lambda: mapping({rng.choice((small(rng), items(small(rng)))): tensor((2, 2), (2, 1), 8)}),
        "a number of any length": lambda: (
            b"\x8b" + struct.pack("<i", rng.choice((-1, 10**5, 2**31 - 1))) + bytes(10**5)
        ),
        "keys with one hash": lambda: b"}(" + b"".join(integer(i * (2**61 - 1)) + b"N" for i in range(1, many)) + b"u",
        "opcodes at random": lambda: bytes(rng.randrange(256) for _ in range(rng.randrange(400))),
        "opcodes at random among ours": lambda: b"".join(
            rng.choice((small(rng), b"(", b"t", b"u", b"s", b"R", b"Q", b"b", b"\x81", function("torch FloatStorage")))
            for _ in range(rng.randrange(60))
        ),
    }
    words = rng.choice(list(kinds))
    return words, kinds[words]()


_KEYS = (
    "\ud800",
    "SAA_module.\udcff\n\x1b[2J",
    "SAA_module.\u202e" + "x" * 10**6,
    "SAA_module." + "9" * 5000 + ".to_q_lora.down.weight",
    "SAA_module.٣.to_q_lora.down.weight",
    "",
    ".",
    "SAA_module.",
)


def nested(depth: int, width: int) -> Op:
    """Return a dict of `width` keys, each of which holds one and the same dict, and so on."""
    pickled = b"}q\x00" + text("x") + small(Random(1)) + b"s"
    for _ in range(depth):
        pickled += b"q\x00}(" + b"".join(text(str(i)) + b"h\x00" for i in range(width)) + b"uq\x00"
    return pickled


def layers(many: int, prefix: str) -> Op:
    """Return a dict of layers that all have one tensor."""
    names = (text(f"{prefix}{i}.to_q_lora.down.weight") for i in range(many))
    first = next(names) + tensor((2, 2), (2, 1), 8) + b"q\x07"
    return b"}(" + first + b"".join(name + b"h\x07" for name in names) + b"u"


def files(rng: Random, mark: str) -> tuple[str, bytes]:
    """Return the bytes of a file with a hostile pickle in it, and words for it."""
    words, content = contents(rng, mark)
    pickled, records = whole(content), {"0": bytes(32)}
    form = rng.choice(("zip", "zip", "zip, compressed", "before zip", "before zip", "plain"))
    made: dict[str, Callable[[], Any]] = {
        "zip": lambda: zipped(pickled, records),
        "zip, compressed": lambda: zipped(pickled, records, zipfile.ZIP_DEFLATED),
        "before zip": lambda: before_zip(pickled, records),
        "plain": lambda: pickled,
    }
    return f"{words}, {form}", made[form]()
