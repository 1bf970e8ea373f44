"""The package: a wheel, installed into a fresh environment, grades an image from another folder."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pandas as pd
import pytest
import torch
from made import checkpoint_content, write_images

from dr import __version__

ROOT = Path(__file__).parent.parent


def run(*arguments, cwd):
    finished = subprocess.run(
        list(map(str, arguments)), cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy to keep build folders out of the repository."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "dr", copy / "dr", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "requirements", copy / "requirements")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('dist')", cwd=copy)
    [path] = (copy / "dist").glob("*.whl")
    return path


def test_the_wheel_has_all_files_of_the_package_and_its_metadata(wheel):
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        [metadata] = [Parser().parsestr(packed.read(n).decode()) for n in names if n.endswith(".dist-info/METADATA")]
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "dr").rglob("*") if path.is_file()}
    assert {name for name in files if "__pycache__" not in name} == {name for name in names if name.startswith("dr/")}
    assert metadata["Version"] == __version__
    extras = {"dicom", "excel", "export", "heic", "labels", "log", "openvino", "test"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    required = metadata.get_all("Requires-Dist")
    assert any(line.startswith("torch<") for line in required)
    assert not [line for line in required if line.startswith(("openvino", "onnx")) and "extra ==" not in line]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="other folders in environments")
def test_an_installed_wheel_grades_an_image_from_another_folder(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    # the dependencies are those of this environment
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    elsewhere = tmp_path / "elsewhere"
    write_images(elsewhere / "images", [2])
    torch.save(checkpoint_content(), elsewhere / "tiny.pt")
    assert run(tmp_path / "env" / "bin" / "dr", "--version", cwd=elsewhere) == f"dr {__version__}\n"
    assert run(python, "-c", "import dr; print(dr.__file__)", cwd=elsewhere).startswith(site)
    flags = ("-m", "tiny.pt", "-i", "images", "-o", "out", "--device", "cpu", "--workers", "0")
    run(tmp_path / "env" / "bin" / "dr", "predict", *flags, cwd=elsewhere)
    result = pd.read_csv(elsewhere / "out" / "result.csv")
    assert result.columns.tolist() == ["id_code", "diagnosis"]
    assert result["id_code"].tolist() == ["image_0"]
    assert (elsewhere / "out" / "report.html").is_file()
