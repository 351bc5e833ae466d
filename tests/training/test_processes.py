"""Two processes and one with the whole batch: the same losses."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dynamicid_pack.tests.support import ROOT


def losses(config: Path, processes: int) -> list[float]:
    """Train by the command, in as many processes, and read what was noted."""
    module = [*("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))]
    module += ["-m", "dynamicid_core.training", "anchor", "--config", str(config)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *module], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]
    output = config.parent / str(json.loads(config.read_text())["output"])
    assert (output / "anchoring.safetensors").is_file()
    with (output / "losses.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_two_processes_take_the_steps_of_one(recipe: Callable[..., Path]) -> None:
    one, two = losses(recipe("one"), 1), losses(recipe("two"), 2)
    assert len(one) == 4 and one == pytest.approx(two, rel=1e-4)
    assert len(set(one)) == 4
