"""The panel of Edit Facial Motion: Python's numbers, at once, of the node's own face; a saved graph stays as it is."""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.imr.landmarks import rotation, transfer_expression
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS, face_prompt, target_motion, turnable
from dynamicid_pack.dynamicid_core.imr.motion_text import motion_in, written_motion
from dynamicid_pack.mini.world.head import Head, Motion
from dynamicid_pack.mini.world.person import draw_person

from ..host.server import PACK
from .page import GraphPage

pytestmark = pytest.mark.timeout(900)

NODE = "DynamicIDEditMotion"
TEMPLATE = "mini_06_one_person_expression"
POSES = ((0, 0, 0), (20, 0, 0), (-60, 15, 0), (35, -60, 0), (0, 7, 25), (12, 50, -40), (-180, 90, 10))
"""yaw, pitch, roll."""
MODULE = "/extensions/dynamicid/keypoints.js"
PANEL = "app.graph.nodes.find(node => node.type === 'DynamicIDEditMotion').dynamicidPanel"
CLASSIC, NEW = False, True


def face(seed: int, motion: Motion, size: tuple[int, int] = (480, 640)) -> Face:
    """A rendered face's truth as an analyzer would tell it; size: height, width, not a square."""
    head = Head(draw_person(seed), motion, (300.0, 240.0), 90.0)
    return Face(
        landmarks=torch.from_numpy(head.landmarks() * [512 / size[1], 512 / size[0]]).float(),
        points68=torch.from_numpy(head.points68()).float(),
        pose=motion.pose,
        size=size,
    )


def computed(page: GraphPage, call: str, *arguments: Any) -> Any:
    """What a function of the panel's module gives."""
    script = "async ([url, name, given]) => (await import(url))[name](...given)"
    return page.page.evaluate(script, [MODULE, call, arguments])


def use(page: GraphPage, nodes: bool) -> None:
    page.page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", nodes)
    page.page.wait_for_timeout(500)


@pytest.fixture(params=[CLASSIC, NEW], ids=["classic", "nodes 2.0"])
def panel(page: GraphPage, request: pytest.FixtureRequest) -> Iterator[GraphPage]:
    """The page with one person's graph, its panel in view, on either kind of nodes."""
    before = page.page.evaluate("() => app.extensionManager.setting.get('Comfy.VueNodes.Enabled')")
    use(page, request.param)
    page.load(TEMPLATE)
    page.centre_on(page.node(NODE))
    page.page.wait_for_function(f"() => {PANEL}.redraws > 0")
    yield page
    use(page, before)


def drawn(page: GraphPage) -> list[dict[str, Any]]:
    """What the panel shows after the next frames: of each person, landmarks (pixels of the image), pose and words."""
    page.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return list(page.page.evaluate(f"() => {PANEL}.shown"))


def set_widgets(page: GraphPage, **values: Any) -> None:
    page.page.evaluate(
        f"""values => {{ for (const [name, value] of Object.entries(values))
            {PANEL}.node.widgets.find(widget => widget.name === name).value = value }}""",
        values,
    )


def saved_node(page: GraphPage) -> dict[str, Any]:
    workflow = page.page.evaluate("() => app.graph.serialize()")
    (node,) = (node for node in workflow["nodes"] if node["type"] == NODE)
    return dict(node)


@pytest.mark.parametrize("driven", [False, True], ids=["by degrees", "driven"])
def test_keypoints_are_pythons(page: GraphPage, driven: bool) -> None:
    person = face(3, Motion(yaw=8.0, pitch=-4.0, roll=3.0))
    driver = face(5, Motion("happy", yaw=-15.0, pitch=6.0, roll=-7.0)) if driven else None
    for yaw, pitch, roll in POSES:
        for strength in (0.0, 0.3, 1.0) if driven else (1.0,):
            motion = {"yaw": yaw, "pitch": pitch, "roll": roll, "strength": strength}
            shown = computed(page, "targetLandmarks", turnable(person, driver), motion)
            expected = target_motion(person, "sad", yaw, pitch, "", driver, strength, roll).landmarks
            assert expected is not None
            np.testing.assert_allclose(shown, expected, atol=5e-4, rtol=0, err_msg=str(motion))


