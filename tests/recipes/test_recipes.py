import pytest

from dr import UsageError
from dr.recipes import load as recipes
from dr.recipes.load import from_dict, load, parse_override
from dr.recipes.schema import Recipe

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib


def test_without_a_recipe_the_choices_are_the_published_method():
    recipe = load(None)
    assert recipe == Recipe(thresholds="optimal")
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("efficientnet_v2_m", 380, 18, 30)
    assert (recipe.objective, recipe.loss) == ("regression", "smooth_l1")
    assert (recipe.optimizer, recipe.amsgrad, recipe.lr) == ("adamw", True, 0.001)
    assert (recipe.scheduler, recipe.step_epochs, recipe.gamma) == ("step", 10, 0.1)
    assert load("published") == recipe


@pytest.mark.parametrize("name", recipes.available())
def test_every_recipe_loads_and_says_its_command_its_cost_and_what_was_measured(name):
    assert load(name)
    head = (recipes.FOLDER / f"{name}.toml").read_text()
    assert head.startswith("#")
    for told in ("Command:  python ", "Cost: ", "Measured: "):
        assert f"# {told}" in head
    assert f"python train.py -r {name}" in head or name == "published"


def test_a_flag_wins_over_the_recipe_and_the_recipe_over_the_defaults():
    assert load("lite0").batch_size == 32
    assert load("lite0", overrides={"batch_size": 7}).batch_size == 7
    assert load("lite0").loss == Recipe().loss


def test_a_recipe_survives_the_way_to_toml_and_back(tmp_path):
    recipe = load("lite0", overrides={"milestones": [3, 5], "mean": [0.1, 0.2, 0.3]})
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
    assert load(str(path)) == recipe
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
    ("choices", "message"),
    [
        ({"learning_rate": 0.1}, r"no choice 'learning_rate'"),
        ({"epoch": 3}, r"no choice 'epoch'; did you mean epochs"),
        ({"lr": "fast"}, r"--set: lr must be a number, got 'fast'"),
        ({"lr": 0}, r"lr must be greater than 0, got 0"),
        ({"epochs": 2.5}, r"epochs must be a whole number, got 2.5"),
        ({"epochs": True}, r"epochs must be a whole number, got True"),
        (
            {"scheduler": "cosin"},
            r"scheduler must be one of step, multistep, .*cosine, none, got 'cosin'",
        ),
        ({"ema_decay": 1.0}, r"ema_decay must lie between 0 and 1, got 1.0"),
        ({"mean": [0.5]}, r"mean needs three values \(R, G, B\), got 1"),
        ({"std": [0.2, 0.0, 0.2]}, r"std must be greater than 0, got 0.0"),
        ({"mean": [0.2, float("nan"), 0.2]}, r"mean must be a number, got nan"),
        ({"weight_decay": float("nan")}, r"weight_decay must be a number, got nan"),
        (
            {"normalisation": "measured", "std": [0.2, 0.2, 0.2]},
            r"normalisation=measured takes the place of mean and std; g",
        ),
        ({"patience": 3, "best_by": "last"}, r"with best_by=last every epoch counts as a better one, and pat"),
        ({"scheduler": "plateau", "gamma": 1.0}, r"gamma of scheduler plateau must be below 1, got 1.0"),
        ({"weight_decay": -1}, r"weight_decay must not be negative, got -1"),
        ({"clip_norm": 0}, r"clip_norm must be greater than 0"),
        ({"keep_epochs": 3}, r"keep_epochs must be a list of whole numbers, as \[30, 45\], got 3"),
        ({"keep_epochs": [0, 3]}, r"keep_epochs must be epochs from 1 that rise, got \[0, 3\]"),
        ({"milestones": [45, 30]}, r"milestones must be epochs from 1 that rise, got \[45, 30\]"),
        ({"momentum": 1.0}, r"momentum must be from 0 to below 1, got 1.0"),
        (
            {"optimizer": "sgd", "nesterov": True, "momentum": 0.0},
            r"momentum must be above 0, for nesterov, and below 1, got 0.0",
        ),
        ({"warmup_fraction": 0.1, "scheduler": "none"}, r"scheduler none has no warm-up; leave out warmup_fraction"),
    ],
)
def test_a_choice_that_cannot_work_names_itself_and_the_remedy(choices, message):
    with pytest.raises(UsageError, match=message):
        load(None, overrides=choices)


@pytest.mark.parametrize("name", recipes.available())
def test_every_other_choice_that_a_recipe_names_can_be_made(name):
    """The head comment's `Other choices`: groups of KEY=VALUE, commas between the groups."""
    lines = (recipes.FOLDER / f"{name}.toml").read_text().splitlines()
    head = " ".join(line[1:].strip() for line in lines if line.startswith("#"))
    _, told, text = head.partition("Other choices by --set: ")
    if not told:
        pytest.skip("it names none")
    for group in text.split(", "):
        overrides = dict(parse_override(pair) for pair in group.split())
        changed, own = load(name, overrides=overrides), load(name)
        assert all(getattr(changed, key) != getattr(own, key) for key in overrides), group


def test_another_objective_brings_its_own_loss():
    assert load("retinamnist_published").loss == "focal"
    assert load("retinamnist_published", overrides={"objective": "ordinal"}).loss == "bce"


def test_the_objective_that_a_recipe_has_anyway_leaves_its_loss_alone(tmp_path):
    (tmp_path / "own.toml").write_text('loss = "mse"')
    assert load(str(tmp_path / "own.toml"), overrides={"objective": "regression"}).loss == "mse"


def test_a_missing_recipe_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"no such recipe; known are binary_resnet, .*, published, "):
        load("lite")


def test_an_override_without_a_value_is_refused():
    with pytest.raises(UsageError, match="--set lr: expected KEY=VALUE"):
        parse_override("lr")


def test_broken_toml_names_the_file(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("lr = = 3")
    with pytest.raises(UsageError, match=r"broken\.toml: it is not valid TOML"):
        load(str(path))
