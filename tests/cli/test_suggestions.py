"""Flags as people write them: other spellings are taken, other names are answered with the flag to use."""

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dr import UsageError, __version__
from dr.cli import suggestions
from dr.cli.parser import EXAMPLES, Parser, make_parser
from dr.recipes.load import load_recipe, parse_overrides
from dr.recipes.schema import FIELDS

ROOT = Path(__file__).parents[2]
SCRIPTS = ("data", "train", "predict")


def parser(script):
    return make_parser(script, description=None, prog=f"{script}.py")


def refused(script, line):
    """What the error says between `error: ` and the pointer to --help."""
    with pytest.raises(UsageError) as error:
        parser(script).parse_args(shlex.split(line))
    text = str(error.value)
    assert text.isprintable()
    assert text.endswith(f"; see {script}.py --help")
    return text.removesuffix(f"; see {script}.py --help")


def long_flags():
    for script in SCRIPTS:
        for action in parser(script)._actions:
            for name in action.option_strings:
                if name.startswith("--") and action.nargs != 0:
                    yield script, name, action


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_is_taken_with_hyphens_and_with_underscores(script):
    values = {"type": "3", "patient_pattern": "(a)", "fold": "1/5", "prevalence": "auto"}
    for action in parser(script)._actions:
        name = action.option_strings[-1]
        if "_" not in name:
            continue
        value = [] if action.nargs == 0 else [(action.choices or [values.get(action.dest, "3")])[0]]
        with_hyphens = f"--{name[2:].replace('_', '-')}"
        expected = parser(script).parse_args([name, *value])
        assert parser(script).parse_args([with_hyphens, *value]) == expected
        if value:
            assert parser(script).parse_args([f"{with_hyphens}={value[0]}"]) == expected
        assert expected != parser(script).parse_args([])


def test_a_value_keeps_its_hyphens():
    args = parser("train").parse_args(["--name=my-run", "--save", "my-weights", "--set", "backbone=a-b"])
    assert (args.name, args.save, args.overrides) == ("my-run", "my-weights", ["backbone=a-b"])


def test_help_shows_one_spelling_and_an_abbreviation_is_not_ambiguous_with_itself():
    for script in SCRIPTS:
        assert not re.search(r"--[a-z]+-[a-z]", parser(script).format_help().partition("examples:")[0])
    assert parser("predict").parse_args(["--no"]).report is False
    assert parser("train").parse_args(["--batch", "3", "--epoch=2"]).batch_size == 3
    with pytest.raises(UsageError, match="ambiguous option: --patient could match --patient_column, --patient_pattern"):
        parser("data").parse_args(["--patient", "x"])


