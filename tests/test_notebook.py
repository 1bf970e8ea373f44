"""The Kaggle notebook runs whole, on a small imitation of Kaggle's folders, without internet."""

import ast
import os
import re
import runpy
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from packaging.requirements import Requirement

from dr.cli.parser import make_parser
from dr.networks.build import build
from dr.recipes.schema import Recipe
from dr.synthetic import demo

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "kaggle_submission.ipynb"
WHEELS = runpy.run_path(str(ROOT / "notebooks" / "wheels.py"))
TINY = ["-b", "10", "-e", "2", "--set", "backbone=test_efficientnet", "--set", "image_size=64", "--set",
        "augmentation=none", "--workers", "1", "--device", "cpu"]  # fmt: skip


def snapshot(folder: Path) -> dict[str, int]:
    """Every path below a folder and when it was last written."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def mounted(inputs: Path) -> dict[str, str]:
    """Fill a folder as Kaggle mounts inputs -> the paths in the notebook's cell of parameters."""
    demo.make_archives(inputs, main=60, extra=40, test=10, size_px=(160, 220))
    for name, archive in {"competition": demo.MAIN_ZIP, "resized": demo.EXTRA_ZIP}.items():
        shutil.unpack_archive(inputs / archive, inputs / name)
        (inputs / archive).unlink()
    repository = inputs / "retinopathy-grading"
    for name in ("dr", "notebooks"):
        shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data.py", "train.py", "predict.py", "requirements.txt"):
        shutil.copy(ROOT / name, repository)
    recipe = Recipe(backbone="test_efficientnet", pretrained="none", image_size=64)
    torch.save(build(recipe, num_outputs=1).backbone.state_dict(), inputs / "weights.pth")
    (inputs / "wheels").mkdir()
    retina = inputs / "competition" / "kaggle_retina"
    return {
        "COMPETITION": str(inputs / "competition"),
        "TEST_IMAGES": str(retina / "test"),
        "SAMPLE_SUBMISSION": str(retina / "sample_submission.csv"),
        "IMAGES_2015": str(inputs / "resized"),
        "REPOSITORY": str(repository),
        "PRETRAINED": str(inputs / "weights.pth"),
        "WHEELS": str(inputs / "wheels"),
    }


def with_parameters(parameters: dict) -> nbformat.NotebookNode:
    """The notebook with a cell after the one tagged `parameters` that sets other values, as papermill does."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    [place] = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    assignments = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(assignments))
    return notebook


@pytest.fixture
def offline(monkeypatch):
    """No internet, and Python writes no cache beside the modules, as in a read-only folder."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.fixture
def kaggle(tmp_path, offline):
    """Folders in place of Kaggle's -> the notebook's parameters."""
    parameters = mounted(tmp_path / "input")
    for path in [tmp_path / "input", *(tmp_path / "input").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for name in ("working", "temp"):
        (tmp_path / name).mkdir()
    small = {"NAME": "tiny", "DATA_FLAGS": ["--per_class", "8", "--size", "64", "--workers", "1"], "TRAIN_FLAGS": TINY,
             "PREDICT_FLAGS": ["--workers", "1", "--device", "cpu"]}  # fmt: skip
    yield parameters | {"WORKING": str(tmp_path / "working"), "SCRATCH": str(tmp_path / "temp")} | small
    for path in [tmp_path / "input", *(tmp_path / "input").rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


@pytest.mark.slow
def test_the_notebook_goes_from_data_to_a_submission_and_leaves_its_inputs_alone(kaggle, tmp_path):
    before = snapshot(tmp_path / "input")
    notebook = with_parameters(kaggle)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    if "KEEP_NOTEBOOK" in os.environ:  # for inspection
        nbformat.write(notebook, os.environ["KEEP_NOTEBOOK"])
    assert snapshot(tmp_path / "input") == before
    sample = pd.read_csv(kaggle["SAMPLE_SUBMISSION"])
    submission = pd.read_csv(tmp_path / "working" / "submission.csv")
    assert list(submission.columns) == ["id_code", "diagnosis"]
    assert submission["id_code"].tolist() == sample["id_code"].tolist()
    assert submission["diagnosis"].between(0, 4).all()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) == 5  # class balance, crops, curves, confusion, scores
    texts = "".join(output.get("text", "") for output in outputs)
    assert "missing here: nothing" in texts
    assert "submission.csv: 10 images" in texts


def execute(cells, **parameters):
    """The definitions of the notebook's first cells, with these parameters."""
    space = dict(parameters)
    for cell in cells:
        exec(cell.source, space)
    return space


def test_a_script_that_fails_stops_the_notebook(tmp_path, capsys):
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"][:2]
    names = ("COMPETITION", "TEST_IMAGES", "SAMPLE_SUBMISSION", "IMAGES_2015", "PRETRAINED", "WHEELS")
    paths = {name: str(tmp_path) for name in names}
    space = execute(cells[1:], **paths, REPOSITORY=str(ROOT), WORKING=str(tmp_path))
    with pytest.raises(RuntimeError, match=r"data\.py failed with exit code 2; see the lines above"):
        space["run"]("data.py", "--size", "few")
    assert "error: argument --size: invalid int value: 'few'" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"not mounted: /kaggle/input/.*; correct the paths above"):
        execute(cells)


def test_the_flags_of_the_notebook_exist():
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    texts = [node.value for cell in cells for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Constant)]
    used = {text for text in texts if isinstance(text, str) and re.fullmatch(r"--?[a-z]\w*", text)}
    parsers = [make_parser(script, description=None) for script in ("data", "train", "predict")]
    assert {"-m", "--pretrained", "--submission"} <= used
    assert used <= {flag for parser in parsers for action in parser._actions for flag in action.option_strings}


def test_the_notebook_is_saved_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


def compare(wanted, installed):
    return WHEELS["compare"]([Requirement(text) for text in wanted], installed)


def test_only_what_the_image_lacks_is_installed():
    wanted = ["timm>=1.0.19,<1.1", "albumentations>=2.0.8", "jinja2>=3.1", "opencv-python-headless>=4.10"]
    installed = {"timm": "1.0.22", "albumentations": "1.4.3", "opencv-python": "4.12.0.88"}
    missing, kept, _ = compare(wanted, installed)
    assert missing == ["albumentations>=2.0.8", "jinja2>=3.1"]
    assert kept == ["timm==1.0.22"]


@pytest.mark.parametrize(("version", "noted"), [("2.8.0+cu126", True), ("2.12.1+cu130", False)])
def test_the_torch_of_the_image_is_never_replaced(version, noted):
    missing, kept, notes = compare(["torch>=2.11,<2.16"], {"torch": version})
    assert (missing, kept) == ([], [f"torch=={version}"])
    assert (f"note: torch {version} of this image is kept; tested with" in str(notes)) == noted


def test_an_image_without_torch_is_an_error():
    with pytest.raises(SystemExit, match="error: this image has no torch; use an image with PyTorch"):
        compare(["torch>=2.11"], {})


def test_requirements_of_other_pythons_and_comments_are_ignored():
    text = 'numpy>=2.0,<3  # of arrays\n\ntomli>=2; python_version < "3.0"\n'
    assert [str(requirement) for requirement in WHEELS["requirements"](text)] == ["numpy<3,>=2.0"]
