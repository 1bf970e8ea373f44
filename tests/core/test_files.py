"""Files are whole or not there, also where several processes write them at once."""

import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from dr import UsageError
from dr.core import files
from dr.training.run_files import RunFiles


def python(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)


def test_a_file_that_another_process_holds_is_refused_until_that_process_ends_even_by_a_kill(tmp_path):
    path = tmp_path / "run__last.pt"
    holder = python(f"""
        import time
        from pathlib import Path
        from dr.core import files
        with files.lock_file(Path({str(path)!r}), wait=False):
            print("held", flush=True)
            time.sleep(60)
        """)
    assert holder.stdout.readline() == "held\n"
    refused = pytest.raises(UsageError, match=r"run__last\.pt: another process writes it; wait for its end")
    with refused, files.lock_file(path, wait=False):
        pass
    holder.kill()
    holder.communicate()
    with files.lock_file(path, wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_runs_that_end_together_all_stand_in_the_table(tmp_path):
    code = f"""
        from pathlib import Path
        from dr.training import runs_csv as runs_table
        for number in range(15):
            runs_table.append_run(Path({str(tmp_path / "runs.csv")!r}), {{"name": f"NAME{{number}}"}})
        """
    both = [python(code.replace("NAME", name)) for name in "ab"]
    assert [one.communicate() and one.returncode for one in both] == [0, 0]
    names = pd.read_csv(tmp_path / "runs.csv")["name"].tolist()
    assert sorted(names) == sorted(f"{name}{number}" for name in "ab" for number in range(15))


def test_a_new_run_keeps_the_files_of_the_old_one_and_of_no_other(tmp_path):
    for name in ("run__best.pt", "run__epoch_3.pt", "run__curves.png", "run_2__best.pt", "run__previous_1__best.pt"):
        (tmp_path / name).write_text(name)
    RunFiles(tmp_path, "run").keep_previous()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run_2__best.pt",
        "run__previous_1__best.pt",
        "run__previous_2__best.pt",
        "run__previous_2__curves.png",
        "run__previous_2__epoch_3.pt",
    ]
