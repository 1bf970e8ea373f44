"""Preprocessed images + a recipe -> weights/NAME__best.pt, with thresholds and metrics."""

from dr.cli import parser
from dr.cli.run import TRAIN_MEMORY, importing, run_main
from dr.commands.listing import show
from dr.recipes.load import parse_overrides
from dr.training import resumable
from dr.training.options import RunOptions
from dr.training.run_files import RunFiles, out_of_fold_lines, summary_lines
from dr.training.sweep.plan import plan, weight_files
from dr.training.sweep.run import report_failures, train_all
from dr.training.sweep.table import best_summary
from dr.training.trackers import check_installed


def main() -> int:
    args = parser.make_parser("train", description=__doc__).parse_args()
    if args.list or args.compare:
        return show(args)
    args.name = args.name or parser.name_of(args.recipe)
    parser.check_at_least(1, batch_size=args.batch_size, epochs=args.epochs)
    parser.check_at_least(0, workers=args.workers, seed=args.seed)
    overrides = parse_overrides(args.overrides, **{name: getattr(args, name) for name in parser.RECIPE_FLAGS})
    resuming = args.resume and not args.sweep  # what is not passed is taken from the checkpoint
    trials = plan(args.sweep, recipe=args.recipe, overrides={} if resuming else overrides, name=args.name)
    asked = resuming and resumable.checked(RunFiles(args.save, args.name), args.data, args.recipe, overrides, args.fold)
    parser.check_exists(data=[args.data], pretrained=() if resuming else weight_files(trials))
    check_installed(args.log)
    with importing("PyTorch"):  # torch takes seconds: report wrong flags before
        from dr.datasets.folds import fold
        from dr.datasets.preprocessed import read_preprocessed
        from dr.training import loop, resume, runs_csv

    recipe, recorded, part = resume.continued(asked) if asked else (*trials[0].start, args.fold)
    data = fold(read_preprocessed(args.data), *part) if part else read_preprocessed(args.data)
    where = {name: getattr(args, name) for name in ("device", "workers", "log", "keep_last")} | {"folder": args.save}
    options = RunOptions(name=args.name, resume=args.resume, recorded=recorded, **where)
    if args.sweep:  # continues where it was stopped, with or without --resume
        rows = train_all(trials, data=data, options=options, command=parser.command("train"))
        paths = RunFiles(args.save, args.name)
        joined = out_of_fold_lines(paths) if trials[0].fold else []
        print(best_summary(trials, rows), *joined, f"wrote {paths.sweep_md}", sep="\n")
        return report_failures(rows)
    row = loop.train(recipe, data=data, options=options)
    print(*runs_csv.summary_lines(row), *summary_lines(args.save, args.name), sep="\n")
    return 0


def run() -> None:
    """The command line: never returns, exits with the code of `main`."""
    run_main(main, go_on="start again, with --resume if an epoch was finished", memory=TRAIN_MEMORY, owns_process=True)
