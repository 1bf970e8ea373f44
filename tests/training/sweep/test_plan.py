import pytest
from made import planned

from dr import UsageError
from dr.training.sweep.plan import plan


def test_every_combination_is_planned_in_the_order_given():
    trials = planned("lr=1e-5,1e-4", "optimizer=sgd,adam", optimizer=None)
    assert [trial.swept for trial in trials] == [
        {"lr": "1e-05", "optimizer": "sgd"},
        {"lr": "1e-05", "optimizer": "adam"},
        {"lr": "0.0001", "optimizer": "sgd"},
        {"lr": "0.0001", "optimizer": "adam"},
    ]
    assert [(trial.recipe.lr, trial.recipe.optimizer) for trial in trials][2] == (1e-4, "sgd")
    assert trials[2].name == "run__lr_0.0001__optimizer_sgd"
    assert trials[2].recorded["overrides"].endswith("lr=0.0001 optimizer=sgd")


def test_without_a_sweep_the_plan_is_one_run():
    [trial] = plan([], recipe="lite0", overrides={"epochs": 3, "ema_decay": None}, name="ab")
    assert (trial.name, trial.recipe.epochs, trial.swept) == ("ab", 3, {})
    assert trial.recorded == {"recipe": "lite0", "overrides": "epochs=3 ema_decay=none"}


def test_folds_are_swept_like_an_option_but_are_none_of_the_recipe():
    trials = planned("fold=1/5, 2/5", "lr=0.1")
    assert [trial.fold for trial in trials] == [(1, 5), (2, 5)]
    assert [trial.name for trial in trials] == ["run__fold_1_5__lr_0.1", "run__fold_2_5__lr_0.1"]
    assert trials[0].swept == {"fold": "1/5", "lr": "0.1"}
    assert trials[0].recorded == trials[1].recorded
    assert "fold" not in trials[0].recorded["overrides"]
    assert trials[0].recipe == trials[1].recipe


def test_commas_within_brackets_do_not_separate_values():
    trials = planned("milestones=[30, 45],[10,20],[5]", milestones=None)
    assert [trial.recipe.milestones for trial in trials] == [(30, 45), (10, 20), (5,)]
    assert [trial.name for trial in trials][:2] == ["run__milestones_30_45", "run__milestones_10_20"]


def test_names_have_only_characters_that_are_safe_in_file_names():
    trials = planned("pretrained=../some where/a:b.pt,none", "amsgrad=true", pretrained=None, amsgrad=None)
    assert [trial.name for trial in trials] == [
        "run__pretrained_.._some_where_a_b.pt__amsgrad_true",
        "run__pretrained_none__amsgrad_true",
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lr"], r"--sweep lr: expected KEY=VALUE,VALUE"),
        (["lr="], r"--sweep lr=: expected KEY=VALUE,VALUE"),
        (["lr=1e-3,"], r"--sweep lr=1e-3,: expected KEY=VALUE,VALUE"),
        (["fold=1/2,3/2"], r"^--sweep fold: expected K/N as 1/5, K from 1 to N and N at least 2, got '3/2'"),
        (["fold=1/2,1/2"], r"^--sweep fold=1/2,1/2: the value 1/2 is repeated; list each value once"),
        (["learning=1"], r"^--sweep learning=1: unknown option 'learning'; "),
        (["lr=1e-3,0.001"], r"--sweep lr=1e-3,0\.001: the value 0\.001 is repeated; list each value once"),
        (["lr=1,2", "lr=3"], r"--sweep lr=3: lr is swept twice; list all its values in one --sweep"),
        (["epochs=1,2"], r"--sweep epochs=1,2: epochs is also set by --set or its own flag; set it once"),
        (["seed=1,2", "lr=1e-3,0"], r"--sweep seed=1 lr=0: lr must be greater than 0, got 0"),
        (["lr=fast,1"], r"^--sweep lr=fast: lr must be a number, got 'fast'"),
        (["dropout=none,half"], r"^--sweep dropout=half: dropout must be a number or none, got 'half'"),
    ],
)
def test_a_wrong_sweep_is_one_line_before_training(texts, message):
    with pytest.raises(UsageError, match=message) as raised:
        planned(*texts, dropout=None)
    assert "\n" not in str(raised.value)


def test_names_that_cannot_be_written_are_refused():
    with pytest.raises(UsageError, match="--name a/b: not a plain name; use a name without a path"):
        planned("lr=1,2", name="a/b")
    with pytest.raises(UsageError, match="two runs would have the name run__pretrained_a_b; use values that differ"):
        planned("pretrained=a/b,a:b", pretrained=None)
    with pytest.raises(
        UsageError, match=r"^n+__lr_1\.0: too long for a file name; use a shorter --name or shorter val"
    ):
        planned("lr=1,2", name="n" * 200)
    with pytest.raises(UsageError, match=r"^n+: too long for a file name; use a shorter --name$"):
        planned(name="n" * 240)