def test_turns_are_pythons(page: GraphPage) -> None:
    for yaw, pitch, roll in POSES:
        np.testing.assert_allclose(
            computed(page, "rotation", (pitch, yaw, roll)), rotation((pitch, yaw, roll)), atol=1e-9
        )


def test_shapes_of_expressions_are_pythons(page: GraphPage) -> None:
    """Fitted by the function that fits a driver's expression, and added as a difference to what the face shows."""
    numbers = [turnable(face(seed, Motion(name))) for seed, name in ((3, "neutral"), (5, "neutral"))]
    shapes = {name: turnable(face(5, Motion(name))) for name in EXPRESSIONS}
    assert all(numbers) and all(shapes.values())
    points = np.array(numbers[0]["points"])  # type: ignore[index]
    tables = {name: np.array(shape["points"]) for name, shape in shapes.items() if shape}
    given = {name: table.tolist() for name, table in tables.items()}
    for shares, source in (({"happy": 1.0}, "neutral"), ({"neutral": -0.3, "happy": 0.9, "fear": 0.4}, "sad")):
        moved = sum(
            share * (transfer_expression(tables[name], points) - transfer_expression(tables[source], points))
            for name, share in shares.items()
        )
        shown = computed(page, "expressed", points.tolist(), given, shares, source)
        np.testing.assert_allclose(shown, points + moved, atol=1e-4)


@pytest.mark.parametrize("pitch", [-10.1, -10, 10, 10.1])
@pytest.mark.parametrize("yaw", [-10, -9.9, 0, 9.9, 10])
def test_words_are_pythons(page: GraphPage, yaw: float, pitch: float) -> None:
    shown = computed(page, "facePrompt", {"shares": {"sad": 1}}, (pitch, yaw, 0))
    assert shown == face_prompt("sad", pitch, yaw)


@pytest.mark.parametrize(
    "text",
    [
        *("happy 0.7, surprise 0.3", "Sad .5,YAW -20, roll 5.", "happy 1.3", "happy", "a happy 0.5", "happy 2, bold"),
        *("fear 0, pitch 4", "happy 0.8, fear", "neutral 0.4, sad 0.6", "happy, yaw 20", ""),
    ],
)
def test_amounts_are_pythons(page: GraphPage, text: str) -> None:
    spec = motion_in(text)
    shown = computed(page, "written", text)
    if spec is None:
        assert shown is None
        return
    assert (shown["yaw"], shown["pitch"], shown["roll"]) == (spec.yaw, spec.pitch, spec.roll)
    assert shown["shares"] == pytest.approx(dict(spec.shares))
    expected = written_motion(None, spec).prompt
    assert computed(page, "facePrompt", shown, (spec.pitch, spec.yaw, spec.roll)) == expected


def test_widgets_ask_for_people_as_the_node_does(page: GraphPage) -> None:
    def asked(**inputs: Any) -> list[tuple[Any, ...]]:
        made = computed(page, "targets", {"expression": "sad", "yaw": 5, "pitch": 0, "prompt": ""} | inputs)
        return [(one.get("shares"), one.get("words"), one["yaw"], one["roll"]) for one in made]

    assert asked() == [({"sad": 1}, None, 5, 0)]
    assert asked(expression="all") == [({name: 1}, None, 5, 0) for name in EXPRESSIONS]
    assert asked(prompt=" winking \n\nhappy 0.5, YAW 10, roll -3\nhappy") == [
        ({}, "winking", 5, 0), ({"neutral": 0.5, "happy": 0.5}, None, 15, -3), ({}, "happy", 5, 0),
    ]  # fmt: skip


def test_it_follows_widgets_without_queueing(panel: GraphPage) -> None:
    queued: list[str] = []
    panel.page.on("request", lambda request: queued.append(request.url))
    (before,) = drawn(panel)
    assert before["words"] == "in a happy expression, in side view"
    set_widgets(panel, yaw=-30, pitch=12, expression="sad")
    (after,) = drawn(panel)
    assert after["words"] == "in a sad expression, facing up, in side view"
    assert after["pose"] == [12, -30, 0]
    assert np.ptp(np.array(after["landmarks"])[:, 0]) > 0
    assert np.abs(np.array(after["landmarks"]) - before["landmarks"]).max() > 20
    set_widgets(panel, expression="all")
    assert len(drawn(panel)) == len(EXPRESSIONS)
    assert not [url for url in queued if "prompt" in url]
    assert panel.errors == []


