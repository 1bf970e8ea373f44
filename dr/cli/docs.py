"""docs/cli.md, written from the flags."""

import argparse

from dr.cli.parser import SUMMARIES, make_parser

HEAD = """\
# Command line

Written by `python -m dr.cli docs/cli.md`; do not edit. `dr data`, `dr train` and `dr predict` of the installed package
take the flags of `data.py`, `train.py` and `predict.py`. Each of them also has `-h`, `--help` and `--version`. Hyphens
and underscores are the same in flags and in the names of options: `--batch-size` is `--batch_size`.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | done, but images could not be read or runs failed |
| 2 | usage error, explained in one line |
| 3 | internal error, with a traceback |
| 130, 143 | stopped with Ctrl-C, by SIGTERM |
"""


def markdown() -> str:
    """All flags of the three commands, a table for each group."""
    parts = [HEAD]
    for script, summary in SUMMARIES.items():
        parts.append(f"## {script}.py\n\n{summary[0].upper()}{summary[1:]}.\n")
        parser = make_parser(script, description=None, prog=f"{script}.py")
        for group in parser._action_groups:
            rows = [_row(action) for action in group._group_actions if action.dest not in ("help", "version")]
            if rows:
                table = ["| flag | meaning | default |", "| --- | --- | --- |", *rows]
                parts.append(f"**{group.title[0].upper()}{group.title[1:]}**\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def _row(action: argparse.Action) -> str:
    metavar = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar
    value = "" if action.nargs == 0 else f" {metavar or _values(action)}"
    flags = ", ".join(f"`{name}{value}`" for name in action.option_strings)
    text, _, default = action.help.partition(" (default: ")
    default = default.removesuffix(")")
    if not default and action.nargs != 0 and action.default not in (None, []):
        default = f"`{action.default}`"
    return f"| {_escape(flags)} | {_escape(text)} | {_escape(default)} |"


def _values(action: argparse.Action) -> str:
    return "|".join(action.choices) if action.choices else action.dest.removesuffix("_name").upper()


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
