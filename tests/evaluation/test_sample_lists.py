"""The public benchmarks' lists, laid out as their own scripts write and read them; the pictures are drawn people."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dynamicid_pack.dynamicid_core.evaluation import __main__ as command
from dynamicid_pack.dynamicid_core.evaluation.config import Benchmark, SampleSpec, Variant
from dynamicid_pack.dynamicid_core.evaluation.grow import grow
from dynamicid_pack.dynamicid_core.evaluation.list_config import parse_input, parse_option, parse_override
from dynamicid_pack.dynamicid_core.evaluation.report import read_results
from dynamicid_pack.dynamicid_core.evaluation.run_folder import load_snapshot
from dynamicid_pack.dynamicid_core.evaluation.sample_lists import read_sample_list
from dynamicid_pack.dynamicid_core.evaluation.variants import Template, build_graph
from dynamicid_pack.mini.world.person import Person
from PIL import Image

from . import fakes
from .drawings import draw, stranger

MINIATURE = "mini.train.judging:judge"
Save = Callable[..., Path]


@pytest.fixture
def known() -> dict[Path, Person]:
    """The references that `save` wrote."""
    return {}


@pytest.fixture
def save(known: dict[Path, Person]) -> Save:
    """Draws people into a file."""

    def save(path: Path, *numbers: int, expression: str = "neutral") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        people = [stranger(number) for number in numbers]
        Image.fromarray(draw(people, [(expression, 0, 0)] * len(people), sum(numbers)).image).save(path)
        if len(people) == 1:
            known[path] = people[0]
        return path

    return save


@pytest.fixture
def multiid(tmp_path: Path, save: Save) -> Path:
    """What WithAnyone's hf2bench.py writes: an index beside a folder for each subset."""
    root = tmp_path / "MultiID"
    pair = root / "v202" / "untar"
    save(pair / "0001.jpg", 3, 4, expression="happy")
    save(pair / "0001_1.jpg", 3)
    save(pair / "0001_2.jpg", 4)
    (pair / "0001.json").write_text(json.dumps({"caption_en": "two people", "bboxes": [[0, 0, 9, 9], [9, 0, 19, 9]]}))
    entry = {"prompt": "two people", "image_paths": ["0001_1.jpg", "0001_2.jpg"], "ori_img_path": "0001.jpg"}
    (root / "v202.json").write_text(json.dumps([entry]))
    trio = root / "v200_m"
    save(trio / "num_3" / "0002.jpg", 3, 4, 5)
    names = [f"refs/person_{i}/0002_{i}.jpg" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        save(trio / name, 3 + i)
    entry = {"prompt": "three people", "image_paths": names, "ori_img_path": "num_3/0002.jpg",
             "name": ["person_1", "person_2", "person_3"]}  # fmt: skip
    (root / "v200_m.json").write_text(json.dumps([entry]))
    return root


@pytest.fixture
def xverse(tmp_path: Path, save: Save) -> Path:
    """XVerse's repository: people lie in `human`, and things beside them."""

    def entry(index: int, *images: str) -> dict[str, Any]:
        inputs = [{"image_path": f"assets/XVerseBench/{image}", "caption": "someone"} for image in images]
        modulation = [{"type": "adapter", "src_inputs": inputs, "use_words": []}]
        return {
            "index": index, "input_images": [], "position_delta": [0, -32], "prompt": f"prompt {index}",
            "modulation": modulation,
        }  # fmt: skip

    path = tmp_path / "XVerse" / "eval" / "tools" / "XVerseBench_multi.json"
    for name, number in (("00_boy.jpg", 3), ("16_old man.jpg", 4)):
        save(tmp_path / "XVerse" / "assets" / "XVerseBench" / "human" / name, number)
    path.parent.mkdir(parents=True)
    entries = [
        entry(0, "human/00_boy.jpg", "object/00_motorcycle.jpg"),
        entry(1, "object/00_motorcycle.jpg", "object/30_vase.jpg"),
        entry(2, "human/00_boy.jpg", "human/16_old man.jpg"),
    ]
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def multihuman(tmp_path: Path, save: Save) -> Path:
    """MultiHuman-Testbench's repository after its faces were fetched."""
    path = tmp_path / "MultiHuman" / "data" / "multihuman_metadata.json"
    for number in (3, 4):
        save(path.parent / "faces" / f"ffhq_{number}.jpg", number)
    entries = [
        {"people": ["data/faces/ffhq_3.jpg"], "prompt": "a chef", "attributes": [[2, 5, 2]], "identifier": ["man"],
         "vlm_questions": ["..."], "pose_image": "data/poses/0.png"},
        {"people": ["data/faces/ffhq_4.jpg", "data/faces/ffhq_3.jpg"], "prompt": "two chefs"},
    ]  # fmt: skip
    path.write_text(json.dumps(entries))
    return path


def test_multiid_benchs_subsets_are_read_with_their_true_pictures(multiid: Path) -> None:
    (pair,) = read_sample_list("multiid-bench", multiid / "v202.json")
    folder = multiid / "v202" / "untar"
    assert (pair.name, pair.prompt, pair.ground_truth) == ("0001", "two people", folder / "0001.jpg")
    assert pair.references == (folder / "0001_1.jpg", folder / "0001_2.jpg")
    (trio,) = read_sample_list("multiid-bench", multiid / "v200_m.json")
    assert (trio.name, len(trio.references)) == ("num_3-0002", 3)
    assert trio.ground_truth == multiid / "v200_m" / "num_3" / "0002.jpg"
    elsewhere = multiid.rename(multiid.with_name("moved")) / "v202"
    (elsewhere.parent / "v202.json").rename(multiid.with_name("v202.json"))
    (moved,) = read_sample_list("multiid-bench", multiid.with_name("v202.json"), elsewhere / "untar")
    assert moved.references[0] == elsewhere / "untar" / "0001_1.jpg"


def test_a_folder_of_multiid_benchs_samples_is_read_too(tmp_path: Path, save: Save) -> None:
    """As infer_withanyone.py leaves it, whose references begin at 0."""
    for name in ("ref_0.jpg", "ref_1.jpg", "ori.jpg", "out.jpg"):
        save(tmp_path / "0007" / name, 3)
    (tmp_path / "0007" / "meta.json").write_text(json.dumps({"prompt": "two people", "seed": 1234}))
    (sample,) = read_sample_list("multiid-bench", tmp_path)
    assert (sample.name, sample.prompt, sample.ground_truth) == ("0007", "two people", tmp_path / "0007" / "ori.jpg")
    assert [path.name for path in sample.references] == ["ref_0.jpg", "ref_1.jpg"]


def test_xversebenchs_people_are_read_and_its_things_left_out(xverse: Path) -> None:
    samples = read_sample_list("xversebench", xverse)
    human = xverse.parents[2] / "assets" / "XVerseBench" / "human"
    assert [(s.name, s.prompt, s.references) for s in samples] == [
        ("0000", "prompt 0", (human / "00_boy.jpg",)),
        ("0002", "prompt 2", (human / "00_boy.jpg", human / "16_old man.jpg")),
    ]


def test_multihuman_testbenchs_people_are_read_in_the_lists_order(multihuman: Path) -> None:
    one, two = read_sample_list("multihuman-testbench", multihuman)
    faces = multihuman.parent / "faces"
    assert (one.name, one.prompt, one.references, one.ground_truth) == ("0000", "a chef", (faces / "ffhq_3.jpg",), None)
    assert (two.name, two.references) == ("0001", (faces / "ffhq_4.jpg", faces / "ffhq_3.jpg"))


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("xversebench", "{", "list.json is not JSON"),
        ("xversebench", {"a": 1}, "expected a list of samples, got dict"),
        ("xversebench", [], "lists no sample with a person. Is it a list of xversebench"),
        ("xversebench", [{"prompt": "a"}], r"list.json\[0\]: expected an object with 'modulation'"),
        ("xversebench", [{"modulation": [3]}], r"list.json\[0\].modulation\[0\]: expected an object with 'src_inputs'"),
        ("multihuman-testbench", [{"people": "a.jpg"}], r"list.json\[0\].people: expected a list, got \"a.jpg\""),
        ("multihuman-testbench", [{"people": [], "prompt": ""}, 3], r"list.json\[1\]: expected an object"),
        ("multihuman-testbench", [{"people": [3], "prompt": ""}], r"list.json\[0\]: expected text, got 3"),
        ("multihuman-testbench", [{"people": ["a.jpg"], "prompt": ""}], "names .*a.jpg, which is not there.*--images"),
        ("multiid-bench", [{"image_paths": [], "prompt": ""}], r"expected an object with 'ori_img_path'"),
        ("another", [], "Expected one of multiid-bench, xversebench, multihuman-testbench, got 'another'"),
    ],
)
def test_another_layout_is_refused_with_its_place(kind: str, content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_sample_list(kind, path)


def test_a_graph_for_one_person_grows_to_several() -> None:
    """Each has Encode Identity and Edit Facial Motion of their own, and all the rest is shared."""
    template = Template(fakes.graph(1), {"2": "Positive prompt"})
    grown, people = grow(template, 3)
    apply = grown.graph["3"]["inputs"]
    edits = [apply[f"people.person_{i}"][0] for i in range(3)]
    encoders = [grown.graph[edit]["inputs"]["identity"][0] for edit in edits]
    assert len(set(edits)) == len(set(encoders)) == 3 and len(grown.graph) == len(template.graph) + 4
    assert [(p.reference, p.expression) for p in people] == [
        ((encode, "image"), (edit, "expression")) for encode, edit in zip(encoders, edits, strict=True)
    ]
    assert template.graph == fakes.graph(1), "the template stays as it is"
    assert grow(template, 1)[0].graph == template.graph


def test_a_graph_that_cannot_grow_is_refused() -> None:
    with pytest.raises(ValueError, match="one person to grow, got 1 and 2"):
        grow(Template(fakes.graph(2), {}), 3)
    placed = fakes.graph(1)
    placed["9"] = {"class_type": "DynamicIDPlace", "inputs": {"identity": ["20", 0]}}
    placed["3"]["inputs"]["people.person_0"] = ["9", 0]
    with pytest.raises(ValueError, match=r"got DynamicIDPlace. A person with a place"):
        grow(Template(placed, {}), 2)
    sample = {"name": "a", "prompt": "", "seeds": (1,)}
    with pytest.raises(ValueError, match="expected people in each sample"):
        Benchmark.model_validate(
            {"name": "a", "template": Path("a"), "grow": True, "samples": (sample,), "variants": ({"name": "a"},)}
        )


def test_what_the_command_line_sets_is_parsed() -> None:
    assert parse_override("KSampler.steps=30") == {"KSampler": {"steps": 30}}
    assert parse_override("a.b.sampler_name=euler=x") == {"a.b": {"sampler_name": "euler=x"}}
    assert parse_option("clip=a=b") == ("clip", "a=b")
    for wrong in ("KSampler=3", "steps", ".steps=3", "KSampler.=3"):
        with pytest.raises(ValueError, match=r"Expected NODE.INPUT=VALUE"):
            parse_override(wrong)
    with pytest.raises(ValueError, match="Expected NAME=VALUE"):
        parse_option("clip")
    assert parse_input("seed=a.b.seed") == ("seed", ("a.b", "seed"))
    for wrong in ("seed", "seed=11", "cfg=11.cfg", "prompt=.text"):
        with pytest.raises(ValueError, match=r"Expected seed=NODE.INPUT"):
            parse_input(wrong)


@pytest.fixture
def run(
    judge: object, known: dict[Path, Person], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Runs the command on a server that draws what it is asked for; the first row's values by measure."""
    template = tmp_path / "graph.json"
    template.write_text(json.dumps(fakes.graph(1)))

    def run(kind: str, path: Path, *options: str) -> dict[str, Any]:
        @contextlib.contextmanager
        def clients(_: object) -> Iterator[list[fakes.DrawingHost]]:
            yield [fakes.DrawingHost(known)]

        monkeypatch.setattr(command, "_clients", clients)
        typed = ["benchmark", "--list", kind, str(path), "--template", str(template), "--judge", MINIATURE, *options]
        assert command.main([*typed, "--output", str(tmp_path / "run"), "--", "python", "main.py", "--cpu"]) == 0
        ((_, rows),) = read_results(tmp_path / "run").items()
        return dict(rows["full"])

    return run


def test_one_command_gives_a_table_beside_multiid_benchs(
    multiid: Path, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    row = run("multiid-bench", multiid / "v200_m.json")
    assert min(row[name].mean for name in ("Sim(Ref)", "Sim(GT)", "Multi-ID similarity")) > 0.8
    assert -1 <= row["Copy-Paste"].mean <= 1 and row["Copy-Paste"].n == 1
    assert row["Count"].mean == 1 and row["ID-Conf"].mean > 50
    page = (tmp_path / "run" / "report.html").read_text()
    assert "multiid-bench v200_m" in page and 'src="multiid-bench%20v200_m.png"' in page
    assert "MultiID-Bench (WithAnyone, arXiv 2510.14975)" in page


def test_one_command_gives_a_table_beside_xversebenchs(
    xverse: Path, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """One person and two in one table; four images of each."""
    row = run("xversebench", xverse, "--seeds", "4", "--set", "KSampler.seed=5", "--ablate", "identity")
    assert (row["FaceSim"].n, row["ID-Conf"].n) == (8, 4), "ID-Conf takes images of two faces"
    (benchmark,) = load_snapshot(tmp_path / "run").benchmarks
    assert [(sample.name, len(sample.people), sample.seeds) for sample in benchmark.samples] == [
        ("0000", 1, (0, 1, 2, 3)), ("0002", 2, (0, 1, 2, 3)),
    ]  # fmt: skip
    assert [variant.name for variant in benchmark.variants] == ["full", "without identity"]
    assert benchmark.overrides == {"KSampler": {"seed": 5}}


def test_one_command_gives_a_table_beside_multihuman_testbenchs(
    multihuman: Path, run: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples of whose references one shows no face are left out, and told."""
    Image.new("RGB", (128, 128), (90, 160, 90)).save(multihuman.parent / "faces" / "ffhq_4.jpg")
    row = run("multihuman-testbench", multihuman)
    assert (row["Multi-ID similarity"].n, row["Count"].mean) == (1, 1)
    assert "no face in a reference: 1 samples, 0001" in capsys.readouterr().err


def test_a_grown_graph_has_each_references_image() -> None:
    template = Template(fakes.graph(1), {"2": "Positive prompt"})
    grown, people = grow(template, 2)
    paths = [Path("a.png"), Path("b.png")]
    sample = SampleSpec.model_validate(
        {"name": "a", "prompt": "two", "seeds": (1,), "people": tuple({"reference": path} for path in paths)}
    )
    benchmark = Benchmark.model_validate({
        "name": "a", "template": Path("a"), "samples": (sample,), "variants": (Variant(name="full"),),
        "inputs": {"people": people},
    })  # fmt: skip
    names = {paths[0]: "A", paths[1]: "B"}
    graph = build_graph(grown, fakes.NODES, benchmark, benchmark.variants[0], sample, 1, names)
    loaded = [
        graph[graph[ref.reference[0]]["inputs"]["image"][0]]["inputs"]["image"] for ref in people if ref.reference
    ]
    assert loaded == ["A", "B"] and graph["2"]["inputs"]["text"] == "two"
