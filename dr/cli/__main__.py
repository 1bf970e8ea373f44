"""`python -m dr.cli FILE` writes docs/cli.md."""

import sys

from dr import UsageError
from dr.cli.docs import markdown
from dr.cli.run import run_main
from dr.core.files import write_bytes


def main() -> int:
    if len(sys.argv) != 2:
        raise UsageError("expected one file; use python -m dr.cli docs/cli.md")
    write_bytes(sys.argv[1], markdown().encode())
    return 0


if __name__ == "__main__":
    run_main(main, go_on="start again")
