"""The pictures of templates, README and help, made anew from the real server and page: `python dev.py pictures`.

A template of the miniature shows what it draws; one for SD1.5, whose weights are not the pack's, shows its graph.
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence
from playwright.sync_api import FloatRect, Page, sync_playwright

from dynamicid_core.evaluation.client import Client, server
from dynamicid_core.evaluation.template import api_graph
from mini.world.world import World

from .page import FLAGS, GraphPage, find_browser

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
FULL_SIZE = [template for template in TEMPLATES if not template.stem.startswith("mini_")]
MOST = 8  # pictures of a template's, evenly of those that it saves
SIZE = 512  # of the longer side of a template's picture
PAPER = (38, 38, 44)
ICON = 3  # which drawn person is the pack's
MODELS = {  # loaders: where the files that their widgets name belong
    "CheckpointLoaderSimple": ("checkpoints/{}",),
    "ControlNetLoader": ("controlnet/{}",),
    "DynamicIDLoader": ("dynamicid/{}", "dynamicid/{}", "clip_vision/{}", *3 * ("",), "dynamicid/expression/{}"),
    "DynamicIDLoadIdentity": ("dynamicid/identities/{}.safetensors",),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="these templates and screenshots; all otherwise")
    parser.add_argument("command", nargs="+", help="what starts the server")
    options = parser.parse_args(argv)
    chosen = [path for path in TEMPLATES if not options.only or path.stem in options.only]
    executable = find_browser()
    if executable is None:
        print("no Chromium on this machine: python dev.py test --install-browser", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        command = [*options.command, "--extra-model-paths-config", str(named_models(scratch))]
        (scratch / "user").mkdir()
        command += ["--user-directory", str(scratch / "user")]  # as a new user sees it, whatever was opened before
        with server(command, scratch / "server.log") as client:
            make(client, chosen, executable, options.only)
    return 0


def make(client: Client, chosen: Sequence[Path], executable: str, only: Sequence[str] | None) -> None:
    client.upload("example.png", drawn(5, SIZE))
    nodes = client.get("/object_info")
    (pack,) = client.get("/workflow_templates")
    for template in (path for path in chosen if path not in FULL_SIZE):
        result(client, template, nodes)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for template in (path for path in chosen if path in FULL_SIZE):
            with browser.new_context(viewport={"width": 1600, "height": 1600}) as context:
                graph(context.new_page(), client.url, pack, template)
        for name, shoot in SCREENSHOTS.items():
            if not only or name in only:
                with browser.new_context(viewport={"width": 1600, "height": 900}) as context:
                    opened = GraphPage(context.new_page(), client.url, pack)
                    opened.open()
                    clip = shoot(opened)
                    opened.page.screenshot(path=ROOT / "docs" / f"{name}.png", clip=clip)
                    print(f"docs/{name}.png", flush=True)
        browser.close()
    if not only or "icon" in only:
        (ROOT / "docs" / "icon.png").write_bytes(drawn(ICON, 400))


def named_models(folder: Path) -> Path:
    """Empty files of the names that templates ask for, so that their graphs stand complete; the host's list of them."""
    for template in FULL_SIZE:
        for node in json.loads(template.read_text("utf-8"))["nodes"]:
            for kind, name in zip(MODELS.get(node["type"], ()), node["widgets_values"], strict=False):
                if kind and name != "None":
                    file = folder / kind.format(name)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
    for kind in ("det_10g", "w600k_r50"):
        (folder / "insightface" / "models" / "buffalo_l").mkdir(parents=True, exist_ok=True)
        (folder / "insightface" / "models" / "buffalo_l" / f"{kind}.onnx").touch()
    kinds = sorted({path.name for path in folder.iterdir() if path.is_dir()})
    listed = folder / "models.yaml"
    listed.write_text("pictures:\n" + "".join(f"  {kind}: {folder / kind}\n" for kind in kinds), "utf-8")
    return listed


def drawn(number: int, side: int) -> bytes:
    """A drawn person's portrait, a square PNG: what stands for a user's photograph, and the pack's icon."""
    file = io.BytesIO()
    picture = Image.fromarray(World(seed=21, held_out_people=True).sample(number, 1).picture().image)
    picture.resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def result(client: Client, template: Path, nodes: dict[str, Any]) -> None:
    """What a template of the miniature saves, side by side."""
    saved = client.run(api_graph(template, nodes))
    files = [Image.open(io.BytesIO(client.fetch(one))) for one in saved]
    frames = [frame.convert("RGB") for file in files for frame in ImageSequence.Iterator(file)]
    pictures = [frames[round(place)] for place in np.linspace(0, len(frames) - 1, min(len(frames), MOST))]
    width, height = pictures[0].size
    is_wide, count = width > height, len(pictures)
    columns = 1 if count == 1 or (is_wide and count == 2) else 2 if is_wide or count in (2, 4) else 4
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), PAPER)
    for place, picture in enumerate(pictures):
        sheet.paste(picture, ((place % columns) * width, (place // columns) * height))
    save(sheet, template)


def graph(page: Page, url: str, pack: str, template: Path) -> None:
    """A template's graph as the page draws it, cut to its nodes."""
    opened = GraphPage(page, f"{url}/?template={template.stem}&source={pack}", pack)
    opened.open()
    opened.fit()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "graph.png"
        page.screenshot(path=path, clip=opened.extent())
        with Image.open(path) as shot:
            save(shot.convert("RGB"), template)


def save(picture: Image.Image, template: Path) -> None:
    scale = SIZE / max(picture.size)
    shrunk = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    shrunk.save(template.with_suffix(".jpg"), quality=88)
    print(template.with_suffix(".jpg").relative_to(ROOT), shrunk.size, flush=True)


def _templates(page: GraphPage) -> None:
    page.show_templates()
    page.card("mini_02_two_people")
    page.page.wait_for_timeout(1500)


def _queued(page: GraphPage) -> None:
    page.load("mini_13_who_is_who")
    page.queue()
    for _ in range(300):
        if page.picture_of(page.node("SaveImage")):
            break
        page.page.wait_for_timeout(200)
    page.page.wait_for_timeout(3000)
    page.fit()


def _two_people(page: GraphPage) -> FloatRect:
    page.load("02_two_people")
    page.fit()
    return page.extent()


def _help(page: GraphPage) -> None:
    page.load("mini_01_one_person")
    page.select(page.node("DynamicIDMini"))
    page.page.get_by_test_id("info-button").click()
    page.page.wait_for_timeout(2000)


SCREENSHOTS: dict[str, Callable[[GraphPage], FloatRect | None]] = {
    "templates": _templates,
    "who_is_who_graph": _queued,
    "two_people_graph": _two_people,
    "help": _help,
}


if __name__ == "__main__":
    sys.exit(main())
