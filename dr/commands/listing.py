"""What train.py prints instead of training: recipes, options and backbones (--list), and the runs (--compare)."""

import argparse
import difflib
from fnmatch import fnmatch

from dr import UsageError
from dr.cli.parser import RUN_FLAGS, check_alone
from dr.cli.run import importing
from dr.recipes.catalogue import option_lines, recipe_lines
from dr.recipes.schema import Recipe
from dr.training.run_files import runs_md_path

KINDS = ("recipes", "options", "backbones")


def show(args: argparse.Namespace) -> int:
    """Prints what `args.list` or `args.compare` asks for -> the exit code. Raises UsageError for an unknown kind or
    word, and for flags of a training beside it."""
    if args.compare and not args.list:
        check_alone("compare", args, RUN_FLAGS)
        from dr.training.compare import compare  # torch takes seconds

        print(compare(args.save), f"wrote {runs_md_path(args.save)}", sep="\n")
        return 0
    kind, *words = args.list
    close = difflib.get_close_matches(kind.casefold(), KINDS, n=1, cutoff=0.6)
    if kind not in KINDS:
        near = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"--list {kind}: expected one of {', '.join(KINDS)}{near}")
    check_alone("list", args, (*RUN_FLAGS, "compare"))
    lines = {"recipes": recipe_lines, "options": option_lines, "backbones": backbone_lines}[kind](words)
    if not lines:
        raise UsageError(f"--list {' '.join(args.list)}: no name contains {' or '.join(words)}; see --list {kind}")
    print(*lines, sep="\n")
    return 0


def backbone_lines(words: list[str]) -> list[str]:
    """A line for each backbone of torchvision and timm: its name, its library, whether that has weights for it. `words`
    are parts of the names, or patterns with *. A name of both is torchvision's."""
    with importing():  # seconds
        import timm
        import torchvision

    known = dict.fromkeys(timm.list_models(), "timm") | dict.fromkeys(
        torchvision.models.list_models(torchvision.models), "torchvision"
    )
    with_weights = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    patterns = [word if "*" in word else f"*{word}*" for word in words] or ["*"]
    chosen = sorted(name for name in known if any(fnmatch(name, pattern.lower()) for pattern in patterns))
    width = max(map(len, chosen), default=0)
    notes = {name: "" if known[name] == "torchvision" or name in with_weights else ", no weights" for name in chosen}
    default = {Recipe.backbone: ", the default"}
    return [f"{name:{width}}  {known[name]}{notes[name]}{default.get(name, '')}" for name in chosen]