@pytest.mark.parametrize(
    ("script", "line", "answer"),
    [
        ("train", "--lr 0.1", "unrecognised flag --lr; use --set lr=0.1"),
        ("train", "--lr -1e-3", "unrecognised flag --lr; use --set lr=-1e-3"),
        ("train", "--learning-rate=0.1", "unrecognised flag --learning-rate; use --set lr=0.1"),
        ("train", "--model resnet18", "unrecognised flag --model; use --set backbone=resnet18"),
        ("train", "--imgsz 512", "unrecognised flag --imgsz; use --set image_size=512"),
        ("train", "--img_size 512", "unrecognised flag --img_size; use --set image_size=512"),
        ("train", "--image_size", "unrecognised flag --image_size; use --set image_size=VALUE"),
        ("train", "--size 512", "unrecognised flag --size; use --set image_size=512"),
        ("data", "--image-size 512", "unrecognised flag --image-size; use --size 512"),
        ("predict", "--image_size 512", "unrecognised flag --image_size; omit it: the checkpoint has its recipe"),
        ("train", "--output w", "unrecognised flag --output; use -s w"),
        ("data", "--output w", "unrecognised flag --output; use -d w"),
        ("data", "--input 'my images'", "unrecognised flag --input; use -m 'my images'"),
        ("predict", "--input x", "unrecognised flag --input; use -i x"),
        ("train", "--train_dir x", "unrecognised flag --train_dir; use -d x"),
        ("train", "--gpu", "unrecognised flag --gpu; use --device cuda"),
        ("predict", "--gpu 1", "unrecognised flag --gpu; use --device cuda:1"),
        ("data", "--cuda", "unrecognised flag --cuda; omit it: data.py runs on the CPU"),
        ("train", "--gpus 2", "unrecognised flag --gpus; use torchrun --nproc_per_node 2 train.py"),
        ("train", "--num_workers 4", "unrecognised flag --num_workers; use --workers 4"),
        ("predict", "-j 4", "unrecognised flag -j; use --workers 4"),
        ("predict", "--checkpoint a.pt", "unrecognised flag --checkpoint; use -m a.pt"),
        ("predict", "--weights a.pt", "unrecognised flag --weights; use -m a.pt"),
        ("train", "--weights a.pt", "unrecognised flag --weights; use --pretrained a.pt"),
        ("train", "--epochss 3", "unrecognised flag --epochss; use --epochs 3"),
        ("train", "--schedulr cosine", "unrecognised flag --schedulr; use --set scheduler=cosine"),
        ("train", "--num_classes 5", "unrecognised flag --num_classes; omit it: the classes are those of the data"),
        ("train", "--per_class 9", "unrecognised flag --per_class; a flag of data.py"),
        ("data", "-e 9", "unrecognised flag -e; a flag of train.py"),
        ("data", "--lr 1", "unrecognised flag --lr; use --set lr=1 of train.py"),
        ("predict", "--epochs 9", "unrecognised flag --epochs; omit it: the checkpoint has its recipe"),
        ("train", "--tta d4", "unrecognised flag --tta; use --set tta=d4"),
        ("train", "--xyzzy", "unrecognised flag --xyzzy"),
        ("train", "--Epochs 3", "unrecognised flag --Epochs; use --epochs 3"),
        ("train", "\u2014epochs 3", "unrecognised flag \u2014epochs; use --epochs 3"),
        ("train", "-epochs 3", "unrecognised flag -epochs; use --epochs 3"),
        ("train", "-epochs=3", "unrecognised flag -epochs; use --epochs 3"),
        ("train", "-lr 3", "unrecognised flag -lr; use --set lr=3"),
        ("train", "-bs 3", "unrecognised flag -bs; use -b 3"),
        ("predict", "-images x", "unrecognised flag -images; use --images x"),
        (
            "train",
            "--lr 1 -e 2 --wd 0.1",
            "unrecognised flags --lr, --wd; use --set lr=1; use --set weight_decay=0.1",
        ),
        ("train", "--wd -e 2", "unrecognised flag --wd; use --set weight_decay=VALUE"),
        ("data", "a.zip", "unexpected argument a.zip; use -m a.zip"),
        ("predict", "a.jpg", "unexpected argument a.jpg; use -i a.jpg"),
        ("predict", "a.pt", "unexpected argument a.pt; use -m a.pt"),
        ("train", "lite0", "unexpected argument lite0; use -r lite0"),
        ("train", "my.toml", "unexpected argument my.toml; use -r my.toml"),
        ("train", "--set lr=1 wd=2", "unexpected argument wd=2; use --set weight_decay=2"),
        ("train", "--set lr 2", "unexpected argument 2; use --set lr=2"),
        ("train", "--set lr = 2", "unexpected arguments =, 2; write KEY=VALUE without blanks"),
        ("train", "--set lr =2", "unexpected argument =2; write KEY=VALUE without blanks"),
        ("train", "--resume x", "unexpected argument x; --resume takes no value; omit it"),
        ("train", "'a\nb'", "unexpected argument 'a\\nb'; use -d 'a\\nb'"),
    ],
)
def test_a_flag_that_does_not_exist_is_answered_with_the_one_that_does_it(script, line, answer):
    assert refused(script, line) == answer


PARTS = [
    *("-", "--", "\u2014", "=", "epochs", "lr", "m", "set", "foo", "batch-size", "3", "-3", "x y", "\n", "\ud800", ""),
    *("no", "report", "a.pt", "{", "}", "%s", "%(prog)s", "KEY=VALUE", "-b", "-e", "1/5", "--=\n"),
]  # fmt: skip


def test_any_words_are_taken_or_refused_in_one_line():
    draw, messages = random.Random(0), []
    for _ in range(300):
        words = ["".join(draw.choices(PARTS, k=draw.randint(1, 3))) for _ in range(draw.randint(1, 4))]
        try:
            parser(draw.choice(SCRIPTS)).parse_args(words)
        except UsageError as refused:
            messages.append(str(refused))
    assert len(messages) > 200
    assert all(message.isprintable() for message in messages)


