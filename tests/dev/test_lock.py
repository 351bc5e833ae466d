"""The lock files name every package by sha256, and are those of today's requirements."""

import re
from pathlib import Path

import pytest
from dynamicid_pack.tests.dev.loaded import ROOT, dev, hosts, locks

NAMES = ("tools", *hosts.RELEASES)


def test_developer_requirements_are_those_of_pyproject() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and later read TOML")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    wanted = [*extras["training"], *extras["scale"], *extras["dev"]]
    assert locks.developer_requirements(text) == wanted
    listed = locks.requirement_lines((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert listed == project["dependencies"]
    assert not [line for line in project["dependencies"] if line.startswith("torch")]
    assert locks.pack_requirements(ROOT) == [*locks.TORCH, *listed, *wanted]


def test_a_pyproject_without_the_extra_is_refused() -> None:
    with pytest.raises(dev.DevError, match="no list `training`"):
        locks.developer_requirements("[project]\n")


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_file_is_of_todays_requirements(name: str) -> None:
    wanted = {"listed": locks.TOOLS} if name == "tools" else {"pack": locks.pack_requirements(ROOT)}
    locks.require_answer(locks.lock_file(name), **wanted)


@pytest.mark.parametrize("name", NAMES)
def test_every_package_of_a_lock_file_has_a_version_and_hashes(name: str) -> None:
    text = locks.lock_file(name).read_text(encoding="utf-8")
    entries = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    assert len(entries) > 40
    assert [line for line in entries if not re.match(r"[\w.-]+==[\w.]+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


@pytest.mark.parametrize(
    ("first", "second"),
    [(["einops"], ["einops", "numpy"]), (["einops"], ["einops>=1"]), ([], ["einops"]), (["a", "b"], ["b", "a"])],
)
def test_a_lock_file_of_other_requirements_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: list[str], second: list[str]
) -> None:
    made = locks.subprocess.CompletedProcess([], 0, "einops==1 --hash=sha256:0\n")
    monkeypatch.setattr(locks.subprocess, "run", lambda *_, **__: made)
    lock = tmp_path / "locks" / "one.txt"
    locks.write_lock(dev.Environment(tmp_path), lock, host=[], pack=first)
    locks.require_answer(lock, pack=first)
    assert locks.answers(lock, host=[], pack=first) and not locks.answers(lock, host=["more"], pack=first)
    with pytest.raises(dev.DevError, match=r"one\.txt was made of other requirements than pack has now: dev\.py lock"):
        locks.require_answer(lock, pack=second)


def test_what_uv_can_not_resolve_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = locks.subprocess.CompletedProcess([], 1, "")
    monkeypatch.setattr(locks.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(locks, "_index_of_pip", lambda _: {})
    with pytest.raises(dev.DevError, match=r"could not resolve the requirements of one\.txt"):
        locks.write_lock(dev.Environment(tmp_path), tmp_path / "one.txt", pack=["nothing==0"])
    assert not (tmp_path / "one.txt").exists()


class _Made:
    """Stands in for what makes an environment, and keeps the titles of its steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.titles: list[str] = []
        monkeypatch.setattr(dev, "run_steps", lambda steps, _: self.titles.extend(step.title for step in steps))


def test_a_published_host_takes_its_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _Made(monkeypatch)
    dev.prepare("3.11", "python", dev.Host(tmp_path, "0.30.0", hosts.RELEASES["0.30.0"]), tmp_path)
    assert len(made.titles) == 4 and not any("unchecked" in title for title in made.titles)


def test_a_host_without_a_lock_file_says_that_pip_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _Made(monkeypatch)
    (tmp_path / "requirements.txt").write_text("numpy\n")
    for version in ("0.30.0", "0.31.0"):  # its own list is not the published one's; no lock file is there
        made.titles.clear()
        dev.prepare("3.11", "python", dev.Host(tmp_path, version), tmp_path)
        assert any(
            f"chosen by pip, unchecked: no lock file was made for the ComfyUI in {tmp_path}" in t for t in made.titles
        )


def test_pip_chooses_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _Made(monkeypatch)
    dev.prepare("3.11", "python", dev.Host(tmp_path, "0.30.0", hosts.RELEASES["0.30.0"]), tmp_path, unlocked=True)
    assert any("unchecked: --unlocked" in title for title in made.titles)
