import contextlib
import sys

import pytest

from dr.core import progress


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, as a list of one number that tests advance."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_every_tenth_is_one_line(clock, capsys):
    for _ in progress.track(range(1000), desc="grading", unit="images"):
        clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert "\r" not in "".join(lines)
    assert lines[0] == "grading: 3 %, 30 of 1,000 images, 00:30 elapsed, 16:10 left"
    assert lines[-1] == "grading: 100 %, 1,000 of 1,000 images, 16:40 elapsed"
    clock[0] = 0
    for _ in progress.track(range(1000), desc="grading", unit="images"):
        clock[0] += 0.1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"grading: {10 * tenth} %" for tenth in range(1, 11)]


def test_a_loop_of_less_than_a_second_is_one_line_or_none(clock, capsys):
    for leave in (True, False):
        for _ in progress.track([1, 2, 3], desc="epoch 1", unit="batches", leave=leave):
            clock[0] += 0.1
        assert capsys.readouterr().err == ("epoch 1: 100 %, 3 of 3 batches, 00:00 elapsed\n" if leave else "")


def test_counting_starts_at_what_was_finished_before(clock, capsys):
    with progress.track(total=100, initial=50, desc="preprocessing", unit="images") as tracked:
        clock[0] = 5
        tracked.update(10)
    assert capsys.readouterr().err == "preprocessing: 60 %, 60 of 100 images, 00:05 elapsed, 00:20 left\n"
    with progress.track(total=100, initial=100, desc="preprocessing", unit="images"):
        pass
    assert capsys.readouterr().err == ""


def test_items_without_a_total_are_counted_by_time(clock, capsys):
    with progress.track(desc="reading", unit="members") as tracked:
        for _ in range(3):
            clock[0] += 20
            tracked.update(5)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 10 members, 00:40 elapsed",
        "reading: 15 members, 01:00 elapsed",
    ]


def test_a_loop_that_fails_ends_without_a_line(capsys):
    with contextlib.suppress(ZeroDivisionError), progress.track(total=3, desc="grading", unit="images") as tracked:
        tracked.update()
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.track([1, 2], desc="grading", unit="images")) == [1, 2]
    assert "grading: 100%|" in capsys.readouterr().err
