"""The files of a training run, FOLDER/NAME__ENDING, and what becomes of them when its name is used again."""

import glob
from itertools import count
from pathlib import Path

PICTURES = ("curves", "classes", "split", "confusion", "test_confusion", "scores", "reliability")


class RunFiles:
    """Where a run of this name keeps each of its files."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.best = self._path("best.pt")  # the checkpoint of the best epoch, which predict.py takes
        self.last = self._path("last.pt")  # that of the last epoch, with all that --resume needs
        self.history = self._path("history.csv")  # a row for each epoch
        self.classes = self._path("classes.csv")  # a row for each class, when the run has come to its end
        self.card = self._path("card.md")
        self.report = self._path("report.html")

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.name}__{ending}"

    def epoch(self, number: int) -> Path:
        """The checkpoint of an epoch that the recipe keeps."""
        return self._path(f"epoch_{number}.pt")

    def picture(self, what: str) -> Path:
        """One of PICTURES."""
        return self._path(f"{what}.png")

    def can_be_resumed(self) -> bool:
        """Whether an epoch was finished."""
        return self.last.is_file() and self.best.is_file()

    def interrupted(self) -> bool:
        """Whether they are of a run that has not come to its end; a finished one is another run."""
        return self.last.is_file() and not self.classes.is_file()

    def present(self) -> list[Path]:
        """Those that are there."""
        mine = RunFiles(self.folder, glob.escape(self.name))
        one = (mine.best, mine.last, mine.history, mine.classes, mine.card, mine.report, *map(mine.picture, PICTURES))
        return [path for pattern in (*one, mine._path("epoch_*.pt")) for path in self.folder.glob(pattern.name)]

    def keep_previous(self) -> None:
        """Gives those that are there `previous` and a number: a new run does not destroy hours of work."""
        number = next(n for n in count(1) if not RunFiles(self.folder, f"{self.name}__previous_{n}").present())
        for path in self.present():
            path.replace(self._path(f"previous_{number}__{path.name.removeprefix(f'{self.name}__')}"))


def summary_lines(folder: str, name: str) -> list[str]:
    """-> what a person looks at first of the files of a run, and what predict.py asks for."""
    paths = RunFiles(Path(folder), name)
    return [f"wrote {paths.report}", f"saved {paths.best}"]
