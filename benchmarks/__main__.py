"""Measure the speed of each stage and print the table; with all rows, write benchmarks/results/<machine>.md."""

import os
import platform
import re
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import inputs, rows
from benchmarks.rows import Bench
from dr.cli.parser import Parser, check_at_least
from dr.cli.run import run_main
from dr.core import files

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "albumentations", "opencv-python-headless", "numpy")


def machine() -> str:
    """Model of the processor and number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text() if cpuinfo.is_file() else "")
    return f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores"


def table(bench: Bench) -> str:
    """The rows as a Markdown table, then a table of the milliseconds of single steps."""
    lines = [
        "| row | ours | compared with | ratio | range | goal | reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in bench.rows:
        cells = (row.name, row.ours, row.other, f"{row.value:.2f}", row.spread, row.goal)
        lines.append(f"| {' | '.join(cells)} | {'yes' if row.reached else 'no'} |")
    for subject, steps in bench.steps.items():
        lines += ["", f"| {subject} | ms |", "| --- | --- |", *(f"| {step} | {ms:.1f} |" for step, ms in steps.items())]
    return "\n".join(lines)


def report(bench: Bench) -> str:
    """The result file: command, machine, versions, table."""
    origin = "synthetic images" if bench.inputs.synthetic else "real images"
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"# {machine()}\n\n"
        f"`python -m benchmarks {shlex.join(sys.argv[1:])}`, {time.strftime('%Y-%m-%d')}, {origin}; "
        f"Python {platform.python_version()}, {versions}.\n\n"
        f"Medians of {bench.repeats} repeats and their range; compared rows were run alternately, "
        f"the long prediction and the bare network one after the other.\n\n{table(bench)}\n"
    )


def main() -> int:
    names = {row.__name__: row for row in rows.ALL}
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder with both archives and originals/ (default: synthetic images)"
    )
    parser.add_argument("--rows", nargs="+", choices=names, default=list(names), help="rows to measure (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each measurement (default: %(default)s)")
    parser.add_argument("--many", type=int, default=1000, help="images of the long prediction (default: %(default)s)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("benchmarks/work"),
        help="folder for intermediate files (default: %(default)s)",
    )
    args = parser.parse_args()
    check_at_least(1, repeats=args.repeats, many=args.many)
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.work.resolve(), inputs.find(args.data, work=args.work), repeats=args.repeats, many=args.many)
    for name in args.rows:
        names[name](bench)
        print(f"{name} done", file=sys.stderr)
    print(table(bench))
    if len(args.rows) == len(names):
        path = RESULTS / f"{re.sub('[^a-z0-9]+', '_', machine().lower()).strip('_')}.md"
        RESULTS.mkdir(exist_ok=True)
        files.write_bytes(path, report(bench).encode())
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    run_main(main, go_on="start again")
