"""Evaluation: queues graphs on a ComfyUI server and measures the images that it saved.

    python -m dynamicid_core.evaluation run --config FILE --output FOLDER --server http://127.0.0.1:8188
    python -m dynamicid_core.evaluation run --config FILE --output FOLDER -- python main.py --cpu
    python -m dynamicid_core.evaluation run ... --servers 2 -- ...              two of them, side by side
    python -m dynamicid_core.evaluation benchmark --list KIND FILE --template FILE --output FOLDER ...
    python -m dynamicid_core.evaluation measure FOLDER      the kept images again, without a server
    python -m dynamicid_core.evaluation table FOLDER ...    what was measured; several runs beside each other

A run that was cut short goes on where it ended when it is started again. `config` describes FILE, `sample_lists` the
lists; docs/evaluation.md has both with examples. FOLDER/report.html shows tables and images.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .client import Client, ServerError, server
from .config import EvaluationConfig, JudgeConfig, Overrides, load_config
from .generation import generate
from .judges import MODELS, CachedJudge, Judge, load_face_judge, load_judge
from .list_config import list_config, parse_input, parse_option, parse_override, without_faceless
from .measuring import check_references, measure
from .report import PAGE, against, compare, markdown, results_of, settings_of, write_grids, write_report
from .run_folder import RunFolder, load_snapshot, snapshot
from .sample_lists import KINDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Return 0, or 1 after one line on stderr that says what is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError, ServerError, ModuleNotFoundError) as error:
        _log(f"error: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dynamicid_core.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    runs = commands.add_parser("run", help="generate what is missing, measure all of it")
    runs.add_argument("--config", type=Path, required=True, metavar="FILE", help="a JSON file")
    _add_server_options(runs)
    runs.set_defaults(run=_run)

    lists = commands.add_parser("benchmark", help="the same, of a public benchmark's samples and one graph of yours")
    listed = f"whose list of samples it is ({', '.join(KINDS)}), and the list"
    # Not positional: argparse would take the command after -- for them.
    lists.add_argument("--list", nargs=2, required=True, metavar=("KIND", "FILE"), help=listed)
    lists.add_argument("--images", type=Path, metavar="FOLDER", help="where its paths start, if they lie elsewhere")
    lists.add_argument("--template", type=Path, required=True, metavar="FILE", help="a graph for one person")
    lists.add_argument("--weights", type=Path, nargs="*", default=(), metavar="FILE", help="with others: drawn anew")
    lists.add_argument("--judge", default=MODELS, metavar="KIND", help="see `judges.load_judge` (models)")
    lists.add_argument("--judge-option", action="append", default=[], metavar="NAME=VALUE", help="of the judge")
    lists.add_argument("--ablate", action="append", default=[], metavar="WHAT", help="a row more, without it")
    lists.add_argument("--seeds", type=int, default=1, metavar="N", help="images of each sample (1)")
    lists.add_argument("--first", type=int, metavar="N", help="so many samples of the list (all)")
    lists.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="an input of the graph")
    where = "where each sample's seed and prompt go (KSampler.seed, Positive prompt.text)"
    lists.add_argument("--input", action="append", default=[], metavar="NAME=NODE.INPUT", help=where)
    _add_server_options(lists)
    lists.set_defaults(run=_benchmark)

    again = commands.add_parser("measure", help="measure the kept images again")
    again.add_argument("folder", type=Path, metavar="FOLDER")
    again.set_defaults(run=_measure)

    shows = commands.add_parser("table", help="print what was measured")
    shows.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    shows.add_argument("--against", metavar="ROW", help="differences from this row of one run, image by image")
    shows.set_defaults(run=_table)
    return parser


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="images and results")
    parser.add_argument(
        "--server",
        metavar="URL",
        action="append",
        help="a server that runs; several, with folders of their own, share the work",
    )
    parser.add_argument("--servers", type=int, default=1, metavar="N", help="so many are started (1)")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="for one graph (3600)")
    parser.add_argument("command", nargs="*", help="after --: what starts a server, but for its port")


def _run(arguments: argparse.Namespace) -> None:
    _check_server(arguments)
    config = load_config(arguments.config)
    judge = load_judge(config.judge.kind, config.judge.options)
    config = snapshot(config, arguments.output)
    check_references(config, CachedJudge(judge, config.gallery))
    _draw_and_report(arguments, config, judge)


def _benchmark(arguments: argparse.Namespace) -> None:
    _check_server(arguments)
    options = dict(parse_option(text) for text in arguments.judge_option)
    overrides: Overrides = {}
    for node, inputs in (item for text in arguments.set for item in parse_override(text).items()):
        overrides[node] = overrides.get(node, {}) | inputs
    config = list_config(
        arguments.list[0],
        Path(arguments.list[1]),
        arguments.template,
        JudgeConfig.model_validate({"kind": arguments.judge, "options": options}, context={"folder": Path.cwd()}),
        images=arguments.images,
        ablate=arguments.ablate,
        seeds=arguments.seeds,
        first=arguments.first,
        overrides=overrides,
        files=arguments.weights,
        inputs=dict(map(parse_input, arguments.input)),
    )
    judge = load_judge(config.judge.kind, config.judge.options)
    config, faceless = without_faceless(snapshot(config, arguments.output), CachedJudge(judge))
    if faceless:
        _log(f"left out, since the judge finds no face in a reference: {len(faceless)} samples, {', '.join(faceless)}")
    _draw_and_report(arguments, config, judge)


def _check_server(arguments: argparse.Namespace) -> None:
    if bool(arguments.server) == bool(arguments.command):
        raise ValueError("Expected a server: its address after --server, or after -- what starts one; not both.")


def _draw_and_report(arguments: argparse.Namespace, config: EvaluationConfig, judge: Judge) -> None:
    with _clients(arguments) as clients:
        generate(config, clients, RunFolder(arguments.output), arguments.timeout, _log)
    _report(arguments.output, config, judge)


def _measure(arguments: argparse.Namespace) -> None:
    config = load_snapshot(arguments.folder)
    _report(arguments.folder, config, load_judge(config.judge.kind, config.judge.options))


def _table(arguments: argparse.Namespace) -> None:
    if arguments.against is None:
        print(markdown(compare(arguments.folders)))
        return
    if len(arguments.folders) > 1:
        raise ValueError(f"Expected one folder with --against, got {len(arguments.folders)}.")
    print(markdown(against(arguments.folders[0], arguments.against)))


def _report(path: Path, config: EvaluationConfig, judge: Judge) -> None:
    folder = RunFolder(path)
    _log("measuring")
    named = config.node_judge
    node_judge = None if named is None else load_face_judge(named.kind, named.options)
    values = measure(config, folder, judge, node_judge)
    results = results_of(values)
    write_report(path, settings_of(config, judge, node_judge), values, results)
    write_grids(config, folder)
    print(markdown(results))
    _log(f"tables and images: {path / PAGE}")


@contextlib.contextmanager
def _clients(arguments: argparse.Namespace) -> Iterator[list[Client]]:
    if arguments.server:
        yield [Client(address.rstrip("/")) for address in arguments.server]
        return
    _log("starting ComfyUI")
    with contextlib.ExitStack() as started:
        yield [started.enter_context(_server(arguments, number)) for number in range(max(1, arguments.servers))]


def _server(arguments: argparse.Namespace, number: int) -> contextlib.AbstractContextManager[Client]:
    """Start a server. Those beside the first get folders of their own: two in one would overwrite images."""
    if number == 0:
        return server(arguments.command, arguments.output / "server.log")
    own = arguments.output.resolve() / f"server-{number}"
    folders = ["--output-directory", str(own / "output"), "--temp-directory", str(own)]
    own.mkdir(parents=True, exist_ok=True)
    return server([*arguments.command, *folders], own / "server.log")


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
