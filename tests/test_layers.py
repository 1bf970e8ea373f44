"""Imports point down: scripts, then stages, then what they are made of, then the pure centre."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"data", "train", "predict"},
    {"prepare", "training", "sweep", "compare", "prediction", "export", "demo"},
    {"outcome", "run_page", "prevalence", "scoring", "forward"},
    {"card", "mistakes", "photographs", "runs_table", "run_pictures"},
    {"data_page"},
    {"run", "selection", "formats", "ensemble", "prediction_page"},
    {"arrays", "folders", "tables", "pairs"},
    {"charts", "run_facts", "sweep_table"},
    {"inference", "engine", "checkpoint", "evaluation", "report", "data_pictures", "explain", "explained"},
    {"calibration"},
    {
        "surgery",
        "crossfit",
        "dataset",
        "loading",
        "prepared",
        "models",
        "objectives",
        "sources",
        "workspace",
        "device",
        "duplicates",
        "workers",
        "page",
        "style",
    },
    {
        "fundus",
        "novelty",
        "archive",
        "split",
        "transforms",
        "thresholds",
        "metrics",
        "cli",
        "files",
        "drawing",
        "trials",
        "classes",
    },
    {"recipes", "flags", "ranks", "run_files", "square"},
]
DEPTH = {module: depth for depth, layer in enumerate(LAYERS) for module in layer}
FILES = [ROOT / f"{name}.py" for name in sorted(LAYERS[0])] + sorted((ROOT / "dr").glob("[!_]*.py"))


def imported_modules(path: Path) -> set[str]:
    """Names of the modules of dr that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "dr":
            found |= {alias.name for alias in node.names if alias.name in DEPTH}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dr."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_point_down(path):
    wrong = {name for name in imported_modules(path) if DEPTH[name] < DEPTH[path.stem]}
    assert not wrong, f"{path.name} imports {wrong} from a layer above its own"


def test_the_lowest_layer_imports_nothing_of_the_package_but_recipes_flags_and_ranks():
    for path in FILES:
        if path.stem in LAYERS[-2]:
            assert imported_modules(path) <= LAYERS[-1], path.name


def test_scripts_tell_the_story_in_few_lines():
    for name in LAYERS[0]:
        assert len((ROOT / f"{name}.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize(
    ("words", "homes"),
    [('("train", "val", "test")', []), ('"val": ("val", ', ["sources.py"]), ('"drop", "majority"', ["__init__.py"])],
)
def test_sides_and_policies_are_spelt_in_one_place(words, homes):
    assert [path.name for path in (ROOT / "dr").glob("*.py") if words in path.read_text()] == homes


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("workers", {"pandas", "scipy", "matplotlib", "sklearn", "albumentations", "torch"}),
        ("prediction", {"scipy", "matplotlib", "sklearn", "albumentations", "pytorch_grad_cam"}),
    ],
)
def test_what_starts_often_imports_nothing_large(module, without):
    told = f"import sys; import dr.{module}; print(*sys.modules)"
    imported = subprocess.check_output([sys.executable, "-c", told], cwd=ROOT, text=True, timeout=60).split()
    assert "cv2" in imported
    assert not without & set(imported)
