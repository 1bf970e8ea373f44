import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dr import POLICIES, UsageError, __version__
from dr.cli import parser
from dr.cli.docs import markdown
from dr.cli.run import run_main

ROOT = Path(__file__).parents[2]


def exit_code(main):
    with pytest.raises(SystemExit) as exit_info:
        run_main(main, go_on="start again")
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
        (UsageError("data: is empty; fill it"), "error: data: is empty; fill it\n"),
        (OSError(errno.ENOSPC, "No space left", "a.jpeg"), "error: a.jpeg: disk full; fix that and start again"),
        (OSError(errno.EROFS, "Read-only", "a.jpeg"), "error: a.jpeg: read-only file system; "),
        (
            ModuleNotFoundError("No module", name="cv2"),
            "error: cv2 is not installed; use the environment of `make env`, or pip install -r requirements.txt\n",
        ),
        (
            ModuleNotFoundError("No module", name="onnx.helper"),
            "error: onnx.helper is not installed; use the environment of `make env`, or pip install onnx onnxscript\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a.jpeg"), "error: a.jpeg: permission denied; "),
    ],
)
def test_a_usage_error_is_one_line_and_code_2(capsys, error, message):
    assert exit_code(raising(error)) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_ctrl_c_prints_how_to_continue(capsys):
    assert exit_code(raising(KeyboardInterrupt())) == 130
    assert "stopped; start again" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
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


def test_an_internal_error_keeps_its_traceback_and_has_its_own_code(capsys):
    assert exit_code(raising(ZeroDivisionError())) == 3
    assert "Traceback" in capsys.readouterr().err


class OutOfMemoryError(RuntimeError):
    """The class name that torch uses."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError("CUDA out of memory"), "error: out of memory; reduce --batch_size, and start again"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "error: out of memory; reduce"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: out of memory; reduce"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "error: out of memory; reduce"),
        (MemoryError(), "error: out of memory; reduce"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error"),
            "reduce --workers (0 disables them)",
        ),
    ],
)
def test_common_failures_of_torch_name_the_flag_to_change(capsys, error, message):
    assert exit_code(raising(error)) == 2
    assert message in capsys.readouterr().err


def test_the_published_commands_need_no_other_flags():
    data = parser.make_parser("data", description="").parse_args(["-m", "A", "-a", "B", "-d", "D"])
    assert (data.zip_main, data.zip_2015, data.directory) == ("A", "B", "D")
    assert (data.size, data.per_class, data.val_fraction, data.seed, data.conflicts) == (512, None, 0.2, 10, "drop")
    train = parser.make_parser("train", description="").parse_args(["-b", "4", "-e", "2"])
    assert (train.batch_size, train.epochs, train.data, train.save) == (4, 2, "data", "weights")
    predict = parser.make_parser("predict", description="").parse_args([])
    assert predict.model == [f"weights/{parser.name_of(train.recipe)}__best.pt"]
    assert parser.name_of("lite0") == parser.name_of("mine/lite0.toml") == "lite0"
    assert (predict.images, predict.output) == ("results/images", "results")


def test_all_and_none_are_accepted_where_the_help_names_them():
    args = parser.make_parser("data", description="").parse_args(["--per_class", "all", "-a", "none"])
    assert (args.per_class, args.zip_2015) == ("all", "none")


def test_a_count_that_is_neither_a_number_nor_all_names_what_was_expected():
    with pytest.raises(UsageError, match="argument --per_class: expected a number or all, got 'few'; see data"):
        parser.make_parser("data", description="").parse_args(["--per_class", "few"])


def test_every_policy_for_conflicts_is_accepted():
    for policy in POLICIES:
        assert parser.make_parser("data", description="").parse_args(["--conflicts", policy]).conflicts == policy
    with pytest.raises(UsageError, match="invalid choice: 'guess'"):
        parser.make_parser("data", description="").parse_args(["--conflicts", "guess"])


@pytest.mark.parametrize("shares", ["0.5,0.6", "1.5,-0.5", "half,half", "nan,1", "", "0.9"])
def test_shares_that_are_no_prevalence_are_refused(shares):
    with pytest.raises(UsageError, match="argument --prevalence: expected auto, or a share of each class"):
        parser.make_parser("predict", description="").parse_args([f"--prevalence={shares}"])


def test_a_prevalence_sums_to_one():
    args = parser.make_parser("predict", description="").parse_args(["--prevalence", "0.33,0.33,0.33"])
    assert args.prevalence == pytest.approx((1 / 3,) * 3)


SCRIPT = """
import atexit, sys
from dr.cli import parser
from dr.cli.docs import markdown
from dr.cli.run import run_main

