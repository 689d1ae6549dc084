"""Section: the tests marked `gpu`, in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from infra.gpu.session import Facts, Session

ROOT = Path(__file__).parents[2]
_LINES, _WIDTH = 12, 200  # of the end of the log, where tests failed
# Warnings of versions that CI has not seen fail no test here, and no plugin is loaded that the machine happens to have.
_OPTIONS = ("-q", "-m", "gpu", "-W", "default", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--tb", "short", "-o", "timeout=60")


def check_tests(session: Session, facts: Facts) -> None:
    """Run the tests; store the exit status, the summary and the names of the failed."""
    log = session.out / "tests.log"
    command = [sys.executable, "-m", "pytest", *_OPTIONS, *session.sizes.tests]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"}
    try:
        with log.open("w") as output:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=session.left(), check=False
            )
        facts["rc"] = done.returncode
    except subprocess.TimeoutExpired:
        facts["rc"] = "no time"
    lines = log.read_text(errors="replace").strip().splitlines()
    facts["summary"] = lines[-1][:_WIDTH] if lines else ""
    facts["failed"] = failed_tests(lines)
    if facts["rc"] != 0:
        facts["last_lines"] = [line[:_WIDTH] for line in lines[-_LINES:]]


def failed_tests(lines: list[str]) -> list[str]:
    """Return the names of the tests that pytest's summary lists as failed."""
    found = [re.match(r"(?:FAILED|ERROR) (\S+)", line) for line in lines]
    return [match[1] for match in found if match]
