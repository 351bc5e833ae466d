"""Evaluation: queues graphs on a ComfyUI server and measures the images that it saved.

    python -m dynamicid_core.evaluation run --config FILE --output FOLDER --server http://127.0.0.1:8188
    python -m dynamicid_core.evaluation run --config FILE --output FOLDER -- python main.py --cpu
    python -m dynamicid_core.evaluation run ... --servers 2 -- ...              two of them, side by side
    python -m dynamicid_core.evaluation measure FOLDER      the kept images again, without a server
    python -m dynamicid_core.evaluation table FOLDER ...    what was measured; several runs beside each other

A run that was cut short goes on where it ended when it is started again. `config` describes FILE.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .client import Client, ServerError, server
from .config import EvaluationConfig, load_config
from .generation import generate
from .judges import CachedJudge, Judge, load_judge
from .measuring import check_references, measure
from .report import compare, markdown, results_of, settings_of, write_grids, write_report
from .run_folder import RunFolder, load_snapshot, snapshot


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
    runs.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="images and results")
    runs.add_argument(
        "--server",
        metavar="URL",
        action="append",
        help="a server that runs; several, with folders of their own, share the work",
    )
    runs.add_argument("--servers", type=int, default=1, metavar="N", help="so many are started (1)")
    runs.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="for one graph (3600)")
    runs.add_argument("command", nargs="*", help="after --: what starts a server, but for its port")
    runs.set_defaults(run=_run)

    again = commands.add_parser("measure", help="measure the kept images again")
    again.add_argument("folder", type=Path, metavar="FOLDER")
    again.set_defaults(run=_measure)

    shows = commands.add_parser("table", help="print what was measured")
    shows.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    shows.set_defaults(run=lambda arguments: print(markdown(compare(arguments.folders))))
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if bool(arguments.server) == bool(arguments.command):
        raise ValueError("Expected a server: its address after --server, or after -- what starts one; not both.")
    config = load_config(arguments.config)
    judge = load_judge(config.judge.kind, config.judge.options)
    config = snapshot(config, arguments.output)
    check_references(config, CachedJudge(judge, config.gallery))
    with _clients(arguments) as clients:
        generate(config, clients, RunFolder(arguments.output), arguments.timeout, _log)
    _report(arguments.output, config, judge)


def _measure(arguments: argparse.Namespace) -> None:
    config = load_snapshot(arguments.folder)
    _report(arguments.folder, config, load_judge(config.judge.kind, config.judge.options))


def _report(path: Path, config: EvaluationConfig, judge: Judge) -> None:
    folder = RunFolder(path)
    _log("measuring")
    values = measure(config, folder, judge)
    results = results_of(values)
    write_report(path, settings_of(config, judge), values, results)
    write_grids(config, folder)
    print(markdown(results))


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
