"""Graded photographs -> data/kaggle_retina: cropped, split and balanced."""

import sys

from dr.cli import run as cli


def main() -> int:
    args = cli.parser("data", description=__doc__).parse_args()
    cli.check_at_least(1, workers=args.workers)
    cli.check_there(zip_main=[args.zip_main], zip_2015=[None if args.zip_2015 == "none" else args.zip_2015])
    cli.check_outside(args.directory, [args.zip_main, args.zip_2015])
    with cli.importing():  # pandas takes a second: wrong flags are told before
        from dr.preprocessing.pipeline import Settings, prepare, skipped_lines, summary_lines
        from dr.sources.detect import Columns, open_sources

    settings = Settings(
        size=args.size,
        per_class=args.per_class,
        val_fraction=args.val_fraction,
        seed=args.seed,
        conflicts=args.conflicts,
        crop=args.crop,
    )
    columns = Columns(id=args.id_column, label=args.label_column, patient=args.patient_column)
    report = prepare(
        open_sources(args.zip_main, args.zip_2015, columns=columns),
        directory=args.directory,
        settings=settings,
        workers=args.workers,
        force=args.force,
    )
    print(*summary_lines(report), f"its page: {args.directory}/kaggle_retina/report.html", sep="\n")
    for line in skipped_lines(report):
        print(line, file=sys.stderr)
    return 1 if report["skipped"] else 0


def run() -> None:
    """The command line: never returns, exits with the code of `main`."""
    cli.run(main, go_on="start again to go on", memory="give fewer --workers", owns_process=True)
