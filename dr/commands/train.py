"""The prepared photographs + a recipe -> weights/NAME__best.pt, the cuts between grades and how good they are."""

from dr.cli import run as cli
from dr.recipes import load as recipes
from dr.training import run_files
from dr.training.sweep import plan as trials
from dr.training.sweep import run as sweep
from dr.training.sweep import table as sweep_table


def main() -> int:
    args = cli.parser("train", description=__doc__).parse_args()
    args.name = args.name or cli.name_of(args.recipe)
    cli.check_at_least(1, batch_size=args.batch_size, epochs=args.epochs)
    cli.check_at_least(0, workers=args.workers, seed=args.seed)
    if args.compare:
        cli.check_alone("compare", args, cli.RUN_FLAGS)
        from dr.training.compare import compare

        print(compare(args.save), f"wrote {args.save}/runs.md", sep="\n")
        return 0
    given = {name: getattr(args, name) for name in ("batch_size", "epochs", "pretrained", "seed")}
    overrides = recipes.parse_overrides(args.overrides, **given)
    planned = trials.plan(args.sweep, recipe=args.recipe, overrides=overrides, name=args.name)
    last = [f"{args.save}/{args.name}__last.pt"] if args.resume and not args.sweep else []
    cli.check_there(data=[args.data], pretrained=trials.weight_files(planned), resume=last)
    with cli.importing():  # torch takes seconds: wrong flags are told before
        from dr.datasets.preprocessed import fold, read_preprocessed
        from dr.training.loop import train
        from dr.training.runs_csv import summary_lines

    data = fold(read_preprocessed(args.data), *args.fold) if args.fold else read_preprocessed(args.data)
    where = {"folder": args.save, "device_name": args.device, "workers": args.workers}
    if args.sweep:  # with or without --resume, it goes on where it was stopped
        rows = sweep.train_all(planned, data=data, name=args.name, command=cli.command("train.py"), **where)
        print(sweep_table.best_summary(planned, rows), f"wrote {args.save}/{args.name}__sweep.md", sep="\n")
        return sweep.report_failures(rows)
    [run] = planned
    row = train(run.recipe, data=data, name=run.name, go_on=args.resume, recorded=run.recorded, **where)
    print(*summary_lines(row), *run_files.summary_lines(args.save, run.name), sep="\n")
    return 0


def run() -> None:
    """The command line: never returns, exits with the code of `main`."""
    cli.run(
        main, go_on="start again, with --resume if an epoch was finished", memory=cli.TRAIN_MEMORY, owns_process=True
    )
