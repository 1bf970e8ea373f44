"""Names that other programs have for options and values, and the lists of train.py --list."""

import argparse

import pytest

from dr import UsageError
from dr.commands.listing import KINDS, backbone_lines, show
from dr.recipes.catalogue import HEADINGS, MEANINGS, head, option_lines, recipe_lines
from dr.recipes.load import available, load_recipe, parse_override, parse_overrides
from dr.recipes.schema import FIELDS, OPTIONS, Recipe
from dr.recipes.synonyms import _OPTION_OF, _OPTIONS, _VALUES, plain
from dr.training.sweep.plan import plan


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("learning_rate=0.1", "did you mean lr?"),
        ("learning-rate=0.1", "did you mean lr?"),
        ("LR=0.1", "did you mean lr?"),
        ("model=resnet18", "did you mean backbone?"),
        ("imgsz=512", "did you mean image_size?"),
        ("wd=0.1", "did you mean weight_decay?"),
        ("bs=8", "did you mean batch_size?"),
        ("optim=sgd", "did you mean optimizer?"),
        ("sched=cosine", "did you mean scheduler?"),
        ("dropout_rate=0.1", "did you mean dropout?"),
        ("label_smooth=0.1", "did you mean label_smoothing?"),
        ("mixup_alpha=0.4", "did you mean mixup?"),
        ("weight_decy=0.4", "did you mean weight_decay"),
        ("num_workers=4", "use the flag --workers"),
        ("num_classes=5", "omit it: the classes are those of the data"),
    ],
)
def test_an_unknown_option_is_answered_with_the_one_that_is_meant(text, remedy):
    key = text.partition("=")[0].replace("-", "_")
    for parse in (parse_override, lambda text: plan([text], recipe=None, overrides={}, name="n")):
        with pytest.raises(UsageError, match=rf"unknown option '{key}'; {remedy.replace('?', '[?]')}"):
            parse(text)


def test_an_option_is_taken_with_hyphens_on_the_command_line_in_sweeps_and_in_files(tmp_path):
    assert parse_override("weight-decay=0.5") == ("weight_decay", 0.5)
    assert parse_overrides(["batch-size=3"], batch_size=None) == {"batch_size": 3}
    trials = plan(["layer-decay=0.5,0.7"], recipe="lite0", overrides={}, name="n")
    assert [trial.name for trial in trials] == ["n__layer_decay_0.5", "n__layer_decay_0.7"]
    (tmp_path / "own.toml").write_text("batch-size = 3\nweight_decay = 0.5")
    recipe = load_recipe(str(tmp_path / "own.toml"))
    assert (recipe.batch_size, recipe.weight_decay) == (3, 0.5)
    (tmp_path / "own.toml").write_text("batch-size = 3\nbatch_size = 4")
    with pytest.raises(UsageError, match="batch_size is set twice"):
        load_recipe(str(tmp_path / "own.toml"))


