import dataclasses
import subprocess
import sys

import pytest

from dr import UsageError
from dr.recipes.load import FOLDER, available, from_dict, load_recipe, parse_override
from dr.recipes.schema import FIELDS, OPTIONS, Recipe

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib


def test_without_a_recipe_the_options_are_the_published_method():
    recipe = load_recipe(None)
    assert recipe == Recipe(thresholds="optimal")
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("efficientnet_v2_m", 380, 18, 30)
    assert (recipe.objective, recipe.loss) == ("regression", "smooth_l1")
    assert (recipe.optimizer, recipe.amsgrad, recipe.lr) == ("adamw", True, 0.001)
    assert (recipe.scheduler, recipe.step_epochs, recipe.gamma) == ("step", 10, 0.1)
    assert load_recipe("published") == recipe


@pytest.mark.parametrize("name", available())
def test_every_recipe_loads_and_states_its_command_cost_expected_and_measured_result(name):
    assert load_recipe(name)
    head = (FOLDER / f"{name}.toml").read_text()
    assert head.startswith("#")
    for heading in ("Command:  python ", "Cost:     ", "Expected: ", "Measured: "):
        assert f"# {heading}" in head
    assert f"python train.py -r {name}" in head or name == "published"


def test_a_flag_wins_over_the_recipe_and_the_recipe_over_the_defaults():
    assert load_recipe("lite0").batch_size == 32
    assert load_recipe("lite0", overrides={"batch_size": 7}).batch_size == 7
    assert load_recipe("lite0").loss == Recipe().loss


def test_a_recipe_survives_the_way_to_toml_and_back(tmp_path):
    recipe = load_recipe("lite0", overrides={"milestones": [3, 5], "mean": [0.1, 0.2, 0.3]})
    lines = []
    for key, value in recipe.to_dict().items():
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, tuple):
            value = list(value)
        elif value is None or isinstance(value, str):
            value = f'"{"none" if value is None else value}"'
        lines.append(f"{key} = {value}")
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(lines))
    assert tomllib.loads(path.read_text())["lr"] == 0.0004
    assert load_recipe(str(path)) == recipe
    assert from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=1e-4", ("lr", 1e-4)),
        ("epochs = 3", ("epochs", 3)),
        ("amsgrad=false", ("amsgrad", False)),
        ("ema_decay=none", ("ema_decay", None)),
        ("pretrained=none", ("pretrained", "none")),
        ("milestones=[3, 5]", ("milestones", [3, 5])),
        ("backbone=resnet18", ("backbone", "resnet18")),
        ('backbone="resnet18"', ("backbone", "resnet18")),
    ],
)
def test_overrides_are_written_as_in_toml_and_words_need_no_quotes(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.1}, r"--set: unknown option 'learning_rate'"),
        ({"epoch": 3}, r"--set: unknown option 'epoch'; did you mean epochs"),
        ({"lr": "fast"}, r"--set: lr must be a number, got 'fast'"),
        ({"lr": 0}, r"lr must be greater than 0, got 0"),
        ({"epochs": 2.5}, r"epochs must be a whole number, got 2.5"),
        ({"epochs": True}, r"epochs must be a whole number, got True"),
        (
            {"scheduler": "cosin"},
            r"scheduler must be one of step, multistep, .*cosine, none, got 'cosin'",
        ),
        ({"ema_decay": 1.0}, r"--set: ema_decay must be less than 1, got 1.0"),
        ({"mean": [0.5]}, r"mean must be three numbers \(R, G, B\) or none, got \[0.5\]"),
        ({"std": [0.2, 0.0, 0.2]}, r"std must be greater than 0, got 0.0"),
        ({"mean": [0.2, float("nan"), 0.2]}, r"mean must be a finite number, got nan"),
        ({"weight_decay": float("nan")}, r"weight_decay must be a finite number, got nan"),
        (
            {"normalisation": "dataset", "std": [0.2, 0.2, 0.2]},
            r"normalisation=dataset replaces mean and std; leave them out",
        ),
        ({"patience": 3, "monitor": "last"}, r"patience has no effect with monitor=last, .*; set patience=none"),
        ({"scheduler": "plateau", "gamma": 1.0}, r"gamma of scheduler plateau must be less than 1, got 1.0"),
        ({"weight_decay": -1}, r"weight_decay must be at least 0, got -1"),
        ({"clip_norm": 0}, r"clip_norm must be greater than 0"),
        ({"keep_epochs": 3}, r"keep_epochs must be a list of whole numbers, as \[30, 45\], got 3"),
        ({"keep_epochs": [0, 3]}, r"keep_epochs must be greater than 0, got 0"),
        ({"milestones": [45, 30]}, r"milestones must be rising epochs from 1, got \[45, 30\]"),
        ({"momentum": 1.0}, r"momentum must be less than 1, got 1.0"),
        (
            {"optimizer": "sgd", "nesterov": True, "momentum": 0.0},
            r"nesterov needs a momentum above 0; set momentum=0.9 or nesterov=false",
        ),
        (
            {"warmup_fraction": 0.1, "scheduler": "none"},
            r"warmup_fraction has no effect with scheduler none; set it to 0 or use another",
        ),
    ],
)
def test_an_option_that_cannot_work_names_itself_and_the_remedy(options, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(None, overrides=options)


@pytest.mark.parametrize("name", available())
def test_every_other_option_that_a_recipe_names_is_valid(name):
    """The head comment's `Other options`: groups of KEY=VALUE, commas between the groups."""
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()
    head = " ".join(line[1:].strip() for line in lines if line.startswith("#"))
    _, heading, text = head.partition("Other options by --set: ")
    if not heading:
        pytest.skip("the recipe names none")
    for group in text.split(", "):
        overrides = dict(parse_override(pair) for pair in group.split())
        changed, original = load_recipe(name, overrides=overrides), load_recipe(name)
        assert all(getattr(changed, key) != getattr(original, key) for key in overrides), group


def test_another_objective_brings_its_own_loss():
    assert load_recipe("retinamnist_published").loss == "focal"
    assert load_recipe("retinamnist_published", overrides={"objective": "ordinal"}).loss == "bce"


def test_the_objective_that_a_recipe_has_anyway_leaves_its_loss_alone(tmp_path):
    (tmp_path / "own.toml").write_text('loss = "mse"')
    assert load_recipe(str(tmp_path / "own.toml"), overrides={"objective": "regression"}).loss == "mse"


def test_a_missing_recipe_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"--recipe lite: not found; known are binary_resnet, .*, published, "):
        load_recipe("lite")


