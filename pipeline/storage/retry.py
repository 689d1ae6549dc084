"""Retry transient storage errors with exponential backoff, up to a deadline."""

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

# Server unreachable, or connection lost during the answer: none of these is an OSError.
UNREACHABLE = (RefusedError, HTTPClientError, ClientError)

# s3fs's exceptions for errors of the request itself: a retry gets the same answer.
_PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_PERMANENT_ERRNOS = {errno.EINVAL, errno.EPERM, errno.ENOSYS}
_BUSY = {408, 425, 429}  # HTTP's 4xx codes that are not the request's fault


class StorageTimeoutError(RunError, OSError):
    """A server that did not answer before the deadline of the retries."""


def retry(work: Callable[[], T], timeout: float, url: str) -> T:
    """Call `work`, retrying transient errors for up to `timeout` seconds.

    Args:
        url: the requested object or folder, for the error.

    Raises:
        StorageTimeoutError: after `timeout` seconds. Other errors of `work`, which a retry would repeat, are raised at once.
    """

    def give_up(state: RetryCallState) -> NoReturn:
        error = state.outcome.exception() if state.outcome is not None else None
        why = "" if error is None else f" ({one_line(error)})"
        raise StorageTimeoutError(f"{url} has not answered for {timeout:g} seconds{why}") from error

    return Retrying(
        retry=retry_if_exception(_is_transient),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        stop=stop_after_delay(timeout),
        before_sleep=_count_retry,
        retry_error_callback=give_up,
    )(work)


def _count_retry(state: RetryCallState) -> None:
    telemetry.count("hdm_storage_retries")
    before_sleep_log(_log, logging.WARNING)(state)


def _is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed after this error."""
    if isinstance(error, OSError):
        return not isinstance(error, _PERMANENT) and error.errno not in _PERMANENT_ERRNOS
    if isinstance(error, ClientResponseError) and 400 <= error.status < 500:
        return error.status in _BUSY
    return isinstance(error, (*S3_RETRYABLE_ERRORS, *UNREACHABLE))
