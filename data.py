"""Two archives of fundus photographs -> data/kaggle_retina: cropped, split and balanced."""

import sys

from dr import GRADES, cli


def main() -> int:
    args = cli.parser("data", description=__doc__).parse_args()
    cli.check_at_least(1, workers=args.workers)

    from dr.prepare import Settings, prepare  # pandas takes seconds to import: wrong flags are told before

    settings = Settings(
        size=args.size,
        per_class=args.per_class,
        val_fraction=args.val_fraction,
        seed=args.seed,
        conflicts=args.conflicts,
    )
    report = prepare(
        args.zip_main,
        args.zip_2015,
        directory=args.directory,
        settings=settings,
        workers=args.workers,
        force=args.force,
    )
    if report.get("already_finished"):
        print("already prepared with these settings; nothing to do")
    for split, counts in report["counts"].items():
        print(f"{split:12}", *(f"{name}: {count}" for name, count in zip(GRADES, counts, strict=True)), sep="  ")
    for grade, count in report["short_of_per_class"].items():
        print(f"note: grade {grade} has {count} training photographs, not {args.per_class}: there are no more")
    for skipped in report["skipped"]:
        print(f"left out: {skipped['source']}/{skipped['original']}: {skipped['reason']}", file=sys.stderr)
    return 1 if report["skipped"] else 0


if __name__ == "__main__":
    cli.run(main, go_on="start again to go on")
