"""The prepared photographs + a recipe -> weights/NAME__best.pt, the cuts between grades and how good they are."""

from dr import cli, recipes


def main() -> int:
    args = cli.parser("train", description=__doc__).parse_args()
    cli.check_at_least(0, workers=args.workers)
    given = {"batch_size": args.batch_size, "epochs": args.epochs, "pretrained": args.pretrained, "seed": args.seed}
    overrides = dict(recipes.parse_override(text) for text in args.overrides)
    overrides |= {key: value for key, value in given.items() if value is not None}
    recipe = recipes.load(args.recipe, overrides=overrides)

    from dr.dataset import read_prepared  # torch takes seconds to import: wrong flags are told before
    from dr.training import train

    row = train(
        recipe,
        data=read_prepared(args.data),
        folder=args.save,
        name=args.name,
        device_name=args.device,
        workers=args.workers,
        go_on=args.resume,
        recorded={
            "recipe": args.recipe or "published",
            "overrides": " ".join(f"{key}={value}" for key, value in overrides.items()),
        },
    )
    print(
        f"best epoch {row['best_epoch']}: macro-F1 cross-fitted {row['macro_f1_cross_fitted']:.3f} "
        f"({row['macro_f1_cross_fitted_low']:.3f} to {row['macro_f1_cross_fitted_high']:.3f}), "
        f"kappa {row['kappa_cross_fitted']:.3f}, in {row['minutes']:.1f} minutes"
    )
    print(f"saved {args.save}/{args.name}__best.pt")
    return 0


if __name__ == "__main__":
    cli.run(main, go_on="start again with --resume to go on after the last whole epoch")
