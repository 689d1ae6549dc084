"""MkDocs hook: adds the generated pages and the repository's own pages to the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import api_pages
import command_reference
import config_reference
import method_table
import metric_table
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]

# Pages of the repository that lie outside docs/: path in the repository -> path in the site.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "infra/README.md": "infra.md",
}
PLACEHOLDERS = {
    "<!-- generated: methods -->": method_table.method_table,
    "<!-- generated: metrics -->": metric_table.metric_table,
}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def generated() -> dict[str, str]:
    """Return the generated pages: path in the site -> Markdown."""
    pages = {
        "reference/configuration.md": "# Configuration of a run\n\n" + config_reference.run_reference(),
        "reference/training.md": "# Configuration of a training\n\n" + config_reference.training_reference(),
        "reference/commands.md": "# Commands\n\n" + command_reference.command_reference(),
    }
    index = ["# Python API", "Everything listed here is public; all else may change without notice."]
    for package, line in api_pages.PACKAGES.items():
        pages[f"api/{package}.md"] = api_pages.api_page(package)
        index.append(f"- [`{package}`]({package}.md): {line}")
    pages["api/index.md"] = "\n\n".join(index[:2]) + "\n\n" + "\n".join(index[2:]) + "\n"
    return pages


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that do not lie in docs/."""
    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, content=relink((ROOT / source).read_text(), source, target)))
    for target, text in generated().items():
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in generated tables and turn links to the repository into links of the site."""
    for placeholder, make in PLACEHOLDERS.items():
        if placeholder in markdown:
            markdown = markdown.replace(placeholder, make())
    path = page.file.src_uri
    return markdown if page.file.generated_by else relink(markdown, f"docs/{path}", path)


def relink(markdown: str, source: str, target: str) -> str:
    """Rewrite the links of a page, leaving fenced code alone.

    Args:
        source: the page's path in the repository.
        target: its path in the site.
    """

    def rewrite(match: re.Match[str]) -> str:
        image, text, link = match.groups()
        path, _, anchor = link.partition("#")
        if not path or "://" in path:
            return match.group()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if place in OUTSIDE or place.startswith("docs/"):
            there = OUTSIDE.get(place, place.removeprefix("docs/"))
            there = posixpath.relpath(there, posixpath.dirname(target) or ".")
            return f"{image}[{text}]({there}{'#' + anchor if anchor else ''})"
        if (ROOT / place / "README.md").exists() and f"{place}/README.md" in OUTSIDE:
            there = posixpath.relpath(OUTSIDE[f"{place}/README.md"], posixpath.dirname(target) or ".")
            return f"{image}[{text}]({there})"
        return text if (ROOT / place).exists() else match.group()  # a file of the repository that is no page

    fence = re.compile(r"(^[ ]*```.*?^[ ]*```[ ]*$)", re.MULTILINE | re.DOTALL)
    parts = fence.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(rewrite, part) for number, part in enumerate(parts))
