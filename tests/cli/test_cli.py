import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dr import POLICIES, UsageError
from dr.cli import run as cli

ROOT = Path(__file__).parents[2]


def exit_code(main):
    with pytest.raises(SystemExit) as exit_info:
        cli.run(main, go_on="start again")
    return exit_info.value.code


def raising(error):
    def main():
        raise error

    return main


def test_the_code_of_main_is_the_code_of_the_script():
    assert exit_code(lambda: 0) == 0
    assert exit_code(lambda: 1) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UsageError("data: it is empty; fill it"), "error: data: it is empty; fill it\n"),
        (OSError(errno.ENOSPC, "No space left", "a.jpeg"), "error: a.jpeg: the disk is full; "),
        (OSError(errno.EROFS, "Read-only", "a.jpeg"), "error: a.jpeg: it is read-only; "),
        (
            ModuleNotFoundError("No module", name="cv2"),
            "error: cv2 is not installed; use the environment of `make env`",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a.jpeg"), "error: a.jpeg: permission denied; "),
    ],
)
def test_what_the_user_must_change_is_one_line_and_code_2(capsys, error, message):
    assert exit_code(raising(error)) == 2
    told = capsys.readouterr().err
    assert told.startswith(message)
    assert told.count("\n") == 1


def test_ctrl_c_says_how_to_go_on(capsys):
    assert exit_code(raising(KeyboardInterrupt())) == 130
    assert "stopped; start again" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_sigterm_ends_as_ctrl_c_does_with_a_code_of_its_own(capsys):
    before = signal.getsignal(signal.SIGTERM)

    def main():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    assert exit_code(main) == 143
    assert capsys.readouterr().err == "\nstopped; start again\n"
    assert signal.getsignal(signal.SIGTERM) == before  # a notebook goes on


def test_a_script_runs_in_another_thread_too():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(exit_code(lambda: 0)))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_mistake_of_the_program_keeps_its_traceback_and_has_a_code_of_its_own(capsys):
    assert exit_code(raising(ZeroDivisionError())) == 3
    assert "Traceback" in capsys.readouterr().err


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError("CUDA out of memory"), "error: memory ran out; give a smaller --batch_size, and start again"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "error: memory ran out; give"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: memory ran out; give"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "error: memory ran out; give"),
        (MemoryError(), "error: memory ran out; give"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error"), "give fewer --workers, or 0"),
    ],
)
def test_failures_of_torch_that_people_meet_name_the_flag_to_change(capsys, error, message):
    assert exit_code(raising(error)) == 2
    assert message in capsys.readouterr().err


def test_the_published_commands_need_no_other_flags():
    data = cli.parser("data", description="").parse_args(["-m", "A", "-a", "B", "-d", "D"])
    assert (data.zip_main, data.zip_2015, data.directory) == ("A", "B", "D")
    assert (data.size, data.per_class, data.val_fraction, data.seed, data.conflicts) == (512, None, 0.2, 10, "drop")
    train = cli.parser("train", description="").parse_args(["-b", "4", "-e", "2"])
    assert (train.batch_size, train.epochs, train.data, train.save) == (4, 2, "data", "weights")
    predict = cli.parser("predict", description="").parse_args([])
    assert predict.model == [f"weights/{cli.name_of(train.recipe)}__best.pt"]
    assert cli.name_of("lite0") == cli.name_of("mine/lite0.toml") == "lite0"
    assert (predict.images, predict.output) == ("results/images", "results")


def test_words_stand_for_numbers_where_the_help_says_so():
    args = cli.parser("data", description="").parse_args(["--per_class", "all", "-a", "none"])
    assert (args.per_class, args.zip_2015) == ("all", "none")


def test_a_count_that_is_neither_a_number_nor_all_says_what_was_expected():
    with pytest.raises(UsageError, match="argument --per_class: expected a number or all, got 'few'; see data"):
        cli.parser("data", description="").parse_args(["--per_class", "few"])


def test_the_policies_offered_are_those_that_exist():
    for policy in POLICIES:
        assert cli.parser("data", description="").parse_args(["--conflicts", policy]).conflicts == policy
    with pytest.raises(UsageError, match="invalid choice: 'guess'"):
        cli.parser("data", description="").parse_args(["--conflicts", "guess"])


@pytest.mark.parametrize("shares", ["0.5,0.6", "1.5,-0.5", "half,half", "nan,1", "", "0.9"])
def test_a_prevalence_that_is_none_is_told(shares):
    with pytest.raises(UsageError, match="argument --prevalence: expected auto, or a share of each class"):
        cli.parser("predict", description="").parse_args([f"--prevalence={shares}"])


def test_a_prevalence_sums_to_one():
    args = cli.parser("predict", description="").parse_args(["--prevalence", "0.33,0.33,0.33"])
    assert args.prevalence == pytest.approx((1 / 3,) * 3)


SCRIPT = """
import atexit, sys
from dr.cli import run as cli

class Held:
    def __del__(self):
        sys.stderr.write("taken apart")

held = Held()

def main():
    atexit.register(print, "cleared up")
    print("done")
    return 1

cli.run(main, go_on="start again", owns_process=True)
"""


def ended(*words):
    """A command with the repository's packages, run to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_script_clears_up_and_ends_without_being_taken_apart(script):
    run = ended(sys.executable, script)
    assert (run.returncode, run.stdout, run.stderr) == (1, "done\ncleared up\n", "")


def test_a_script_run_within_another_process_does_not_end_that_one(script):
    within = ["try:", f"    runpy.run_path({str(script)!r}, run_name='__main__')", "except SystemExit as left:"]
    run = ended(sys.executable, "-c", "\n".join(["import runpy", *within, "    print(left.code)"]))
    assert (run.returncode, run.stdout) == (0, "done\n1\ncleared up\n")


@pytest.mark.parametrize("name", ["data", "train", "predict"])
def test_help_is_no_failure(name):
    assert ended(sys.executable, ROOT / f"{name}.py", "--help").returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_is_no_failure(script, closed):
    script.write_text(SCRIPT.replace("return 1", 'print("told", file=sys.stderr)\n    return 0'))
    assert ended("sh", "-c", f"exec {sys.executable} {script} {closed}").returncode == 0


def test_output_that_nobody_reads_is_told_by_python_alone(script):
    run = ended("sh", "-c", f"(sleep 0.5; env -u PYTHONUNBUFFERED {sys.executable} {script}) | true")
    assert run.stderr.count("BrokenPipeError") == 1
    assert "Traceback" not in run.stderr


def test_a_pipe_that_ends_in_the_middle_is_one_line_and_code_2(script):
    script.write_text(SCRIPT.replace('print("done")', 'print("x" * 100_000, flush=True)'))
    run = ended("bash", "-c", f"set -o pipefail; {sys.executable} {script} | head -c 1")
    assert run.returncode == 2
    assert run.stderr == "error: what read the output has ended; start again\n"


FORKING = """
    import os
    if not os.fork():
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    return 1
"""


def test_a_forked_process_ends_with_its_own_code(script):
    script.write_text(SCRIPT.replace("    return 1\n", FORKING))
    run = ended(sys.executable, script)
    assert (run.returncode, run.stdout.splitlines()[-2:]) == (1, ["7", "cleared up"])


def test_a_missing_module_of_our_own_is_a_mistake_of_the_program():
    assert exit_code(raising(ModuleNotFoundError("No module", name="dr.nothing"))) == 3
