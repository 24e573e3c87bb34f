"""Build the documentation site in `site/`: every page of this folder, README, experiments, gallery and reference.

Links are written for the repository. Here they are pointed at pages of the site, and those to files that are no pages
become plain text. The generator is given a folder of plain Markdown and `mkdocs.yml`: it can be changed.

    pip install . --group docs && python docs/make_site.py
"""

import html
import importlib
import json
import posixpath
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
BARS = re.compile(r"`([^`\n]*\\\|[^`\n]*)`")  # code with a bar, escaped as tables want it
PAGES = TOP / "build" / "site_pages"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def sources() -> dict[str, str]:
    """Pages and pictures: path in the repository, path in the site."""
    found = {
        "README.md": "index.md",
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
        "benchmarks/README.md": "benchmarks.md",
    }
    for folder, pattern in (("docs", "**/*"), ("experiments", "*/*"), ("examples", "*/*")):
        for path in sorted((TOP / folder).glob(pattern)):
            if path.suffix in (".md", ".png", ".webp", ".ipynb"):
                place = path.relative_to(TOP).as_posix()
                found[place] = place.removeprefix("docs/").replace("README.md", "index.md").replace(".ipynb", ".md")
    return found


def with_links(text: str, source: str, pages: dict[str, str]) -> str:
    """Point the links of a page at the site; fenced code stays."""
    fences = re.split(r"(^```.*?^```$)", text, flags=re.S | re.M)
    in_text = lambda t: BARS.sub(_bars, LINK.sub(lambda m: _link(m, source, pages), t))
    return "".join(t if t.startswith("```") else in_text(t) for t in fences)


def _bars(match: re.Match[str]) -> str:
    return f"<code>{html.escape(match.group(1)).replace(chr(92) + '|', '&#124;')}</code>"


def _link(match: re.Match[str], source: str, pages: dict[str, str]) -> str:
    picture, words, link, anchor = match.groups()
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    there = pages.get(place) or pages.get(f"{place}/README.md")
    if there is None:
        return words if (TOP / place).exists() and not picture else match.group()
    return f"{picture}[{words}]({posixpath.relpath(there, posixpath.dirname(pages[source]) or '.')}{anchor or ''})"


def notebook(path: Path, folder: Path) -> str:
    """Give a notebook as a page; its pictures go into the folder."""
    parts = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for place, output in enumerate(cell.get("outputs", ())):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            else:
                picture = f"{path.stem}_{number}_{place}.png"
                (folder / picture).write_bytes(b64decode(output["data"]["image/png"]))
                parts.append(f"![Output of the lines above]({picture})")
    return "\n\n".join(
        [*parts, f"This page is a notebook, `docs/notebooks/{path.name}`, that was run from top to bottom.\n"]
    )


def gallery() -> str:
    """Show what every demo draws and how it is judged, then the first picture of every experiment."""
    parts = [
        "# Gallery\n\nThe picture of every demo, and how far it is from the truth: `docs/make_gallery.py` makes them.\n"
    ]
    for method, lines in json.loads((TOP / "docs" / "gallery" / "demos.json").read_text(encoding="utf-8")).items():
        said = "\n".join(lines)
        parts.append(
            f"## [{method}]({page_of(method)})\n\n```\ndiffrecon demo {method}\n```\n\n"
            f"![{method}](gallery/{method}.webp)\n\n```text\n{said}\n```\n"
        )
    parts.append("# Experiments\n\nOne experiment a picture; each page has the command that makes it.\n")
    for page in sorted((TOP / "experiments").glob("*/README.md")):
        text = page.read_text(encoding="utf-8")
        pictures = re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", text)
        title = text.split("\n", 1)[0].lstrip("# ")
        if pictures:
            place = f"experiments/{page.parent.name}"
            parts.append(f"## [{title}]({place}/index.md)\n\n![{title}]({place}/{pictures[0]})\n")
    return "\n".join(parts)


def page_of(method: str) -> str:
    """Find the page of a demo: the one that names its command, in its first table where there is one."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((TOP / "docs").glob("*.md"))}
    words = f"see it work | `diffrecon demo {method}`", f"diffrecon demo {method}"
    return next((name for said in words for name, text in texts.items() if said in text), "quickstart.md")


def reference() -> Iterator[tuple[str, str]]:
    """One page a public module, each public name once: `(path in the site, text)`."""
    package, seen = importlib.import_module("diffrecon"), set()
    for name in [*package._MODULES, ""]:  # the package's own names last: most of them live in a module
        module = importlib.import_module(f"diffrecon.{name}".rstrip("."))
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        parts = [f"# {module.__name__}\n\n{(module.__doc__ or '').strip()}\n"]
        for public in sorted(names, key=str.lower):
            value = getattr(module, public)
            place = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
            if callable(value) and re.fullmatch(r"diffrecon\.[\w.]+", place) and place not in seen:
                seen.add(place)
                parts.append(f"::: {place}\n")
        if len(parts) > 1:
            yield f"reference/{name or 'diffrecon'}.md", "\n".join(parts)


def main() -> int:
    """Write the pages, then run the generator on them."""
    shutil.rmtree(PAGES, ignore_errors=True)
    pages, listed = sources(), (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    made = {"gallery.md": gallery(), **dict(reference())}
    for target in [
        *made,
        *(
            there
            for there in pages.values()
            if there.endswith(".md") and not re.match(r"(experiments|examples)/", there)
        ),
    ]:
        if not re.search(rf"(- |: ){re.escape(target)}$", listed, re.M):
            sys.exit(f"{target} is missing in the navigation of mkdocs.yml")
    for source, target in pages.items():
        (PAGES / target).parent.mkdir(parents=True, exist_ok=True)
        if target.endswith(".md"):
            path = TOP / source
            text = path.read_text("utf-8") if path.suffix == ".md" else notebook(path, (PAGES / target).parent)
            (PAGES / target).write_text(with_links(text, source, pages), encoding="utf-8")
        else:
            shutil.copyfile(TOP / source, PAGES / target)
    for target, text in made.items():
        (PAGES / target).parent.mkdir(parents=True, exist_ok=True)
        (PAGES / target).write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=TOP).returncode


if __name__ == "__main__":
    sys.exit(main())
