"""Preprocessed images + a recipe -> weights/NAME__best.pt, with thresholds and metrics."""

from dr.cli import parser
from dr.cli.run import TRAIN_MEMORY, importing, run_main
from dr.recipes.load import parse_overrides
from dr.training.options import RunOptions
from dr.training.run_files import RunFiles, runs_md_path, summary_lines
from dr.training.sweep.plan import plan, weight_files
from dr.training.sweep.run import report_failures, train_all
from dr.training.sweep.table import best_summary
from dr.training.trackers import check_installed


def main() -> int:
    args = parser.make_parser("train", description=__doc__).parse_args()
    args.name = args.name or parser.name_of(args.recipe)
    parser.check_at_least(1, batch_size=args.batch_size, epochs=args.epochs)
    parser.check_at_least(0, workers=args.workers, seed=args.seed)
    if args.compare:
        parser.check_alone("compare", args, parser.RUN_FLAGS)
        from dr.training.compare import compare

        print(compare(args.save), f"wrote {runs_md_path(args.save)}", sep="\n")
        return 0
    flags = {name: getattr(args, name) for name in ("batch_size", "epochs", "pretrained", "seed")}
    overrides = parse_overrides(args.overrides, **flags)
    trials = plan(args.sweep, recipe=args.recipe, overrides=overrides, name=args.name)
    paths = RunFiles(args.save, args.name)
    last = [paths.last] if args.resume and not args.sweep else []
    parser.check_exists(data=[args.data], pretrained=weight_files(trials), resume=last)
    check_installed(args.log)
    with importing():  # torch takes seconds: report wrong flags before
        from dr.datasets.folds import fold
        from dr.datasets.preprocessed import read_preprocessed
        from dr.training import loop, runs_csv

    data = fold(read_preprocessed(args.data), *args.fold) if args.fold else read_preprocessed(args.data)
    where = {"folder": args.save, "device": args.device, "workers": args.workers, "log": args.log}
    options = RunOptions(name=args.name, resume=args.resume, recorded=trials[0].recorded, **where)
    if args.sweep:  # continues where it was stopped, with or without --resume
        rows = train_all(trials, data=data, options=options, command=parser.command("train"))
        print(best_summary(trials, rows), f"wrote {paths.sweep_md}", sep="\n")
        return report_failures(rows)
    row = loop.train(trials[0].recipe, data=data, options=options)
    print(*runs_csv.summary_lines(row), *summary_lines(args.save, args.name), sep="\n")
    return 0


def run() -> None:
    """The command line: never returns, exits with the code of `main`."""
    go_on = "start again, with --resume if an epoch was finished"
    run_main(main, go_on=go_on, memory=TRAIN_MEMORY, owns_process=True)
