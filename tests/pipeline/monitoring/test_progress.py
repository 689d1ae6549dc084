"""How far a run is: rates, the time left, a bar on a terminal and lines elsewhere."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.monitoring import progress
from pipeline.monitoring.progress import ProgressTracker, State, clock, progress_bar, throttle


def state(done: int = 2, rate: float = 10.0, time_left: float | None = 30.0) -> State:
    return State(done, images=8, rate=rate, time_left=time_left)


class Clock:
    """Seconds that pass when the test says so."""

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
    assert state().line() == "2 of 8 images, 10.0 passes/s, 0:00:30 left"
    assert state(rate=0.0, time_left=None).line() == "2 of 8 images, 0.0 passes/s"


# The stopwatch


def test_while_models_load_nothing_is_known_and_the_time_does_not_count() -> None:
    now = Clock()
    watch = ProgressTracker(0, 4, 400, now)
    for _ in range(3):
        now.time += 50
        assert watch.state(0) == State(0, 4, 0.0, None)
    now.time += 10
    assert watch.state(50) == State(0, 4, 5.0, 350 / 5.0)


def test_until_the_first_image_is_done_the_end_is_known_from_passes() -> None:
    now = Clock()
    watch = ProgressTracker(0, 4, 400, now)
    now.time += 10
    assert watch.state(100) == State(0, 4, 10.0, 30.0)
    assert watch.state(400).time_left is None  # what is left, such as the metrics, no pass measures


def test_after_the_first_image_it_is_known_from_images() -> None:
    now = Clock()
    watch = ProgressTracker(0, 4, 400, now)
    now.time += 20
    watch.finished(1)
    assert watch.state(100) == State(1, 4, 5.0, 60.0)  # three more at 20 seconds each
    now.time += 5
    assert watch.state(120).time_left == 55.0
    now.time += 100
    assert watch.state(120).time_left == 0.0


def test_images_of_earlier_drivers_are_done_but_say_nothing_of_the_speed() -> None:
    now = Clock()
    watch = ProgressTracker(6, 10, 400, now)
    now.time += 10
    assert watch.state(100).done == 6
    watch.finished(2)
    assert watch.state(200) == State(8, 10, 20.0, 10.0)  # two took 10 seconds, so the last two will


@given(st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 3)), min_size=1, max_size=6))
def test_whatever_comes_in_the_run_ends_at_its_last_image(steps: list[tuple[float, int]]) -> None:
    now, images = Clock(), sum(count for _, count in steps)
    watch = ProgressTracker(0, images, 10 * images, now)
    for seconds, count in steps:
        now.time += seconds
        watch.finished(count)
        left = watch.state(1).time_left
        assert left is not None
        assert left >= 0
    assert watch.state(1).done == images
    assert watch.state(1).time_left == 0.0


def test_a_run_of_which_every_image_is_unreadable_comes_to_an_end() -> None:
    now = Clock()
    watch = ProgressTracker(0, 2, 400, now)
    now.time += 1
    watch.finished(2)
    assert watch.state(0) == State(2, 2, 0.0, 0.0)


# What is shown


def test_only_now_and_then_but_always_when_an_image_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = Clock(), []
    monkeypatch.setattr(progress.time, "monotonic", now)
    show = throttle(10, seen.append)
    for moment, done in ((100, 0), (101, 0), (109.9, 0), (110, 0), (111, 1), (112, 1), (121, 1), (121.5, 2)):
        now.time = moment
        show(state(done, time_left=moment))
    assert [(s.done, s.time_left) for s in seen] == [(0, 100), (0, 110), (1, 111), (1, 121), (2, 121.5)]


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(Console(file=io.StringIO())) as show:
        show(state(1))
        show(state(1))
        show(state(2))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [f"{done} of 8 images, 10.0 passes/s, 0:00:30 left" for done in (1, 2)]


def test_a_bar_on_a_terminal() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as show:
        show(state(3))
    shown = terminal.getvalue()
    assert "3/8" in shown
    assert "10.0 passes/s, 0:00:30 left" in shown


def test_a_bar_that_has_nothing_to_say_of_the_end() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as show:
        show(state(0, rate=0.0, time_left=None))
    assert "0.0 passes/s" in terminal.getvalue()
    assert "left" not in terminal.getvalue()
