"""Files are complete or absent, also if several processes write them at once."""

import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from dr import UsageError
from dr.core import files


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
    refused = pytest.raises(UsageError, match=r"run__last\.pt: another process writes it; wait until it ends")
    with refused, files.lock_file(path, wait=False):
        pass
    holder.kill()
    holder.communicate()
    with files.lock_file(path, wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_does_not_hold_the_lock_of_its_parent(tmp_path):
    path = tmp_path / "run__last.pt"
    holder = python(f"""
        import os, time
        from pathlib import Path
        from dr.core import files
        with files.lock_file(Path({str(path)!r}), wait=False):
            if os.fork() == 0:
                print("held", flush=True)
                time.sleep(5)
                os._exit(0)
            time.sleep(60)
        """)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with files.lock_file(path, wait=False):
        pass
    assert list(tmp_path.iterdir()) == []
    holder.communicate()


def test_a_folder_that_may_not_be_written_to_is_not_locked(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with files.lock_folder(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_runs_that_end_together_are_all_in_the_table(tmp_path):
    process = python(f"""
        import os
        from pathlib import Path
        from dr.training import runs_csv
        child = os.fork()  # one import of torch for both
        name = "b" if child else "a"
        for number in range(15):
            runs_csv.append_run(Path({str(tmp_path / "runs.csv")!r}), {{"name": f"{{name}}{{number}}"}})
        if child:
            raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """)
    assert (process.communicate(), process.returncode) == (("", None), 0)
    names = pd.read_csv(tmp_path / "runs.csv")["name"].tolist()
    assert sorted(names) == sorted(f"{name}{number}" for name in "ab" for number in range(15))