def test_an_override_without_a_value_is_refused():
    with pytest.raises(UsageError, match="--set lr: expected KEY=VALUE"):
        parse_override("lr")


def test_broken_toml_names_the_file(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("lr = = 3")
    with pytest.raises(UsageError, match=r"broken\.toml: invalid TOML"):
        load_recipe(str(path))


NASTY = [
    None, "", "x", "none", "nan", "\ud800", "a\nb", "a" * 10**6, "\0", b"x", True, False, 0, -1, 1, 2, 0.5, -0.5, 1e308,
    float("nan"), float("inf"), 2**31, 2**40, 2**70, 10**5000, 1j, [], [1], [0.5], [1, "x"], [True], [2**70], [3, 2, 1],
    [[1]], (), (0.1, 0.2, 0.3), {}, {"a": {"b": 1}}, {1, 2}, object(), [float("nan")] * 3, [0.5] * 10**4, Recipe, print,
]  # fmt: skip
nested = []
for _ in range(2000):
    nested = [nested]
NASTY.append(nested)


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_takes_any_value_or_refuses_it_in_one_line(name):
    valid = 0
    for value in (*NASTY, getattr(Recipe, name)):
        try:
            recipe = from_dict({name: value}, place="x.pt")
        except UsageError as refused:
            text = str(refused)
            assert text.startswith("x.pt: "), text
            assert len(text.splitlines()) == 1, text
            assert text.isprintable(), text
            assert name in text, text
            assert len(text) < 500, text
        else:
            valid += 1
            assert from_dict(recipe.to_dict()) == recipe
    assert valid


@pytest.mark.parametrize("key", ["", "x" * 10**6, "\ud800", "a\nb", 1, None, ("lr",)])
def test_an_unknown_key_is_refused_in_one_line(key):
    with pytest.raises(UsageError, match=r"^x\.pt: unknown option .*; ") as refused:
        from_dict({key: 1}, place="x.pt")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1500


def test_a_changed_copy_is_checked_and_the_original_is_frozen():
    recipe = Recipe()
    assert dataclasses.replace(recipe, epochs=3).epochs == 3
    with pytest.raises(UsageError, match="recipe: epochs must be greater than 0, got 0"):
        dataclasses.replace(recipe, epochs=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3


def test_the_values_of_an_option_are_those_of_its_type():
    assert OPTIONS["tta"] == ("none", "flips", "d4", "five", "ten")
    assert all(getattr(Recipe, name) in allowed for name, allowed in OPTIONS.items())


def test_recipes_import_quickly_and_without_torch():
    code = "import sys, time; import dr.recipes.load; print(time.process_time(), *sys.modules)"  # CPU s since the start
    seconds, *modules = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).split()
    assert not {"torch", "numpy", "pandas", "timm"} & set(modules)
    assert float(seconds) < 0.5  # 0.15 on an idle core


def test_one_option_can_exclude_another():
    with pytest.raises(UsageError, match="recipe: shakedrop replaces stochastic_depth; set one of them to none"):
        Recipe(shakedrop=0.5, stochastic_depth=0.1)
    with pytest.raises(UsageError, match="recipe: layer_decay has no effect with freeze=backbone"):
        Recipe(layer_decay=0.7, freeze="backbone")
