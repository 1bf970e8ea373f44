"""Grades diabetic retinopathy from fundus images, in three stages: data, train, predict."""

import sys
from importlib import import_module

from dr import UsageError, __version__
from dr.cli.parser import SUMMARIES, Parser
from dr.cli.run import run_main


def main() -> int:
    parser = Parser(
        "dr",
        description=__doc__,
        usage="dr [-h] [--version] {data,train,predict} ...",
        epilog="Run `dr COMMAND --help` for the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=f"dr {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, text in SUMMARIES.items():
        commands.add_parser(name, help=text)
    parser.parse_args()
    raise UsageError(f"no command; use one of {', '.join(SUMMARIES)}, see dr --help")


def run() -> None:
    """The command line: never returns, exits with the code of the command."""
    if len(sys.argv) > 1 and sys.argv[1] in SUMMARIES:
        name = sys.argv[1]
        sys.argv = [f"dr {name}", *sys.argv[2:]]  # the command's own parser reads the rest
        import_module(f"dr.commands.{name}").run()
    run_main(main, go_on="start again", owns_process=True)
