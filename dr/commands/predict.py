"""A checkpoint + images -> results/: result.csv (id_code,diagnosis), details.csv (scores, flags), report.html."""

import sys

from dr.cli import parser
from dr.cli.run import importing, run_main


def main() -> int:
    args = parser.make_parser("predict", description=__doc__).parse_args()
    parser.check_at_least(1, batch_size=args.batch_size)
    parser.check_at_least(0, workers=args.workers, **({} if args.explain == "all" else {"explain": args.explain}))
    parser.check_exists(model=args.model)
    if args.export:
        parser.check_alone("export", args, ("prevalence", "labels", "submission", "tta", "tta_by", *parser.COLUMNS))
        with importing("PyTorch"):
            from dr.prediction.onnx_export import export, summary_lines

        print(*summary_lines(export(args.model, args.export), args.export), sep="\n")
        return 0

    parser.check_columns(args)
    submission = None if args.submission == "auto" else args.submission
    parser.check_exists(images=[args.images], submission=[submission], labels=[args.labels])
    with importing("PyTorch"):  # torch takes seconds: report wrong flags before
        from dr.prediction.options import PredictOptions
        from dr.prediction.pipeline import predict, summary_lines

    names = {"model": "models", "device_name": "device", "engine_name": "engine"}
    given = {names.get(name, name): value for name, value in vars(args).items() if name != "export"}
    prediction = predict(PredictOptions(**given))
    print(*summary_lines(prediction), f"wrote {args.output}/result.csv with {len(prediction.result)} images", sep="\n")
    if args.report:
        print(f"wrote {args.output}/report.html")
    unreadable = prediction.details[prediction.details["error"] != ""]
    for row in unreadable.itertuples():
        print(f"not graded: {row.file}: {row.error}", file=sys.stderr)
    return 1 if len(unreadable) else 0


def run() -> None:
    """The command line: never returns, exits with the code of `main`."""
    run_main(main, go_on="start again", owns_process=True)
