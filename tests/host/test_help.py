"""Help pages and translations as the page fetches them: every node, input and output, and nothing that is gone."""

import json
import re
from urllib.error import HTTPError
from urllib.request import urlopen

import dynamicid_pack
import pytest

from .server import PACK, JsonDict, Server
from .texts import choices_of, default_of, english_locale, flattened, help_page, node_infos, page_inputs, schema_texts

pytestmark = pytest.mark.timeout(900)

LANGUAGES = ("en", "zh", "ja")
TRANSLATIONS = LANGUAGES[1:]
UNTRANSLATED = {"x", "y", "CLIP", "DynamicID", "Latent", "VAE"}
"""Texts that stay as they are in every language."""
CHINESE_OR_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
MESSAGE_SYNTAX = re.compile(r"[@{}|]")
"""What vue-i18n takes for links, values and plurals instead of showing it."""

SECTIONS = ("## Inputs", "## Outputs", "## In a graph", "## Usual mistakes")


@pytest.fixture(scope="module")
def pack_infos() -> dict[str, JsonDict]:
    """What this process's host knows of the pack's nodes."""
    return node_infos(dynamicid_pack)


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, JsonDict]:
    """What the page knows of the pack's nodes."""
    everything = server.get("/object_info")
    return {name: info for name, info in everything.items() if info["category"].split("/")[0] == "DynamicID"}


@pytest.fixture(scope="module")
def translations(server: Server) -> dict[str, dict[str, JsonDict]]:
    """Language -> node id -> its texts, of all packs that the server has: this one."""
    return {language: texts["nodeDefs"] for language, texts in server.get("/i18n").items()}


@pytest.fixture(scope="module")
def pages(server: Server, nodes: dict[str, JsonDict]) -> dict[str, str]:
    """Node id -> its help page, from where the page looks for it; "" where it finds none."""
    return {name: fetch_page(server, name, info) for name, info in nodes.items()}


def test_the_english_locale_and_the_pages_tables_are_made_from_the_nodes(pack_infos: dict[str, JsonDict]) -> None:
    """Fails after a text of a node was changed: `python tests/host/texts.py` writes them anew."""
    assert (PACK / "locales" / "en" / "nodeDefs.json").read_text("utf-8") == english_locale(pack_infos)
    for name, info in pack_infos.items():
        page = (PACK / "web" / "docs" / f"{name}.md").read_text("utf-8")
        assert page == help_page(page, info), name


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_every_key_and_no_other(language: str, pack_infos: dict[str, JsonDict]) -> None:
    translation = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    expected = {f"{name}.{key}" for name, info in pack_infos.items() for key in schema_texts(info)}
    assert {key for key, _ in flattened(translation)} == expected


@pytest.mark.smoke
def test_every_node_has_a_page_where_the_host_looks_for_it(pages: dict[str, str], nodes: dict[str, JsonDict]) -> None:
    assert len(pages) >= 14
    assert [name for name, page in pages.items() if not page] == []
    titles = {name: page.splitlines()[0] for name, page in pages.items()}
    assert titles == {name: f"# {info['display_name']}" for name, info in nodes.items()}


def test_no_page_tells_of_a_node_that_is_gone(nodes: dict[str, JsonDict]) -> None:
    assert {path.stem for path in (PACK / "web" / "docs").glob("*.md")} == set(nodes)


def test_pages_show_a_graph_and_the_usual_mistakes(pages: dict[str, str], nodes: dict[str, JsonDict]) -> None:
    for name, page in pages.items():
        parts = re.split(r"^(## .*)$", page, flags=re.MULTILINE)
        assert [part for part in parts if part in SECTIONS] == list(SECTIONS), name
        drawn = re.search(r"^```\n(.+?)^```$", parts[parts.index("## In a graph") + 1], re.MULTILINE | re.DOTALL)
        assert drawn and nodes[name]["display_name"] in drawn[1], name
        assert "\n- " in parts[parts.index("## Usual mistakes") + 1], name


def test_pages_name_every_input_with_its_default_and_range(pages: dict[str, str], nodes: dict[str, JsonDict]) -> None:
    for name, page in pages.items():
        rows = table(page, "## Inputs")
        inputs = {key: described for key, described, _ in page_inputs(nodes[name]["input"])}
        assert list(rows) == list(inputs), name
        for key, (kind, options) in inputs.items():
            text, default, values = rows[key]
            assert text, f"{name}.{key}"
            assert default == default_of(kind, options, key), f"{name}.{key}"
            if kind in ("INT", "FLOAT"):
                assert values == f"{options['min']:g} to {options['max']:g}", f"{name}.{key}"
            elif choices := choices_of(options, key):
                assert values == ", ".join(choices), f"{name}.{key}"


def test_pages_name_every_output(pages: dict[str, str], nodes: dict[str, JsonDict]) -> None:
    for name, page in pages.items():
        rows = table(page, "## Outputs")
        assert list(rows) == nodes[name]["output_name"], name
        assert all(text for (text,) in rows.values()), name


@pytest.mark.smoke
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_text_and_no_other(
    language: str, translations: dict[str, dict[str, JsonDict]], nodes: dict[str, JsonDict]
) -> None:
    assert set(translations[language]) == set(nodes)
    for name, info in nodes.items():
        texts = dict(flattened(translations[language][name]))
        assert set(texts) == set(schema_texts(info)), name
        assert all(texts.values()), name


def test_english_says_what_the_nodes_say(
    translations: dict[str, dict[str, JsonDict]], nodes: dict[str, JsonDict]
) -> None:
    for name, info in nodes.items():
        assert dict(flattened(translations["en"][name])) == schema_texts(info), name


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_is_one(language: str, translations: dict[str, dict[str, JsonDict]]) -> None:
    left = {
        f"{name}.{key}": text
        for name, texts in translations[language].items()
        for key, text in flattened(texts)
        if text not in UNTRANSLATED and not CHINESE_OR_JAPANESE.search(text)
    }
    assert left == {}


def test_the_two_translations_are_not_mixed_up(translations: dict[str, dict[str, JsonDict]]) -> None:
    assert [text for texts in translations["zh"].values() for _, text in flattened(texts) if KANA.search(text)] == []
    long = [text for texts in translations["ja"].values() for _, text in flattened(texts) if len(text) > 20]
    assert [text for text in long if not KANA.search(text)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_page_takes_for_syntax(
    language: str, translations: dict[str, dict[str, JsonDict]]
) -> None:
    texts = [text for node in translations[language].values() for _, text in flattened(node)]
    assert [text for text in texts if MESSAGE_SYNTAX.search(text)] == []


def test_both_folders_are_shipped() -> None:
    ignored = (PACK / ".comfyignore").read_text("utf-8").splitlines()
    assert not [line for line in ignored if line.strip("/ ").split("/")[0] in ("web", "locales", "*", "*.md", "*.json")]


def fetch_page(server: Server, name: str, info: JsonDict) -> str:
    """A node's help, by the address and the rules of the host's page; "" where it would show none."""
    _, folder = info["python_module"].split(".")[:2]
    try:
        with urlopen(f"{server.url}/extensions/{folder.split('@')[0]}/docs/{name}.md", timeout=60) as answer:
            return "" if "text/html" in answer.headers.get("Content-Type", "") else answer.read().decode("utf-8")
    except HTTPError:
        return ""


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading: the name in the first cell -> the other cells; {} without a table."""
    section = page.split(f"\n{heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert len({row[0] for row in rows}) == len(rows), f"{heading}: a name stands twice"
    return {row[0].strip("`"): [cell.strip() for cell in row[1:]] for row in rows}
