"""python -m benchmarks [--data FOLDER] [--rows NAME ...]: prints the table, writes benchmarks/results/<machine>.md."""

import os
import platform
import re
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import photographs, rows
from benchmarks.rows import Bench
from dr.cli import run as cli
from dr.core import files

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "albumentations", "opencv-python-headless", "numpy")


def machine() -> str:
    """Processor and cores, in words."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = re.search(r"model name\s*:\s*(.+)", told)
    return f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores"


def table(bench: Bench) -> str:
    """The rows as Markdown, then what single steps take."""
    lines = [
        "| row | ours | against | figure | range | asked | reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in bench.rows:
        told = (row.name, row.ours, row.other, f"{row.figure:.2f}", row.spread, row.asked)
        lines.append(f"| {' | '.join(told)} | {'yes' if row.reached else 'no'} |")
    for what, steps in bench.steps.items():
        lines += ["", f"| {what} | ms |", "| --- | --- |", *(f"| {step} | {ms:.1f} |" for step, ms in steps.items())]
    return "\n".join(lines)


def report(bench: Bench) -> str:
    """The result file: command, machine, versions, table."""
    drawn = "made photographs" if bench.photographs.made else "photographs named by --data"
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"# {machine()}\n\n"
        f"`python -m benchmarks {shlex.join(sys.argv[1:])}`, {time.strftime('%Y-%m-%d')}, {drawn}; "
        f"Python {platform.python_version()}, {versions}.\n\n"
        f"Medians of {bench.repeats} repeats and their range; what is compared was run in turns, "
        f"the long prediction and the bare network one after the other.\n\n{table(bench)}\n"
    )


def main() -> int:
    names = {row.__name__: row for row in rows.ALL}
    parser = cli.Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with both archives and originals/ (default: made ones)")
    parser.add_argument("--rows", nargs="+", choices=names, default=list(names), help="which rows (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default: %(default)s)")
    parser.add_argument(
        "--many", type=int, default=1000, help="photographs of the long prediction (default: %(default)s)"
    )
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work"), help="for what is written on the way")
    args = parser.parse_args()
    cli.check_at_least(1, repeats=args.repeats, many=args.many)
    args.work.mkdir(parents=True, exist_ok=True)
    found = photographs.find(args.data, work=args.work)
    bench = Bench(args.work.resolve(), found, repeats=args.repeats, many=args.many)
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
    cli.run(main, go_on="start again")
