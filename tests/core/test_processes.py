import subprocess
import sys

from dr.core import processes

COMMAND = """
import sys, time
from dr.cli.run import importing, run_main
from dr.core import processes

def main():
    time.sleep(0.2)
    with importing("PyTorch"):
        pass
    print(*(time.monotonic() - processes.work_started() for _ in range(2)))
    return 0

run_main(main, go_on="start again")
"""


def test_the_first_work_of_a_command_counts_from_the_start_of_its_process_and_later_work_from_its_own(monkeypatch):
    ended = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=True)
    loading, times = ended.stdout.splitlines()
    first, second = map(float, times.split())
    assert first >= 0.2
    assert second < 0.1
    assert (loading, ended.stderr) == ("loading PyTorch ...", "")
    monkeypatch.setattr(processes, "IMPORTED_AT", 7.0)
    monkeypatch.setattr(processes, "_commands", 0)
    processes.command_starts()
    assert processes.work_started() == 7.0
    processes.command_starts()  # another one within a long-lived process
    assert processes.work_started() != 7.0