@pytest.mark.parametrize(
    ("name", "device"), [("gpu", "cuda"), ("GPU:1", "cuda:1"), ("gpu0", "cuda:0"), ("0", "cuda:0"), ("0,1", "cuda:0")]
)
def test_a_gpu_by_another_name_is_answered_before_torch_is_imported(name, device):
    for script in ("train", "predict"):
        assert refused(script, f"--device {name}").endswith(f"got '{name}'; use {device}")
    assert parser("train").parse_args(["--device", "cuda:1"]).device == "cuda:1"


@pytest.mark.parametrize("line", ["-b8", "-e12", "-ne5", "-dmy_data", "-rlite0", "-sout"])
def test_a_value_may_stand_close_to_its_letter(line):
    assert line[2:] in map(str, vars(parser("train").parse_args([line])).values())


def test_every_remedy_is_a_command_that_parses_and_an_option_that_exists():
    values = {"N": "3", "SHARE": "0.2", "PIXELS": "64", "TRACKER": "mlflow", "ENGINE": "torch", "SHARES": "auto"}
    values |= {"KEY=VALUE": "lr=1", "KEY=VALUE,VALUE": "lr=1,2"}
    for script in SCRIPTS:
        for remedy in suggestions._FLAGS[script]:
            if not remedy.startswith("-") or " of " in remedy:
                continue
            text = re.sub(r"\{(.*?)\}", lambda found: values.get(found[1], "x"), remedy)
            args = parser(script).parse_args(shlex.split(text))
            if text.startswith("--set"):
                load_recipe(None, overrides=parse_overrides(args.overrides))


def test_no_name_has_two_remedies_and_none_is_a_flag_of_its_command():
    for script, remedies in suggestions._FLAGS.items():
        words = [word for words in remedies.values() for word in words.split()]
        assert len(words) == len(set(words)), sorted(word for word in words if words.count(word) > 1)
        own = {suggestions.plain(name) for action in parser(script)._actions for name in action.option_strings}
        assert not own & set(words)


@pytest.mark.parametrize(("script", "name", "action"), [*long_flags()])
def test_a_single_hyphen_before_a_long_flag_is_never_read_as_its_letter(script, name, action):
    value = (action.choices or ["3"])[0]
    assert refused(script, f"{name[1:]} {value}").startswith(f"unrecognised flag {name[1:]}; use {name} ")


def test_a_parser_without_a_command_suggests_nothing_but_stays_one_line():
    with pytest.raises(UsageError, match=r"^unrecognised flag --lr; use --set lr=1 of train.py; see dr --help$"):
        Parser("dr").parse_args(["--lr", "1"])
    with pytest.raises(UsageError, match=r"^unexpected argument x; see dr --help$"):
        Parser("dr").parse_args(["x"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_ends_with_three_examples_that_parse(script, tmp_path):
    lines = parser(script).format_help().rstrip().splitlines()
    assert lines[-4] == "examples:"
    for line, arguments in zip(lines[-3:], EXAMPLES[script], strict=True):
        assert line == f"  python {script}.py {arguments}"
        args = parser(script).parse_args(shlex.split(arguments))
        if script == "train":
            assert load_recipe(args.recipe, overrides=parse_overrides(args.overrides))
    assert f"  dr {script} -" in make_parser(script, description=None, prog=f"dr {script}").format_help()


LARGE = {"torch", "pandas", "numpy", "cv2", "timm", "torchvision", "sklearn", "matplotlib"}


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("data.py --version", f"data.py {__version__}"),
        ("train.py --version", f"train.py {__version__}"),
        ("predict.py --version", f"predict.py {__version__}"),
        ("predict.py -h", "usage: predict.py [-h]"),
        ("train.py --list recipes lite", "lite0: tf_efficientnet_lite0 at 224"),
        ("train.py --list options step-ep", "step_epochs=10  scheduler step: "),
        ("-m dr train --version", f"dr train {__version__}"),
    ],
)
def test_no_large_library_is_imported_to_say_what_there_is(command, first):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}
    run = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0
    assert run.stdout.startswith(first)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert not imported & LARGE
    assert "argparse" in imported


def test_no_option_is_called_like_a_flag_of_another_program_that_means_something_else():
    """`--set X` must be what train.py suggests for an option X, unless X has a flag of its own."""
    own = {suggestions.plain(name) for action in parser("train")._actions for name in action.option_strings}
    for name in FIELDS:
        if suggestions.plain(name) not in own:
            assert refused("train", f"--{name} 1") == f"unrecognised flag --{name}; use --set {name}=1"
