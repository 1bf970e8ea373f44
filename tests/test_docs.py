"""README.md and docs/: their commands and programs run, their links resolve, and they name what exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from test_layers import FOLDERS

from dr.cli.parser import make_parser
from dr.recipes.load import load_recipe, parse_overrides
from dr.recipes.schema import LOSSES, OPTIONS, Recipe
from dr.synthetic import demo

ROOT = Path(__file__).parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
LINKED = [*PAGES, *ROOT.glob("C*.md"), *(ROOT / "benchmarks" / "results").glob("*.md")]
# pages whose commands are run, in this order, in one working directory
WALKED = [README, DOCS / "data.md", DOCS / "training.md", DOCS / "predicting.md"]
SCRIPTS = ("data", "train", "predict")
SECTIONS = (
    "Install",
    "Demo",
    "Your own images",
    "Python",
    "Results",
    "Kaggle",
    "Limits",
    "Documentation",
    "Licence and citation",
)
# flags of other programs
FOREIGN = {
    "--nproc_per_node", "--max-restarts", "--nnodes", "--rdzv_backend", "--rdzv_endpoint",  # torchrun
    "--repeats", "--rows",  # python -m benchmarks
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir", "--window-size",
    "--screenshot",  # chromium
    "--out",  # zip
}  # fmt: skip
TINY = "-e 1 --set backbone=test_efficientnet --set image_size=64 --pretrained none --workers 1 --device cpu"
# what makes a command short enough for a test
SHORTER = {"data.py": "--per_class 5 --size 64", "train.py": TINY, "predict.py": "--workers 1"}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def lines(page: Path, language: str) -> list[str]:
    """The lines of these blocks, continued lines joined."""
    return [
        line for block in blocks(page, language) for line in block.replace("\\\n", " ").splitlines() if line.strip()
    ]


def calls(page: Path) -> list[tuple[str, list[str]]]:
    """(script, arguments) of each data.py, train.py and predict.py in the blocks of a page, and of each `dr SCRIPT`."""
    script = re.compile(r"(?:(?:python |torchrun .*?)(?=\w+\.py )|\bdr (?=data|train|predict))(\w+)(?:\.py)? ([^;#]*)")
    calls = [script.search(line) for line in [*lines(page, "sh"), *lines(page, "text")]]
    return [(call[1], shlex.split(call[2])) for call in calls if call and call[1] in SCRIPTS]


def code(page: Path) -> list[str]:
    """Everything that a page prints as code: its blocks and its `words`."""
    text = page.read_text()
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return fenced + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def flags() -> set[str]:
    """All flags of the three scripts."""
    parsers = [make_parser(script, description=None) for script in SCRIPTS]
    return {name for parser in parsers for action in parser._actions for name in action.option_strings}


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path) -> list[list[str]]:
    """The cells of each row of the tables of a page."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in page.read_text().splitlines()
        if line.startswith("| ")
    ]


def names(page: Path) -> tuple[str, ...]:
    return str(page.relative_to(ROOT))


# what is written


def test_the_readme_is_short_and_in_order():
    text = README.read_text()
    assert len(text.splitlines()) <= 160
    assert tuple(re.findall(r"^## (.*)", text, flags=re.MULTILINE)) == SECTIONS
    before = [text.index("docs/images/"), text.index("Not a medical device"), text.index("## Install")]
    assert before == sorted(before)


def test_the_first_result_is_the_best_model():
    results = README.read_text().partition("\n## Results\n")[2]
    first = next(line for line in results.splitlines() if line.startswith("| `"))
    assert first.startswith("| `lite0_best` ")


@pytest.mark.parametrize("page", LINKED, ids=names)
def test_every_relative_link_and_anchor_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in slugs(linked), target


def test_images_of_the_docs_are_small():
    images = list((DOCS / "images").iterdir())
    assert images
    assert all(image.stat().st_size <= 200_000 for image in images)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=names)