def test_it_is_redrawn_often_while_a_widget_is_dragged(panel: GraphPage) -> None:
    """In each frame that the page draws, and in a fraction of the time that 15 redraws a second leave for one."""
    redraws, seconds = panel.page.evaluate(
        f"""async () => {{
            const panel = {PANEL}, yaw = panel.node.widgets.find(widget => widget.name === "yaw")
            const begun = performance.now(), before = panel.redraws
            for (let i = 0; i < 20; i++) {{
                yaw.value = i - 10
                app.canvas.setDirty(true, true)
                await new Promise(requestAnimationFrame)
            }}
            return [panel.redraws - before, (performance.now() - begun) / 1000]
        }}"""
    )
    print(f"20 frames of the page in {seconds:.2f} s, {redraws} redraws")
    assert redraws >= 18
    milliseconds = panel.page.evaluate(
        f"""() => {{
            const panel = {PANEL}, times = []
            for (let i = 0; i < 30; i++) {{
                const begun = performance.now()
                panel.key = null
                panel.refresh()
                panel.canvas.getContext("2d").getImageData(0, 0, 1, 1) // what was drawn is on the canvas
                times.push(performance.now() - begun)
            }}
            return times.sort((a, b) => a - b)
        }}"""
    )
    print(f"a redraw takes {milliseconds[0]:.2f} ms at best, {milliseconds[15]:.2f} ms in the median")
    assert milliseconds[0] < 1000 / 15 / 4


def test_the_saved_graph_is_as_before(panel: GraphPage) -> None:
    template = json.loads((PACK / "workflows" / f"{TEMPLATE}.json").read_text("utf-8"))
    (shipped,) = (node for node in template["nodes"] if node["type"] == NODE)

    def values(node: dict[str, Any]) -> Sequence[Any]:
        return list(node["widgets_values"])

    assert values(saved_node(panel))[: len(values(shipped))] == values(shipped)
    count = len(values(saved_node(panel)))
    set_widgets(panel, yaw=-17, expression="fear", source_expression="sad")
    saved = panel.page.evaluate("() => app.graph.serialize()")
    text = json.dumps(saved)
    assert "motion_panel" not in text and "dynamicid_motion" not in text
    expected = values(saved_node(panel))
    assert len(expected) == count and expected[:2] == ["fear", -17]
    panel.page.evaluate("async saved => await app.loadGraphData(saved)", saved)
    panel.page.wait_for_timeout(500)
    assert values(saved_node(panel)) == expected
    queued = panel.page.evaluate("async () => (await app.graphToPrompt()).output")
    (inputs,) = (node["inputs"] for node in queued.values() if node["class_type"] == NODE)
    assert "motion_panel" not in inputs and inputs["yaw"] == -17
    assert panel.errors == []


def test_it_shows_the_nodes_own_face_after_a_run(panel: GraphPage) -> None:
    yaw = panel.page.evaluate("() => LiteGraph.vueNodesMode ? 35 : 25")  # a node that is cached whole tells nothing
    set_widgets(panel, yaw=yaw)
    (standard,) = drawn(panel)
    assert not panel.page.evaluate(f"() => {PANEL}.shown.own")
    fetched: list[str] = []
    panel.page.on("request", lambda request: fetched.append(request.url))
    panel.queue()
    panel.page.wait_for_function(f"() => {PANEL}.shown.own", timeout=300_000)
    (own,) = drawn(panel)
    assert own["words"] == standard["words"]
    assert np.abs(np.array(own["points"]) - standard["points"]).max() > 0.05, "another face"
    set_widgets(panel, yaw=-20)
    assert drawn(panel)[0]["pose"][1] == pytest.approx(own["pose"][1] - yaw - 20)
    panel.page.evaluate(  # as undo does
        "async () => await app.loadGraphData(app.graph.serialize(), false, false,"
        " app.extensionManager.workflow.activeWorkflow)"
    )
    panel.page.wait_for_function(f"() => {PANEL}.redraws > 0")
    assert panel.page.evaluate(f"() => {PANEL}.shown.own"), "undo keeps the face"
    hosts = {urlsplit(url).hostname for url in fetched if not url.startswith(("data:", "blob:"))}
    assert hosts <= {"127.0.0.1", "localhost"}, hosts
    assert panel.errors == []
