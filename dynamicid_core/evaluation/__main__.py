"""Evaluation: graphs are queued on a ComfyUI server, and the pictures that it saved are measured.

    python -m dynamicid_core.evaluation run --config FILE --output FOLDER --server http://127.0.0.1:8188
    python -m dynamicid_core.evaluation run --config FILE --output FOLDER -- python main.py --cpu
    python -m dynamicid_core.evaluation run ... --servers 2 -- ...              two of them, side by side
    python -m dynamicid_core.evaluation measure FOLDER      the kept pictures again, without a server
    python -m dynamicid_core.evaluation table FOLDER ...    what was measured; several runs beside each other

A run that was cut short goes on where it ended when it is started again. What FILE says is told in `config`.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .client import Client, ServerError, server
from .config import Config
from .config_file import read_config
from .judge import Judge, load_judge
from .measuring import Eyes, as_json, check_references, measure
from .report import compared, markdown, results_of, settings_of, write_grids, write_report
from .sampling import draw
from .store import Store, adopted, kept_config


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 after one line on stderr that says what is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError, ServerError, ModuleNotFoundError) as error:
        _say(f"error: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dynamicid_core.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    runs = commands.add_parser("run", help="draw what is missing, measure all of it")
    runs.add_argument("--config", type=Path, required=True, metavar="FILE", help="a JSON file")
    runs.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="pictures and results")
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

    again = commands.add_parser("measure", help="measure the kept pictures again")
    again.add_argument("folder", type=Path, metavar="FOLDER")
    again.set_defaults(run=_measure)

    shows = commands.add_parser("table", help="print what was measured")
    shows.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    shows.set_defaults(run=lambda arguments: print(markdown(compared(arguments.folders))))
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if bool(arguments.server) == bool(arguments.command):
        raise ValueError("Expected a server: its address after --server, or after -- what starts one; not both.")
    config = read_config(arguments.config)
    judge = load_judge(config.judge.kind, config.judge.options)
    config = adopted(config, arguments.output)
    check_references(config, Eyes(judge, config.gallery))
    with _clients(arguments) as clients:
        draw(config, clients, Store(arguments.output), arguments.timeout, _say)
    _judged(arguments.output, config, judge)


def _measure(arguments: argparse.Namespace) -> None:
    config = kept_config(arguments.folder)
    _judged(arguments.folder, config, load_judge(config.judge.kind, config.judge.options))


def _judged(folder: Path, config: Config, judge: Judge) -> None:
    store = Store(folder)
    _say("measuring")
    values = measure(config, store, judge)
    results = results_of(values)
    write_report(folder, settings_of(config, judge), as_json(values), results)
    write_grids(config, store, folder)
    print(markdown(results))


@contextlib.contextmanager
def _clients(arguments: argparse.Namespace) -> Iterator[list[Client]]:
    if arguments.server:
        yield [Client(address.rstrip("/")) for address in arguments.server]
        return
    _say("starting ComfyUI")
    with contextlib.ExitStack() as started:
        yield [started.enter_context(_server(arguments, number)) for number in range(max(1, arguments.servers))]


def _server(arguments: argparse.Namespace, number: int) -> contextlib.AbstractContextManager[Client]:
    """Servers beside the first get folders of their own: two in one would overwrite each other's pictures."""
    if number == 0:
        return server(arguments.command, arguments.output / "server.log")
    own = arguments.output.resolve() / f"server-{number}"
    folders = ["--output-directory", str(own / "output"), "--temp-directory", str(own)]
    own.mkdir(parents=True, exist_ok=True)
    return server([*arguments.command, *folders], own / "server.log")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
