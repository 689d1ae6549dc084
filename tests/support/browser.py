"""A real browser, for tests of HTML pages."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

# A name or a message that runs as a script if a page does not escape it.
HOSTILE = '<script>alert("x")</script>'


def chromium(profile: Path, *arguments: str) -> str:
    """Run headless Chromium and return its output; skip the test without it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not on PATH: no browser to open the page with")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
    completed = subprocess.run(
        [program, *flags, f"--user-data-dir={profile}", *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return completed.stdout


def text_of(page: str) -> str:
    """Return the text of a page, without tags."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)).split())
