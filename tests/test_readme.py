"""The README's commands run, and it says the same words as --help."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dr.cli import run as cli
from dr.synthetic import demo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TINY = "-e 1 --set backbone=test_efficientnet --set image_size=64 --pretrained none --workers 1 --device cpu"
# what makes a command short enough for a test; everything else is run as it stands
SHORTER = {"python data.py": "--per_class 5 --size 64", "python train.py": TINY, "python predict.py": "--workers 1"}


def commands() -> list[str]:
    """The lines of all shell blocks, continued lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def flag_rows(script: str) -> list[str]:
    """The table of a script's flags, as the README shows it."""
    return [
        f"| {' '.join(f'`{name}`' for name in action.option_strings)} | {action.help % {'default': action.default}} |"
        for action in cli.parser(script, description="")._actions[1:]  # without --help
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A working directory as the README describes it: the repository, both archives, photographs to grade."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("data.py", "train.py", "predict.py", "Makefile", "dr", *(p.name for p in ROOT.glob("*.txt"))):
        (folder / name).symlink_to(ROOT / name)
    demo.make_archives(folder, main=60, extra=40, test=10)
    shutil.unpack_archive(folder / demo.MAIN_ZIP, folder)
    (folder / "results").mkdir()
    (folder / "kaggle_retina" / "test").rename(folder / "results" / "images")
    return folder


@pytest.fixture(scope="module")
def walked(workplace):
    """The workplace after all commands of the README, in their order."""
    for command in commands():
        if command.startswith("make "):
            command = f"make -n {command.removeprefix('make ')}"
        for start, flags in SHORTER.items():
            if command.startswith(start):
                command = f"{sys.executable} {command.removeprefix('python ')} {flags}"
        finished = subprocess.run(
            command, shell=True, cwd=workplace, capture_output=True, text=True, check=False, env=os.environ
        )
        assert finished.returncode == 0, f"{command}\n{finished.stderr}"
    return workplace


def test_the_commands_of_the_readme_end_in_a_submission(walked):
    assert len(commands()) >= 7
    result = pd.read_csv(walked / "results" / "result.csv")
    assert list(result.columns) == ["id_code", "diagnosis"]
    assert len(result) == 10


@pytest.mark.parametrize("script", ["data", "train", "predict"])
def test_the_readme_explains_every_flag_in_the_words_of_help(script):
    for row in flag_rows(script):
        assert row in README


def test_the_file_map_names_every_module():
    for path in [*(ROOT / "dr").glob("[!_]*.py"), *ROOT.glob("*.py")]:
        assert re.search(rf"\b{path.name}\b", README), path.name


def test_the_expected_tree_is_what_data_py_writes(walked):
    for name in (
        "labels_train.csv",
        "labels_val.csv",
        "duplicates.csv",
        "report.json",
        "class_balance.png",
        "crops.png",
    ):
        assert (walked / "data" / "kaggle_retina" / name).is_file()
        assert name in README
    header = (walked / "data" / "kaggle_retina" / "labels_train.csv").read_text().splitlines()[0]
    assert header in README


def test_no_figure_is_left_to_be_filled_in():
    assert not re.search(r"\b(TODO|[A-Z]+_(TABLE|FLAGS|OUTPUT|MINUTES))\b", README)
