import pandas as pd
import pytest

from dr import UsageError
from dr.training import runs_csv
from dr.training.run_files import RunFiles, check_name, runs_csv_path


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def present(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_new_run_renames_the_files_of_the_old_one_and_of_no_other(tmp_path):
    write(tmp_path, "run__best.pt", "run/epoch_3.pt", "run/history.csv", "run/logs/events", "run/sweep.csv")
    others = ["run__previous_1/card.md", "run__previous_2__last.pt", "run_2__best.pt"]
    write(tmp_path, *others)
    RunFiles(tmp_path, "run").keep_previous()
    assert present(tmp_path) == sorted(
        [
            *others,
            "run/sweep.csv",
            "run__previous_3__best.pt",
            "run__previous_3/epoch_3.pt",
            "run__previous_3/history.csv",
            "run__previous_3/logs/events",
        ]
    )
    RunFiles(tmp_path, "run").keep_previous()
    assert not RunFiles(tmp_path, "run__previous_4").existing()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", "--name a/b: not a plain name; use a name without a path"),
        ("..", r"--name \.\.: not a plain name; use a name without a path"),
        ("", "--name : not a plain name"),
        ("runs.csv", r"--name runs\.csv: reserved for a file that train\.py writes; use another --name"),
        ("lite0__best.pt", r"--name lite0__best\.pt: reserved for a file"),
    ],
)
def test_names_that_cannot_be_those_of_a_run_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        check_name(name)


def test_a_file_or_folder_that_no_run_wrote_is_left_alone(tmp_path):
    write(tmp_path, "file", "photos/left.jpg", "run/sweep.csv", "old/history.csv")
    (tmp_path / "empty").mkdir()
    for name in ("run", "old", "empty", "new"):
        RunFiles(tmp_path, name).check_folder()
    with pytest.raises(UsageError, match="file: a file has the name of the run; use another --name"):
        RunFiles(tmp_path, "file").check_folder()
    with pytest.raises(UsageError, match="photos: not the folder of a run; use another --name"):
        RunFiles(tmp_path, "photos").check_folder()


def test_a_rerun_replaces_its_row_and_the_row_of_the_old_files_follows_them(tmp_path):
    path, paths = runs_csv_path(tmp_path), RunFiles(tmp_path, "run")
    for number in range(3):
        runs_csv.keep_previous(paths)
        write(tmp_path, "run__best.pt")
        runs_csv.append_run(path, {"name": "run", "finished": str(number), "lr": 0.1})
        runs_csv.append_run(path, {"name": "another", "finished": "9", "new_column": "x"})
    table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("name")
    names = {"run": "2", "run__previous_2": "1", "run__previous_1": "0", "another": "9"}
    assert table["finished"].to_dict() == names
    assert table.loc["run", "lr"] == "0.1"


def test_a_row_whose_files_were_removed_is_replaced(tmp_path):
    path = runs_csv_path(tmp_path)
    for number in range(2):
        runs_csv.keep_previous(RunFiles(tmp_path, "run"))
        runs_csv.append_run(path, {"name": "run", "finished": str(number)})
    assert path.read_text() == "name,finished\nrun,1\n"
