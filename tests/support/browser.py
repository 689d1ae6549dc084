"""A real browser, for the tests that look at a page."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

# A name or a message that would run, if a page let it.
HOSTILE = '<script>alert("x")</script>'


def chromium(profile: Path, *arguments: str) -> str:
    """What the browser prints; the test is skipped where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not on PATH: no browser to look at the page with")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
    done = subprocess.run(
        [program, *flags, f"--user-data-dir={profile}", *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def text_of(page: str) -> str:
    """The page as it reads, without tags."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)).split())
