"""Labelled fundus images -> data/kaggle_retina: cropped, split and balanced."""

import sys
from dataclasses import fields

from dr.cli import parser
from dr.cli.run import importing, run_main


def main() -> int:
    args = parser.make_parser("data", description=__doc__).parse_args()
    parser.check_at_least(1, workers=args.workers)
    parser.check_exists(zip_main=[args.zip_main], zip_2015=[None if args.zip_2015 == "none" else args.zip_2015])
    parser.check_outside(args.directory, [args.zip_main, args.zip_2015])
    with importing():  # pandas takes a second: report wrong flags before
        from dr.datasets.preprocessed import FOLDER
        from dr.preprocessing.pipeline import preprocess_sources
        from dr.preprocessing.settings import Settings
        from dr.preprocessing.summary import skipped_lines, summary_lines
        from dr.sources.candidate import ReadOptions
        from dr.sources.columns import Columns
        from dr.sources.detect import open_sources

    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    columns = Columns(id=args.id_column, label=args.label_column, patient=args.patient_column)
    choices = {name: getattr(args, name) for name in ("table", "root", "ungradable", "patient_pattern")}
    report = preprocess_sources(
        open_sources(args.zip_main, args.zip_2015, options=ReadOptions(columns=columns, **choices)),
        directory=args.directory,
        settings=settings,
        workers=args.workers,
        force=args.force,
    )
    print(*summary_lines(report), f"report: {args.directory}/{FOLDER}/report.html", sep="\n")
    for line in skipped_lines(report):
        print(line, file=sys.stderr)
    return 1 if report["skipped"] else 0


def run() -> None:
    """The command line: never returns, exits with the code of `main`."""
    run_main(main, go_on="start again to continue", memory="reduce --workers", owns_process=True)
