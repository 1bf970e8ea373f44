"""Stages never import each other, and every other import points down the list of folders in docs/development.md."""

import ast
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("preprocessing", "training", "prediction")
# from the top down: a folder imports only those after it; the stages meet only through files
FOLDERS = (
    "commands",
    "synthetic",
    *STAGES,
    "inference",
    "pages",
    "grading",
    "networks",
    "datasets",
    "sources",
    "imaging",
    "cli",
    "recipes",
    "core",
)
COMMANDS = [ROOT / "dr" / "commands" / f"{name}.py" for name in ("data", "train", "predict", "dr")]


def imported(path: Path) -> set[str]:
    """The modules of dr that a file imports, anywhere in it, as `folder.module`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dr."):
            found |= {f"{node.module}.{alias.name}".removeprefix("dr.") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("dr.") for alias in node.names if alias.name.startswith("dr.")}
    return found


def modules() -> list[Path]:
    return sorted(path for path in (ROOT / "dr").rglob("*.py") if path.parent != ROOT / "dr")


def folder_of(path: Path) -> str:
    return path.relative_to(ROOT / "dr").parts[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "dr")))
def test_imports_point_down_and_stages_do_not_meet(path):
    own = folder_of(path)
    below = ("recipes", "core") if own == "cli" else FOLDERS[FOLDERS.index(own) + 1 :]
    allowed = {own} | {name for name in below if not (own in STAGES and name in STAGES)}
    wrong = sorted(name for name in imported(path) if name.partition(".")[0] not in allowed)
    assert not wrong, f"{path.relative_to(ROOT)} may not import {', '.join(wrong)}"


def test_every_folder_is_in_the_list():
    assert {folder_of(path) for path in modules()} == set(FOLDERS)


def test_few_imports_cross_the_folders():
    pairs = {
        (own, name.partition(".")[0]) for path in modules() for own in [folder_of(path)] for name in imported(path)
    }
    crossing = sorted(f"{own} -> {other}" for own, other in pairs if own != other)
    assert len(crossing) <= 90, "\n".join(crossing)


def test_init_files_are_empty_but_for_the_packages_own():
    assert not [path for path in modules() if path.name == "__init__.py" and path.read_text()]


def test_commands_have_few_lines():
    for path in COMMANDS:
        assert len(path.read_text().splitlines()) <= 55


@pytest.mark.parametrize(
    ("words", "homes"),
    [
        ('("train", "val", "test")', []),
        ('"val": ("val", ', ["sources/source.py"]),
        ('"drop", "majority"', ["__init__.py"]),
    ],
)
def test_splits_and_policies_are_spelt_in_one_place(words, homes):
    paths = chain(modules(), [ROOT / "dr" / "__init__.py"])
    assert [str(path.relative_to(ROOT / "dr")) for path in paths if words in path.read_text()] == homes


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("preprocessing.worker_pool", {"pandas", "scipy", "matplotlib", "sklearn", "albumentations", "torch"}),
        ("prediction.pipeline", {"scipy", "matplotlib", "sklearn", "albumentations", "pytorch_grad_cam"}),
    ],
)
def test_modules_that_start_often_import_nothing_large(module, without):
    code = f"import sys; import dr.{module}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=60).split()
    assert "cv2" in loaded
    assert not without & set(loaded)
