"""The prepared photographs + a recipe -> weights/NAME__best.pt, the cuts between grades and how good they are."""

import shlex
import sys

from dr import cli, recipes, sweep


def main() -> int:
    args = cli.parser("train", description=__doc__).parse_args()
    cli.check_at_least(1, batch_size=args.batch_size, epochs=args.epochs)
    cli.check_at_least(0, workers=args.workers, seed=args.seed)
    if args.compare:
        from dr.compare import compare

        print(compare(args.save), f"wrote {args.save}/runs.md", sep="\n")
        return 0
    given = {"batch_size": args.batch_size, "epochs": args.epochs, "pretrained": args.pretrained, "seed": args.seed}
    overrides = dict(recipes.parse_override(text) for text in args.overrides)
    overrides |= {key: value for key, value in given.items() if value is not None}
    trials = sweep.plan(args.sweep, recipe=args.recipe, overrides=overrides, name=args.name)
    cli.check_there(data=[args.data], pretrained={trial.recipe.pretrained for trial in trials} - {"imagenet", "none"})
    if args.resume and not args.sweep:
        cli.check_there(resume=[f"{args.save}/{args.name}__last.pt"])

    from dr.dataset import fold, read_prepared  # torch takes seconds to import: wrong flags are told before
    from dr.outcome import in_words
    from dr.training import train

    data = fold(read_prepared(args.data), *args.fold) if args.fold else read_prepared(args.data)
    where = {"folder": args.save, "device_name": args.device, "workers": args.workers}
    if args.sweep:  # with or without --resume, it goes on where it was stopped
        command = shlex.join(["python", "train.py", *sys.argv[1:]])
        rows = sweep.train_all(trials, data=data, name=args.name, command=command, **where)
        failed = [row for row in rows if row["error"]]
        for row in failed:
            print(f"not trained: {row['name']}: {row['error']}", file=sys.stderr)
        print(sweep.best_in_words(trials, rows), f"wrote {args.save}/{args.name}__sweep.md", sep="\n")
        return 1 if failed else 0
    [run] = trials
    row = train(run.recipe, data=data, name=run.name, go_on=args.resume, recorded=run.recorded, **where)
    print(*in_words(row), sep="\n")
    print(f"saved {args.save}/{args.name}__best.pt")
    return 0


if __name__ == "__main__":
    cli.run(
        main,
        go_on="start again with --resume to go on after the last whole epoch",
        memory="give a smaller -b together with --set accumulate=N, --set grad_checkpointing=true, or a smaller "
        "--set image_size=PIXELS",
    )
