"""The Kaggle notebook runs whole, on a small imitation of Kaggle's folders, without internet."""

import ast
import os
import re
import runpy
import shutil
import zipfile
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


def mounts(inputs: Path, kind: str) -> dict[str, Path]:
    """The folders that Kaggle mounts: `new` by kind and owner, `old` all beside each other."""
    if kind == "old":
        return {name: inputs / name for name in ("competition", "resized", "code", "weights", "wheels")}
    folders = {name: inputs / "datasets" / "owner" / name for name in ("resized", "code", "weights", "wheels")}
    return folders | {"competition": inputs / "competitions" / "competition"}


def mounted(inputs: Path) -> Path:
    """Fill a folder as Kaggle mounts inputs -> the competition's folder of tables."""
    demo.make_archives(inputs, main=60, extra=40, test=10, size_px=(160, 220))
    folders = mounts(inputs, "new")
    for name, archive in {"competition": demo.MAIN_ZIP, "resized": demo.EXTRA_ZIP}.items():
        shutil.unpack_archive(inputs / archive, folders[name])
        (inputs / archive).unlink()
    for name in ("dr", "notebooks"):
        shutil.copytree(ROOT / name, folders["code"] / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data.py", "train.py", "predict.py", "requirements.txt"):
        shutil.copy(ROOT / name, folders["code"])
    recipe = Recipe(backbone="test_efficientnet", pretrained="none", image_size=64)
    folders["weights"].mkdir()
    torch.save(build(recipe, num_outputs=1).backbone.state_dict(), folders["weights"] / "weights.pth")
    return folders["competition"] / "kaggle_retina"


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
    mounted(tmp_path / "input")
    for path in [tmp_path / "input", *(tmp_path / "input").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for name in ("working", "temp"):
        (tmp_path / name).mkdir()
    small = {"NAME": "tiny", "DATA_FLAGS": ["--per_class", "8", "--size", "64", "--workers", "1"], "TRAIN_FLAGS": TINY,
             "PREDICT_FLAGS": ["--workers", "1", "--device", "cpu", "--explain", "0"]}  # fmt: skip
    folders = {"INPUT": "input", "WORKING": "working", "SCRATCH": "temp"}
    yield {name: str(tmp_path / folder) for name, folder in folders.items()} | small
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
    [sample] = (tmp_path / "input").rglob("sample_submission.csv")
    submission = pd.read_csv(tmp_path / "working" / "submission.csv")
    assert list(submission.columns) == ["id_code", "diagnosis"]
    assert submission["id_code"].tolist() == pd.read_csv(sample)["id_code"].tolist()
    assert submission["diagnosis"].between(0, 4).all()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pages = [output.data["text/html"] for output in outputs if "srcdoc" in output.get("data", {}).get("text/html", "")]
    assert [re.search("<summary>(.*?)</summary>", page)[1] for page in pages] == ["data", "tiny"]
    texts = "".join(output.get("text", "") for output in outputs)
    assert "missing here: nothing" in texts
    assert f"recipe published, starting from {tmp_path}/input/datasets/owner/weights/weights.pth" in texts
    assert "submission.csv: 10 images" in texts


def code(tag):
    """The source of the code cell with this text."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    [source] = [source for source in cells if tag in source]
    return source


def execute(*tags, **given):
    """The names that cells of the notebook define, after the cell of parameters and these values."""
    space = {}
    exec(code("FOLDS = "), space)
    space |= given
    for tag in tags:
        exec(code(tag), space)
    return space


FIND, TRAIN = "def holding", "recipe, start ="


@pytest.fixture
def inputs(tmp_path, request):
    """As much of Kaggle's inputs as the notebook looks at."""
    folders = mounts(tmp_path, request.param)
    for name, path in {
        "competition": "kaggle_retina/train.csv",
        "resized": "resized_train/trainLabels.csv",
        "code": "dr/__init__.py",
        "weights": "efficientnet_v2_m-dc08266a.pth",
        "wheels": "timm-1.0.22-py3-none-any.whl",
    }.items():
        (folders[name] / path).parent.mkdir(parents=True, exist_ok=True)
        (folders[name] / path).touch()
    for folder in (folders["competition"] / "kaggle_retina", folders["resized"] / "resized_train"):
        (folder / "train").mkdir()
    (folders["weights"] / "another.safetensors").touch()
    (folders["code"] / "train.py").touch()
    (folders["code"] / "weights").mkdir()
    (folders["code"] / "weights" / "fundus_lite.pt").touch()
    return folders


@pytest.mark.parametrize("inputs", ["old", "new"], indirect=True)
def test_inputs_are_found_by_content_in_old_and_new_mounts(inputs, tmp_path, capsys):
    found = execute(FIND, INPUT=str(tmp_path))["found"]
    assert found == {
        "competition": inputs["competition"] / "kaggle_retina",
        "repository": inputs["code"],
        "wheels": inputs["wheels"],
        "images of 2015": inputs["resized"] / "resized_train",
        "weights": inputs["weights"] / "efficientnet_v2_m-dc08266a.pth",
    }
    lines = capsys.readouterr().out.splitlines()
    assert f"competition     {inputs['competition']}/kaggle_retina" in lines
    assert f"weights         {found['weights']}   (of 2; PATHS chooses another)" in lines
    chosen = execute(FIND, INPUT=str(tmp_path), PATHS={"weights": "mine.pt", "images of 2015": "none"})["found"]
    assert (chosen["weights"], chosen["images of 2015"]) == ("mine.pt", "none")


@pytest.mark.parametrize("inputs", ["new"], indirect=True)
def test_archives_that_are_still_packed_are_found(inputs, tmp_path):
    for name, table in (("competition", "kaggle_retina/train.csv"), ("resized", "deep/trainLabels.csv")):
        shutil.rmtree(inputs[name])
        inputs[name].mkdir()
        with zipfile.ZipFile(inputs[name] / "any.zip", "w") as packed:
            packed.writestr(table, "")
    found = execute(FIND, INPUT=str(tmp_path))["found"]
    assert found["competition"] == inputs["competition"] / "any.zip"
    assert found["images of 2015"] == inputs["resized"] / "any.zip"


@pytest.mark.parametrize("inputs", ["new"], indirect=True)
def test_what_is_not_found_is_said_with_what_to_attach(inputs, tmp_path, capsys):
    shutil.rmtree(inputs["weights"])
    execute(FIND, INPUT=str(tmp_path))
    assert "weights         not found: optional; attach a dataset with efficientnet_v2_m-" in capsys.readouterr().out
    shutil.rmtree(inputs["competition"])
    with pytest.raises(FileNotFoundError, match=r"^competition: attach the competition \(Add Input, Competitions\)$"):
        execute(FIND, INPUT=str(tmp_path))


@pytest.mark.parametrize("inputs", ["new"], indirect=True)
def test_a_p100_is_refused_and_two_t4_train_together(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number=0: "Tesla")
    assert execute(FIND, INPUT=str(tmp_path))["PROCESSES"] == 2
    assert "GPUs            2 x Tesla" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 0))
    with pytest.raises(RuntimeError, match=r"Tesla: Kaggle's PyTorch no longer supports this GPU; choose .* GPU T4 x2"):
        execute(FIND, INPUT=str(tmp_path))


