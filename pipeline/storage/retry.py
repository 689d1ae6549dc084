"""Requests to servers that may be away, busy or broken for a while: tried again, for so long."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import NoReturn, TypeVar

from aiohttp import ClientError, ClientResponseError
from botocore.exceptions import ConnectionError as RefusedError
from botocore.exceptions import HTTPClientError
from s3fs.core import S3_RETRYABLE_ERRORS
from tenacity import RetryCallState, Retrying, before_sleep_log, retry_if_exception, stop_after_delay, wait_random_exponential

from pipeline.errors import RunError, one_line
from pipeline.monitoring import telemetry

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Nobody answers, or not to the end: none of them is an OSError.
UNREACHABLE = (RefusedError, HTTPClientError, ClientError)

# What s3fs makes of an answer that the request itself earned: another try gets the same.
_PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_PERMANENT_ERRNOS = {errno.EINVAL, errno.EPERM, errno.ENOSYS}
_BUSY = {408, 425, 429}  # the answers among HTTP's 4xx that are no fault of the request


class StorageTimeoutError(RunError, OSError):
    """A server did not come back for as long as it was waited for."""


def retry(work: Callable[[], T], seconds: float, place: str) -> T:
    """Does what may fail because a server is away, again and again until it works.

    Args:
        seconds: after which it is given up.
        place: what is asked for, for the error.

    Raises:
        AwayError: if it was given up; any other error of `work`, where another try would fail as well, at once.
    """

    def give_up(state: RetryCallState) -> NoReturn:
        error = state.outcome.exception() if state.outcome is not None else None
        why = "" if error is None else f" ({one_line(error)})"
        raise StorageTimeoutError(f"{place} has not answered for {seconds:g} seconds{why}") from error

    return Retrying(
        retry=retry_if_exception(_is_transient),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        stop=stop_after_delay(seconds),
        before_sleep=_note,
        retry_error_callback=give_up,
    )(work)


def _note(state: RetryCallState) -> None:
    telemetry.count("hdm_storage_retries")
    before_sleep_log(_log, logging.WARNING)(state)


def _is_transient(error: BaseException) -> bool:
    """Whether what raised this may work a little later."""
    if isinstance(error, OSError):
        return not isinstance(error, _PERMANENT) and error.errno not in _PERMANENT_ERRNOS
    if isinstance(error, ClientResponseError) and 400 <= error.status < 500:
        return error.status in _BUSY
    return isinstance(error, (*S3_RETRYABLE_ERRORS, *UNREACHABLE))