class Held:
    def __del__(self):
        sys.stderr.write("destroyed")

held = Held()

def main():
    atexit.register(print, "cleared up")
    print("done")
    return 1

run_main(main, go_on="start again", owns_process=True)
"""


def ended(*words):
    """Run a command with the packages of the repository."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_script_runs_its_exit_handlers_and_destroys_no_objects(script):
    run = ended(sys.executable, script)
    assert (run.returncode, run.stdout, run.stderr) == (1, "done\ncleared up\n", "")


def test_a_script_run_within_another_process_does_not_end_that_one(script):
    within = ["try:", f"    runpy.run_path({str(script)!r}, run_name='__main__')", "except SystemExit as left:"]
    run = ended(sys.executable, "-c", "\n".join(["import runpy", *within, "    print(left.code)"]))
    assert (run.returncode, run.stdout) == (0, "done\n1\ncleared up\n")


@pytest.mark.parametrize("name", ["data", "train", "predict"])
def test_help_exits_with_0(name):
    assert ended(sys.executable, ROOT / f"{name}.py", "--help").returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_exits_with_0(script, closed):
    script.write_text(SCRIPT.replace("return 1", 'print("message", file=sys.stderr)\n    return 0'))
    assert ended("sh", "-c", f"exec {sys.executable} {script} {closed}").returncode == 0


def test_output_that_nobody_reads_is_reported_by_python_alone(script):
    run = ended("sh", "-c", f"(sleep 0.5; env -u PYTHONUNBUFFERED {sys.executable} {script}) | true")
    assert run.stderr.count("BrokenPipeError") == 1
    assert "Traceback" not in run.stderr


def test_a_pipe_that_ends_in_the_middle_is_one_line_and_code_2(script):
    script.write_text(SCRIPT.replace('print("done")', 'print("x" * 100_000, flush=True)'))
    run = ended("bash", "-c", f"set -o pipefail; {sys.executable} {script} | head -c 1")
    assert run.returncode == 2
    assert run.stderr == "error: the reader of the output has exited; start again\n"


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


def test_a_missing_module_of_our_own_is_an_internal_error():
    assert exit_code(raising(ModuleNotFoundError("No module", name="dr.nothing"))) == 3


def dr(*arguments):
    return ended(sys.executable, "-m", "dr", *arguments)


def test_the_command_dr_names_its_version_and_commands():
    assert dr("--version").stdout == f"dr {__version__}\n"
    shown = dr("-h")
    assert shown.returncode == 0
    assert all(f"  {name} " in shown.stdout for name in ("data", "train", "predict"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: no command; use one of data, train, predict, see dr --help\n"),
        (("grade",), "error: argument COMMAND: invalid choice: 'grade' (choose from "),
        (("data", "-m", "none.zip"), "error: none.zip: not found; pass the path of the archive or folder with -m\n"),
        (("train", "--colour"), "error: unrecognised flag --colour; see dr train --help\n"),
    ],
)
def test_wrong_arguments_of_dr_are_one_line_and_code_2(arguments, message):
    run = dr(*arguments)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert run.stderr.startswith(message)


def test_the_command_line_that_was_typed_is_recorded(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/train.py", "-r", "my recipe"])
    assert parser.command("train") == "python train.py -r 'my recipe'"
    monkeypatch.setattr(sys, "argv", ["dr train", "-e", "3"])
    assert parser.command("train") == "dr train -e 3"
    assert parser.make_parser("train", description="").prog == "dr train"


def test_the_help_names_each_default_once():
    text = " ".join(parser.make_parser("predict", description="").format_help().split())
    assert "images in a batch (default: 16)" in text
    assert "(default: the recipe's)" in text
    assert "do not write report.html" in text
    assert "(default: True)" not in text


def test_the_reference_of_the_command_line_is_current():
    assert (ROOT / "docs" / "cli.md").read_text() == markdown(), "run python -m dr.cli docs/cli.md"


def test_the_reference_has_every_flag():
    for script in ("data", "train", "predict"):
        for action in parser.make_parser(script, description="")._actions:
            assert action.dest == "help" or f"`{action.option_strings[-1]}" in markdown()