def test_every_flag_exists(page):
    known = flags() | FOREIGN
    used = {flag for text in code(page) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
    assert used <= known, sorted(used - known)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_is_understood(page):
    for script, arguments in calls(page):
        placeholders = [re.sub(r"^[A-Z]/([A-Z]|\d)$|^\$\w+/\d$", "1/5", argument) for argument in arguments]
        placeholders = [re.sub(r"^K1$", "11", argument) for argument in placeholders]
        make_parser(script, description=None).parse_args(placeholders)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_option_of_a_recipe_exists(page):
    for text in code(page):
        for key, value in re.findall(r"--set ([a-z_]+)=([^\s`]+)", text):
            load_recipe(None, overrides=parse_overrides([f"{key}={value}"]))
        for key in re.findall(r"--sweep ([a-z_]+)=", text):
            assert key in {*Recipe().to_dict(), "fold"}


def test_every_recipe_is_documented():
    documented = {name for row in rows(DOCS / "recipes.md") for name in re.findall(r"^`(\w+)`$", row[0])}
    assert {path.stem for path in (ROOT / "dr" / "recipes").glob("*.toml")} <= documented


def test_every_option_is_documented_with_its_default():
    documented = {}
    for row in rows(DOCS / "recipes.md"):
        if len(row) == 3:
            options = re.findall(r"`(\w+)`", row[0])
            defaults = row[1].split(", ") if len(options) > 1 and row[1].count(",") == len(options) - 1 else [row[1]]
            documented |= dict(zip(options, defaults * (len(options) if len(defaults) == 1 else 1), strict=False))
    for option, default in Recipe().to_dict().items():
        assert option in documented
        text = documented[option].strip("`")
        if text in ("none", "the backbone's"):
            assert default in (None, (), [], "none", "default", "own", "backbone"), option
        elif isinstance(default, (bool, str)):
            assert text == str(default).lower(), option
        elif isinstance(default, (tuple, list)):
            assert [float(number) for number in text.split(", ")] == list(default), option
        else:
            assert float(text) == default, option


def test_every_value_of_an_option_is_documented():
    text = (DOCS / "recipes.md").read_text()
    for option, allowed in OPTIONS.items():
        for value in {*allowed} - {"own", "default", "none"}:
            assert f"`{value}`" in text, f"{option}={value}"
    for objective, losses in LOSSES.items():
        row = next(row for row in rows(DOCS / "recipes.md") if row[0] == f"`{objective}`")
        assert re.findall(r"`(\w+)`", row[2]) == list(losses)


def test_the_map_lists_every_folder_and_module_in_the_order_of_imports():
    folders = {}
    for line in "\n".join(blocks(DOCS / "development.md", "text")).splitlines():
        folder = re.match(r"  (\w+)/ +(.*)", line)
        if folder:
            current = folders[folder[1]] = [folder[2]]
        elif folders and line.startswith("     "):
            current.append(line)
        elif folders:
            break
    assert tuple(folder for folder in folders if folder in FOLDERS) == FOLDERS
    for path in (ROOT / "dr").glob("[!_]*/**/*.py"):
        if not path.name.startswith("__"):
            listed = " ".join(folders[path.relative_to(ROOT / "dr").parts[0]])
            assert re.search(rf"\b{path.stem}\b", listed), path.relative_to(ROOT)


def additions(page: Path) -> list[tuple[Path, list[str]]]:
    """(file, lines) of the diff blocks of a page: `--- FILE`, then lines that begin with a blank, + or -."""
    diffs = []
    for block in blocks(page, "diff"):
        for part in re.split(r"^--- ", block, flags=re.MULTILINE)[1:]:
            path, _, body = part.partition("\n")
            diffs.append((Path(path), body.splitlines()))
    return diffs


def applied(text: str | None, changes: list[str]) -> str:
    """`text` with the changes of a diff block, whose unchanged lines occur in this order, not always adjacent."""
    if text is None:
        return "".join(f"{line[1:]}\n" for line in changes)
    kept, rest = [], text.splitlines()
    for line in changes:
        if line.startswith("+"):
            kept.append(line[1:])
        else:
            at = rest.index(line[1:])  # ValueError: the file has no such line any more
            kept += rest[:at] if line.startswith("-") else rest[: at + 1]
            rest = rest[at + 1 :]
    return "\n".join([*kept, *rest, ""])


def test_the_additions_of_the_development_page_fit_the_code():
    assert len(additions(DOCS / "development.md")) >= 5
    for path, changes in additions(DOCS / "development.md"):
        file = ROOT / path
        compiled = applied(file.read_text() if file.exists() else None, changes)
        if path.suffix == ".py":
            compile(compiled, path, "exec")


def test_no_placeholder_is_left():
    for page in LINKED:
        assert not re.search(r"\b(TODO|FIXME|[A-Z]+_(TABLE|FLAGS|OUTPUT|MINUTES))\b", page.read_text()), page


# what is run


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A working directory as the docs assume it: the repository, both archives, labelled and new images."""
    folder = tmp_path_factory.mktemp("docs")
    for name in (
        "data.py",
        "train.py",
        "predict.py",
        "Makefile",
        "dr",
        "requirements",
        *(path.name for path in ROOT.glob("*.txt")),
    ):
        (folder / name).symlink_to(ROOT / name)
    demo.make_archives(folder, main=50, extra=30, test=10, size_px=(132, 160))
    with zipfile.ZipFile(folder / demo.MAIN_ZIP) as archive:
        archive.extractall(folder)
    source = folder / "kaggle_retina"
    for id_code, grade in pd.read_csv(source / "train.csv").itertuples(index=False):
        (folder / "my_images" / str(grade)).mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "train" / f"{id_code}.png", folder / "my_images" / str(grade))
    shutil.copytree(source / "test", folder / "new_images")
    shutil.copytree(source / "test", folder / "results" / "images")
    left, right = sorted((source / "test").iterdir())[:2]
    shutil.copy(left, folder / "left.jpg")
    shutil.copy(right, folder / "right.jpg")
    return folder


def run(command: str, folder: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    finished = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout[-2000:]}\n{finished.stderr[-4000:]}"


@pytest.fixture(scope="module")
def walked(workplace):
    """The workplace after all commands of the docs, in their order, each made short."""
    for command in (line for page in WALKED for line in lines(page, "sh")):
        if command.startswith("make "):
            command = f"make -n {command.removeprefix('make ')}"
        for script, shorter in SHORTER.items():
            if command.startswith(f"python {script}"):
                options = "" if "--compare" in command or "--export" in command else shorter
                command = f"{sys.executable} {command.removeprefix('python ')} {options}"
        run(command, workplace)
    return workplace


@pytest.mark.slow
def test_the_commands_end_in_a_submission_and_the_documented_files(walked):
    assert sum(len(lines(page, "sh")) for page in WALKED) >= 8
    result = pd.read_csv(walked / "results" / "result.csv")
    assert list(result.columns) == ["id_code", "diagnosis"]
    assert len(result) == 10
    header = (walked / "data" / "kaggle_retina" / "labels_train.csv").read_text().splitlines()[0]
    assert header in (DOCS / "data.md").read_text()


def tree(page: Path, root: str) -> set[str]:
    """The names of the files in the tree of a page that begins with `root`."""
    [block] = [block for block in blocks(page, "text") if block.startswith(root)]
    entries = re.findall(r"── (.*?)(?:  |$)", block, flags=re.MULTILINE)
    return {name for entry in entries for name in entry.split() if "." in name}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "root", "folder", "absent"),
    [
        ("data.md", "data/kaggle_retina/", "data/kaggle_retina", {"labels_test.csv", "ungradable.csv"}),
        (
            "training.md",
            "weights/",
            "weights",
            {
                *("runs.md", "epoch_N.pt", "lite0__last.pt"),
                *("test_confusion.png", "predictions_test.csv", "oof.csv"),  # of runs with a test
            },
        ),
    ],
)
def test_the_documented_trees_are_what_is_written(walked, page, root, folder, absent):
    written = {path.name for path in (walked / folder).rglob("*") if path.is_file()}
    documented = {name.replace("NAME", "lite0") for name in tree(DOCS / page, root)}
    assert documented - absent <= written
    assert len(documented) >= 9


@pytest.mark.slow
def test_details_csv_has_the_documented_columns(walked):
    documented = [name for row in rows(DOCS / "predicting.md") for name in re.findall(r"`(\w+)`", row[0])]
    for column in pd.read_csv(walked / "results" / "details.csv").columns:
        assert re.sub(r"_\d$", "_K", column) in documented


USES = """
import sys
import numpy as np, torch
import torch.nn.functional as F
from dr.datasets.augmentation import train_transform
from dr.grading import objectives, registry
from dr.recipes.load import load_recipe
from dr.sources.detect import recognise

recipe = load_recipe("small_gpu", overrides={"augmentation": "upside_down"})
assert recipe.backbone == "efficientnet_b0"
image = train_transform(recipe.augmentation, size_px=32)(image=np.zeros((40, 40, 3), np.uint8))["image"]
assert image.shape == (32, 32, 3)
huber = objectives.build(load_recipe("lite0", overrides={"loss": "huber"}))
assert huber.loss(torch.tensor([[3.0]]), F.one_hot(torch.tensor([1]), 5).float()).item() == 1.5
assert registry.by_key("balanced_accuracy").compute(np.array([[1, 1], [0, 2]])) == 0.75
source = recognise(sys.argv[1])
assert source.kind == "graded names" and source.table["diagnosis"].tolist() == [0, 3]
"""


@pytest.mark.slow
def test_the_additions_of_the_development_page_work(tmp_path):
    shutil.copytree(ROOT / "dr", tmp_path / "dr", ignore=shutil.ignore_patterns("__pycache__"))
    for path, changes in additions(DOCS / "development.md"):
        file = tmp_path / path
        file.write_text(applied(file.read_text() if file.exists() else None, changes))
    [recipe] = blocks(DOCS / "development.md", "toml")
    (tmp_path / "dr" / "recipes" / "small_gpu.toml").write_text(recipe)
    for name in ("0_anna_left.png", "3_anna_right.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "uses.py").write_text(USES)
    run(f"{sys.executable} uses.py images", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=names)
def test_the_python_of_the_docs_runs(walked, page):
    script = walked / f"{page.stem}.py"
    script.write_text("\n".join(blocks(page, "python")))
    run(f"{sys.executable} {script} left.jpg right.jpg", walked)
