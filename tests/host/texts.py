"""The nodes' texts, which stand once, in the nodes: the English locale and the help pages' tables are made from them.

With the environment's Python and COMFYUI_PATH set to ComfyUI's folder, write both by

    python tests/host/texts.py
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"
PAGES = ROOT / "web" / "docs"

NAMED_SOCKETS = 8
"""How many sockets of a growing input have a tooltip; a ninth person's has none."""
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
FILES = {"saa", "adapter", "imr", "clip_vision", "face_pack", "expression_model", "name"}
"""Combos that list files, so that no page can tell their values."""
OF_THE_HOST = {"sampler_name", "scheduler"}
"""Combos that list what the host has, each version its own."""

JsonDict = dict[str, Any]


def node_infos(pack: Any) -> dict[str, JsonDict]:
    """Return what the host tells of each node of the imported pack, by node id, as /object_info does."""

    async def nodes() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        await extension.on_load()
        return list(await extension.get_node_list())

    infos = [node.GET_NODE_INFO_V1() for node in asyncio.run(nodes())]
    return {info["name"]: info for info in infos}


def english_locale(infos: Mapping[str, JsonDict]) -> str:
    """Return the English locale: the nodes by id, with their texts in the nodes' order."""
    locale: JsonDict = {}
    for node_id in sorted(infos):
        for key, text in schema_texts(infos[node_id]).items():
            *path, last = [node_id, *key.split(".")]
            place = locale
            for part in path:
                place = place.setdefault(part, {})
            place[last] = text
    return json.dumps(locale, ensure_ascii=False, indent=2) + "\n"


def help_page(page: str, info: JsonDict) -> str:
    """Return a help page with the tables of its inputs and outputs written anew; the rest is written by hand."""
    page = _with_table(page, "Inputs", ("input", "what it does", "default", "range"), _input_rows(info))
    return _with_table(page, "Outputs", ("output", "what it is"), _output_rows(info))


def _with_table(page: str, section: str, titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return re.sub(rf"(?<=^## {section}\n\n)(\|.*\n)+", lambda _: table, page, flags=re.MULTILINE)


def _input_rows(info: JsonDict) -> list[tuple[str, ...]]:
    """Return name, text, default and range of each input; those of a dynamic combo name the choices they belong to."""
    rows: dict[str, tuple[str, ...]] = {}
    belongs: dict[str, list[str]] = {}
    for name, (kind, options), choice in page_inputs(info["input"]):
        if kind == "COMFY_AUTOGROW_V3":
            ((_, _, socket),) = listed(options["template"]["input"])
            text = f"In each socket: {socket['tooltip']} Up to {options['template']['max']} sockets."
        else:
            text = options["tooltip"]
        belongs.setdefault(name, []).append(choice)
        before = f"For {', '.join(belongs[name])}: " if choice else ""
        rows[name] = (f"`{name}`", before + text, default_of(kind, options, name), range_of(kind, options, name))
    return [*rows.values()]


def _output_rows(info: JsonDict) -> list[tuple[str, ...]]:
    return [(f"`{name}`", tip) for name, tip in zip(info["output_name"], info["output_tooltips"], strict=True)]


def listed(inputs: Mapping[str, Mapping[str, list[Any]]]) -> Iterator[tuple[str, str, JsonDict]]:
    """Yield name, type and options of a node's inputs, in their order."""
    for group in ("required", "optional"):
        for name, (kind, *options) in inputs.get(group, {}).items():
            yield name, kind, options[0] if options else {}


def page_inputs(
    inputs: JsonDict, before: str = "", choice: str = ""
) -> Iterator[tuple[str, tuple[str, JsonDict], str]]:
    """Yield what a help page lists: each input's name, its type and options, and the choice that it belongs to.

    The inputs of a dynamic combo follow it, as `layout.boxes`.
    """
    for name, kind, options in listed(inputs):
        yield before + name, (kind, options), choice
        if kind == "COMFY_DYNAMICCOMBO_V3":
            for option in options["options"]:
                yield from page_inputs(option["inputs"], f"{before}{name}.", option["key"])


def default_of(kind: str, options: JsonDict, name: str) -> str:
    """Return an input's default as a help page writes it; "-" for a socket, and for the first file of a folder."""
    default = options.get("default")
    if default is None:
        choices = choices_of(options, name)
        return choices[0] if choices else "-"
    if kind == "BOOLEAN":
        return "on" if default else "off"
    return f"{default:g}" if kind in ("INT", "FLOAT") else str(default).replace("\n", "; ") or "empty"


def range_of(kind: str, options: JsonDict, name: str) -> str:
    """Return an input's values as a help page writes them; "-" for a socket."""
    if kind in ("INT", "FLOAT"):
        return f"{options['min']:g} to {options['max']:g}"
    if kind == "COMBO" and name in FILES:
        return "files"
    if kind == "COMBO" and name in OF_THE_HOST:
        return "KSampler's"
    words = {"STRING": "text", "BOOLEAN": "on, off"}
    return words.get(kind) or ", ".join(choices_of(options, name)) or "-"


def choices_of(options: JsonDict, name: str) -> list[str]:
    """Return a combo's values; [] where they are files, or the host's own."""
    if name in FILES | OF_THE_HOST:
        return []
    return [choice["key"] if isinstance(choice, dict) else choice for choice in options.get("options", ())]


def flattened(texts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield `inputs.people.name` and its text, for each text of a node in a locale."""
    for key, value in texts.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{before}{key}.")
        else:
            yield before + key, value


def schema_texts(info: JsonDict) -> dict[str, str]:
    """Return all texts of a node under the keys that the page looks them up by."""
    texts = {"display_name": info["display_name"], "description": info["description"]}
    texts |= dict(input_texts(info["input"]))
    for number, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True)):
        texts[f"outputs.{number}.name"] = name
        if tooltip:
            texts[f"outputs.{number}.tooltip"] = tooltip
    return texts


def input_texts(inputs: JsonDict, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield inputs' names and tooltips; the page writes `layout.boxes` as `layout_boxes`.

    Sockets of growing inputs and of dynamic combos have no name here: the page labels them itself, and looks the
    tooltip of a socket with a translated name up by that name.
    """
    for name, kind, options in listed(inputs):
        key = f"inputs.{before}{name}"
        if not before or kind in WIDGETS:
            yield f"{key}.name", name
        if options.get("tooltip"):
            yield f"{key}.tooltip", options["tooltip"]
        if kind == "COMFY_AUTOGROW_V3":
            ((_, _, socket),) = listed(options["template"]["input"])
            for number in range(NAMED_SOCKETS):
                yield f"{key}_{options['template']['prefix']}{number}.tooltip", socket["tooltip"]
        if kind == "COMFY_DYNAMICCOMBO_V3":
            for choice in options["options"]:
                yield from input_texts(choice["inputs"], f"{before}{name}_")


def _import_pack() -> Any:
    """Import the pack as the tests do, on the CPU. Their folder replaces this script's on the path."""
    sys.path[0] = str(ROOT / "tests")
    import conftest  # type: ignore[import-not-found]  # noqa: F401

    import comfy.cli_args  # isort: skip

    comfy.cli_args.args.cpu = True
    return sys.modules["dynamicid_pack"]


def main() -> None:
    infos = node_infos(_import_pack())
    ENGLISH.write_text(english_locale(infos), "utf-8")
    for node_id, info in infos.items():
        page = PAGES / f"{node_id}.md"
        page.write_text(help_page(page.read_text("utf-8"), info), "utf-8")


if __name__ == "__main__":
    main()
