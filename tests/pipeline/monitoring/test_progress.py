"""Progress: rates, the time left, a bar on a terminal and lines elsewhere."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.monitoring import progress
from pipeline.monitoring.progress import Progress, ProgressTracker, clock, progress_bar, throttle
from pipeline.training.progress import EpochTracker


def of_run(done: int = 2, rate: float | None = 10.0, time_left: float | None = 30.0, total: int = 8) -> Progress:
    return Progress(done, total, "images", rate, time_left)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (0.6, "0:00:01"), (59.4, "0:00:59"), (3723, "1:02:03"), (360_000, "100:00:00"), (59.6, "0:01:00")]
)
def test_the_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_line() -> None:
    assert of_run().line() == "2 of 8 images, 10.0 passes/s, 0:00:30 left"
    assert of_run(rate=0.0, time_left=None).line() == "2 of 8 images, 0.0 passes/s"


# The tracker


def test_while_models_load_nothing_is_known_and_the_time_does_not_count() -> None:
    now = Clock()
    tracker = ProgressTracker(0, 4, 400, now)
    for _ in range(3):
        now.time += 50
        assert tracker.progress(0) == of_run(0, 0.0, None, total=4)
    now.time += 10
    assert tracker.progress(50) == of_run(0, 5.0, 350 / 5.0, total=4)


def test_until_the_first_image_is_done_the_end_is_known_from_passes() -> None:
    now = Clock()
    tracker = ProgressTracker(0, 4, 400, now)
    now.time += 10
    assert tracker.progress(100) == of_run(0, 10.0, 30.0, total=4)
    assert tracker.progress(400).time_left is None  # what is left, such as the metrics, no pass measures


def test_after_the_first_image_it_is_known_from_images() -> None:
    now = Clock()
    tracker = ProgressTracker(0, 4, 400, now)
    now.time += 20
    tracker.finished(1)
    assert tracker.progress(100) == of_run(1, 5.0, 60.0, total=4)  # three more at 20 seconds each
    now.time += 5
    assert tracker.progress(120).time_left == 55.0
    now.time += 100
    assert tracker.progress(120).time_left == 0.0


def test_images_of_earlier_drivers_are_done_but_say_nothing_of_the_speed() -> None:
    now = Clock()
    tracker = ProgressTracker(6, 10, 400, now)
    now.time += 10
    assert tracker.progress(100).done == 6
    tracker.finished(2)
    assert tracker.progress(200) == of_run(8, 20.0, 10.0, total=10)  # two took 10 seconds, so the last two will


@given(st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 3)), min_size=1, max_size=6))
def test_whatever_comes_in_the_run_ends_at_its_last_image(steps: list[tuple[float, int]]) -> None:
    now, images = Clock(), sum(count for _, count in steps)
    tracker = ProgressTracker(0, images, 10 * images, now)
    for seconds, count in steps:
        now.time += seconds
        tracker.finished(count)
        left = tracker.progress(1).time_left
        assert left is not None
        assert left >= 0
    assert tracker.progress(1).done == images
    assert tracker.progress(1).time_left == 0.0


def test_a_run_of_which_every_image_is_unreadable_comes_to_an_end() -> None:
    now = Clock()
    tracker = ProgressTracker(0, 2, 400, now)
    now.time += 1
    tracker.finished(2)
    assert tracker.progress(0) == of_run(2, 0.0, 0.0, total=2)


# What is shown


def test_only_now_and_then_but_always_when_an_image_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = Clock(), []
    monkeypatch.setattr(progress.time, "monotonic", now)
    on_progress = throttle(10, seen.append)
    for moment, done in ((100, 0), (101, 0), (109.9, 0), (110, 0), (111, 1), (112, 1), (121, 1), (121.5, 2)):
        now.time = moment
        on_progress(of_run(done, time_left=moment))
    assert [(s.done, s.time_left) for s in seen] == [(0, 100), (0, 110), (1, 111), (1, 121), (2, 121.5)]


def test_lines_where_there_is_no_terminal() -> None:
    pipe = io.StringIO()
    with progress_bar(Console(file=pipe, width=30)) as on_progress:
        on_progress(Progress(0, 8, "images", note="starting workers"))
        on_progress(of_run(1))
        on_progress(of_run(1))
        on_progress(of_run(2))
        on_progress(Progress(3, 9, "maps"))
    assert pipe.getvalue().splitlines() == [f"{done} of 8 images, 10.0 passes/s, 0:00:30 left" for done in (1, 2)]


def test_a_bar_on_a_terminal() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as on_progress:
        on_progress(of_run(3))
    shown = terminal.getvalue()
    assert "3/8" in shown
    assert "10.0 passes/s, 0:00:30 left" in shown


def test_a_bar_that_has_nothing_to_say_of_the_end() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as on_progress:
        on_progress(of_run(0, rate=0.0, time_left=None))
    assert "0.0 passes/s" in terminal.getvalue()
    assert "left" not in terminal.getvalue()


def test_before_the_first_pass_the_bar_names_the_reason() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as on_progress:
        on_progress(Progress(0, 8, "images", note="starting workers"))
    assert "starting workers" in terminal.getvalue()
    assert "passes/s" not in terminal.getvalue()


def test_every_unit_has_a_bar_of_its_own() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as on_progress:
        on_progress(Progress(0.5, 4, "epochs"))
        on_progress(of_run(3))
    assert all(text in terminal.getvalue() for text in ("epochs", "0/4", "images", "3/8"))


# Trainings

ENTRY = {"epoch": 2, "stage": 0, "loss": 0.51234, "seconds": 1.25, "validation_accuracy": 0.75}


def test_a_training_is_shown_by_its_epochs() -> None:
    now = Clock()
    tracker = EpochTracker(1, 4, now)
    assert tracker.progress(1).time_left is None, "nothing is known of the speed"
    now.time += 30
    within = tracker.progress(1.5)
    assert within.line() == "epoch 2 of 4: 50%"
    assert within.time_left == pytest.approx(150.0), "half an epoch took 30 seconds"
    ended = tracker.progress(2, ENTRY)
    assert ended.line() == "epoch 2 of 4: loss 0.5123, validation accuracy 0.7500, 1.2 s"


def test_the_lines_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pipe = Clock(), io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", now)
    tracker = EpochTracker(0, 2, now)
    with progress_bar(Console(file=pipe)) as on_progress:
        for seconds, done, entry in ((1, 0.25, None), (2, 0.5, None), (11, 0.75, None), (12, 1, ENTRY | {"epoch": 1}), (13, 1.5, None)):
            now.time = 1000.0 + seconds
            on_progress(tracker.progress(done, entry))
    assert pipe.getvalue().splitlines() == [
        "epoch 1 of 2: 75%",  # one in ten seconds within an epoch
        "epoch 1 of 2: loss 0.5123, validation accuracy 0.7500, 1.2 s",
    ]


def test_a_terminal_shows_the_metrics_of_every_epoch_above_the_bar() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as on_progress:
        on_progress(EpochTracker(1, 4).progress(2, ENTRY))
    assert "epoch 2 of 4: loss 0.5123, validation accuracy 0.7500, 1.2 s" in terminal.getvalue()
    assert "2/4" in terminal.getvalue()
