"""A checkpoint + photographs -> results/: result.csv (id_code,diagnosis), details.csv (scores, flags), report.html."""

import sys

from dr.cli import run as cli


def main() -> int:
    args = cli.parser("predict", description=__doc__).parse_args()
    cli.check_at_least(1, batch_size=args.batch_size)
    cli.check_at_least(0, workers=args.workers, **({} if args.explain == "all" else {"explain": args.explain}))
    cli.check_there(model=args.model)
    if args.export:
        cli.check_alone("export", args, ("prevalence", "labels", "submission", "tta", "tta_by"))
        with cli.importing():
            from dr.prediction.onnx_export import export, summary_lines

        print(*summary_lines(export(args.model, args.export), args.export), sep="\n")
        return 0

    cli.check_there(images=[args.images], submission=[args.submission])
    with cli.importing():  # torch takes seconds: wrong flags are told before
        from dr.prediction.pipeline import predict, summary_lines

    options = {name: value for name, value in vars(args).items() if name not in ("model", "images", "export")}
    prediction = predict(args.model, args.images, **options)
    print(
        *summary_lines(prediction),
        f"wrote {args.output}/result.csv with {len(prediction.result)} photographs",
        sep="\n",
    )
    if args.report:
        print(f"wrote {args.output}/report.html")
    unreadable = prediction.details[prediction.details["error"] != ""]
    for row in unreadable.itertuples():
        print(f"not graded: {row.file}: {row.error}", file=sys.stderr)
    return 1 if len(unreadable) else 0


def run() -> None:
    """The command line: never returns, exits with the code of `main`."""
    cli.run(main, go_on="start again", owns_process=True)
