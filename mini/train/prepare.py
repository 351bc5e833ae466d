"""What the method's own trainings start from, in one folder: base model, drawn people, recipes.

FOLDER/base, base-flux      the miniature as diffusers and transformers keep models: with its UNet, with its Flux
FOLDER/people/*.tar         portraits for the anchoring stage
FOLDER/pictures/<person>/   sets of pictures, from which `python -m dynamicid_core.data build` makes FOLDER/sets
FOLDER/<recipe>.json        for `python -m dynamicid_core.training`
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from .export import export
from .people import write_people, write_sets

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def prepare(shipped: Path, folder: Path, portraits: int, sets: int) -> None:
    """Make what is not there yet; recipes are always those of the checkout.

    Args:
        shipped: folder of the miniature's weights.
        portraits: for anchoring.
        sets: people for reconfiguration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in sorted(RECIPES.glob("*.json")):
        shutil.copy(recipe, folder)
    steps: dict[str, Callable[[Path], object]] = {
        "base": lambda place: export(shipped, place),
        "base-flux": lambda place: export(shipped, place, "Flux"),
        "people": lambda place: write_people(shipped, place, portraits),
        "pictures": lambda place: write_sets(place, sets),
    }
    if not (shipped / "flux.safetensors").is_file():
        del steps["base-flux"]
    for name, make in steps.items():
        if (folder / name).exists():
            continue
        print(f"making {folder / name}", flush=True)
        part = folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        make(part)
        part.rename(folder / name)
