"""Results and failures of tasks, as the walk through a run sees them."""

from __future__ import annotations

import pytest
from prefect.states import Completed, Failed

from flows.run_tasks import StepFailedError, result_of
from pipeline.errors import InputError


def test_the_result_of_a_task_is_its_value_or_its_message() -> None:
    assert result_of(Completed(data=3)) == 3
    with pytest.raises(StepFailedError, match="no such folder"):
        result_of(Failed(message="no such folder"))
    with pytest.raises(StepFailedError, match=r"^the dataset is empty$"):
        result_of(Failed(message="Task run encountered an exception", data=InputError("the dataset is empty")))
    with pytest.raises(StepFailedError, match=r"^the storage is full$"):
        result_of(Failed(message="the storage is full", data=ValueError("something else")))