def trained(space, **given):
    """The commands that the cell of training runs, and the pages that it shows."""
    commands, pages = [], []
    space |= given | {"run": lambda *flags, **options: commands.append(([*map(str, flags)], options))}
    space["show"] = lambda page, title: pages.append(title)
    exec(code(TRAIN), space)
    return commands, pages


@pytest.mark.parametrize("inputs", ["new"], indirect=True)
def test_without_weights_a_lite_network_is_trained(inputs, tmp_path, capsys, monkeypatch):
    shutil.rmtree(inputs["weights"])
    space = execute(FIND, INPUT=str(tmp_path))
    own = inputs["code"] / "weights" / "fundus_lite.pt"
    [(flags, _)], _ = trained(space)
    assert {"lite0_best", str(own)} <= {*flags}
    own.unlink()
    [(flags, _)], _ = trained(space)
    assert {"lite0_best", "imagenet"} <= {*flags}
    assert f"starting from {own}" in (said := capsys.readouterr().out)
    assert "recipe lite0_best, starting from the lite0 wheel" in said
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"weights: optional; attach .*, or the wheel of efficientnet-lite0-"):
        trained(space)


@pytest.mark.parametrize("inputs", ["new"], indirect=True)
def test_one_switch_trains_five_folds_and_predicts_with_all(inputs, tmp_path):
    space = execute(FIND, INPUT=str(tmp_path))
    commands, pages = trained(space, FOLDS=True, PROCESSES=2)
    assert [flags[flags.index("--fold") + 1] for flags, _ in commands] == [f"{k}/5" for k in range(1, 6)]
    assert pages == [f"run_{k}" for k in range(1, 6)]
    assert all(options == {"processes": 2} for _, options in commands)
    assert all(flags[flags.index("-b") + 1] == "9" for flags, _ in commands)  # 18 on both GPUs together
    exec(code("checkpoints ="), space)
    flags, _ = commands[-1]
    assert flags[:7] == ["predict.py", "-m", *(f"weights/run_{k}__best.pt" for k in range(1, 6))]
    assert flags[flags.index("--submission") + 1] == "auto"


@pytest.mark.parametrize("inputs", ["new"], indirect=True)
def test_a_script_that_fails_stops_the_notebook(inputs, tmp_path, capsys):
    space = execute(FIND, INPUT=str(tmp_path), WORKING=str(tmp_path))
    space["REPOSITORY"] = ROOT
    with pytest.raises(RuntimeError, match=r"data\.py failed with exit code 2; see the lines above"):
        space["run"]("data.py", "--size", "few")
    assert "error: argument --size: invalid int value: 'few'" in capsys.readouterr().out


# One call writes the whole line: those of two processes must not mix
ONE_LINE_EACH = """
import os
os.write(1, f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\\n".encode())
"""


@pytest.mark.slow
def test_processes_are_started_by_torchrun(tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text(ONE_LINE_EACH)
    space = {"WORKING": tmp_path, "REPOSITORY": tmp_path}
    source = code(FIND)
    exec(f"import os, shlex, subprocess, sys\n{source[source.index('def run(') : source.index('def show(')]}", space)
    space["run"]("script.py", processes=2)
    assert {"rank 0 of 2", "rank 1 of 2"} <= {*capsys.readouterr().out.splitlines()}


def test_the_flags_of_the_notebook_exist():
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    texts = [node.value for cell in cells for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Constant)]
    used = {text for text in texts if isinstance(text, str) and re.fullmatch(r"--?[a-z]\w*", text)}
    parsers = [make_parser(script, description=None) for script in ("data", "train", "predict")]
    used -= {"--standalone", "--nproc_per_node"}  # of torchrun
    assert {"-m", "--pretrained", "--submission", "--fold"} <= used
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