def test_a_file_with_the_options_of_another_program_names_the_first_wrong_line(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("learning_rate = 0.1")
    with pytest.raises(UsageError, match=r"own\.toml: unknown option 'learning_rate'; did you mean lr\?"):
        load_recipe(str(path))
    path.write_text("[train]\nlr = 0.1")
    with pytest.raises(UsageError, match=r"own\.toml: recipes have no sections; remove the line \[train\]"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [
        ("scheduler", "cosin", "cosine"),
        ("scheduler", "ReduceLROnPlateau", "plateau"),
        ("scheduler", "OneCycleLR", "cosine"),
        ("loss", "CrossEntropyLoss", "cross_entropy"),
        ("loss", "huber", "smooth_l1"),
        ("loss", "smooth-l1", "smooth_l1"),
        ("optimizer", "AdamW", "adamw"),
        ("precision", 16, "fp16"),
        ("monitor", "qwk", "kappa_cross_fitted"),
        ("tta", True, "flips"),
        ("sampling", "weighted", "balanced"),
    ],
)
def test_a_value_that_does_not_exist_is_answered_with_the_nearest(option, value, meant):
    with pytest.raises(UsageError, match=rf"--set: {option} must be one of .*; did you mean {meant}\?$"):
        load_recipe(None, overrides={option: value})


def test_an_option_that_0_or_false_cannot_switch_off_says_what_does():
    for value in (0, False):
        with pytest.raises(UsageError, match=r"mixup must be .*; none switches it off$"):
            load_recipe(None, overrides={"mixup": value})
    assert parse_override("mixup=None") == ("mixup", None)
    assert parse_override("amsgrad=True") == ("amsgrad", True)


def test_a_loss_of_another_objective_names_that_objective():
    with pytest.raises(UsageError, match="got 'focal'; use one of these, or set objective=classification"):
        load_recipe(None, overrides={"loss": "focal"})


def test_an_option_without_a_value_shows_how_it_is_written():
    with pytest.raises(UsageError, match=r"--set lr: expected KEY=VALUE, as lr=0.001$"):
        parse_override("lr")


def test_no_name_from_elsewhere_means_two_options_or_is_an_option_itself():
    words = [word for words in _OPTIONS.values() for word in words.split()]
    assert len(words) == len(set(words)), sorted(word for word in words if words.count(word) > 1)
    assert not {plain(name) for name in FIELDS} & set(_OPTION_OF)
    assert all(word == plain(word) for word in words)
    assert all(name in FIELDS or " " in name or name.startswith("--") for name in _OPTIONS)


def test_every_meaning_of_a_value_is_a_value():
    for option, table in _VALUES.items():
        allowed = OPTIONS.get(option) or ("smooth_l1", "l1", "mse", "bce", "cross_entropy", "focal")
        assert set(table) <= set(allowed)
        words = [word for words in table.values() for word in words.split()]
        assert len(words) == len(set(words)), option
        assert not {plain(value) for value in allowed} & set(words) - {"none"}, option


def test_the_list_of_options_has_each_with_its_default_meaning_and_values():
    assert list(MEANINGS) == list(FIELDS)
    lines = option_lines()
    assert len(lines) == len(FIELDS)
    for name, line in zip(FIELDS, lines, strict=True):
        assert MEANINGS[name] in line
        assert all(value in line for value in OPTIONS.get(name, ()))
        default = line.partition("  ")[0].strip()
        assert default.startswith(f"{name}=")
        assert load_recipe(None, overrides=parse_overrides([default, *(["keep_epochs=[]"])]))
    assert option_lines(["Label-Smooth"])[0].startswith("label_smoothing=0.0  ")


def test_the_list_of_recipes_has_what_each_is_and_costs():
    lines = recipe_lines()
    assert len(lines) == 2 * len(available())
    for name in available():
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{name}: "))
        assert len(lines[at]) > len(name) + 20
        assert lines[at + 1].startswith("    cost: ")
        assert set(HEADINGS[:4]) <= set(head(name))
    assert recipe_lines(["best"])[0].startswith("lite0_best: ")
    assert len(recipe_lines(["best"])) == 4


def test_the_list_of_backbones_has_those_of_both_libraries():
    lines = dict(line.split(maxsplit=1) for line in backbone_lines([]))
    assert lines[Recipe.backbone] == "torchvision, the default"
    assert lines["resnet18"] == "torchvision"
    assert lines["tf_efficientnet_lite0"] == "timm"
    assert [line.split()[0] for line in backbone_lines(["efficientnet_v2_*"])] == [
        "efficientnet_v2_l",
        "efficientnet_v2_m",
        "efficientnet_v2_s",
    ]


def listed(*words, **given):
    flags = dict.fromkeys(("recipe", "epochs", "batch_size", "pretrained", "seed", "fold"))
    flags |= {"overrides": [], "sweep": [], "resume": False, "compare": False}
    return show(argparse.Namespace(list=list(words), **flags | given))


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (["option"], {}, "--list option: expected one of recipes, options, backbones; did you mean options?"),
        (["options", "zzz"], {}, "--list options zzz: no name contains zzz; see --list options"),
        (["options"], {"epochs": 3}, "--epochs has no effect on what --list writes; omit one of them"),
    ],
)
def test_a_list_that_cannot_be_printed_says_why(words, given, message):
    with pytest.raises(UsageError, match=message):
        listed(*words, **given)


def test_a_list_is_printed_without_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert listed("options", "lr") == 0
    assert capsys.readouterr().out.startswith("lr=0.001  learning rate [a number]")
    assert KINDS == ("recipes", "options", "backbones")
