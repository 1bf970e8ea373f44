"""A checkpoint + photographs -> results/result.csv (id_code,diagnosis), results/details.csv (scores, flags, errors)."""

import sys

from dr import cli


def main() -> int:
    args = cli.parser("predict", description=__doc__).parse_args()
    cli.check_at_least(1, batch_size=args.batch_size)
    cli.check_at_least(0, workers=args.workers)

    from dr.prediction import predict  # torch takes seconds to import: wrong flags are told before
    from dr.scoring import in_words

    prediction = predict(
        args.model,
        args.images,
        output=args.output,
        batch_size=args.batch_size,
        tta=args.tta,
        tta_by=args.tta_by,
        workers=args.workers,
        device_name=args.device,
        submission=args.submission,
        prevalence=args.prevalence,
        labels=args.labels,
    )
    if prediction.cuts is not None:
        print(prediction.cuts)
    if prediction.metrics is not None:
        print(*in_words(prediction.metrics), sep="\n")
    if prediction.unlike:
        print(prediction.unlike)
    counts = prediction.result["diagnosis"].value_counts()
    print(*(f"{name}: {counts.get(grade, 0)}" for grade, name in enumerate(prediction.classes)), sep="  ")
    print(f"wrote {args.output}/result.csv with {len(prediction.result)} photographs")
    unreadable = prediction.details[prediction.details["error"] != ""]
    for row in unreadable.itertuples():
        print(f"not graded: {row.file}: {row.error}", file=sys.stderr)
    return 1 if len(unreadable) else 0


if __name__ == "__main__":
    cli.run(main, go_on="start again")
