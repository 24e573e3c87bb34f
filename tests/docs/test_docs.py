"""What the pages say runs as it stands: Python blocks, command lines, links."""

import contextlib
import json
import posixpath
import re
import runpy
import shlex
from pathlib import Path

import pytest

import diffrecon as dr
from diffrecon.cli import _main, _settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Names that the pages give to measured files.
MEASURED = {"PETRAIII_P25_near_field.cxi": "real/p25_near_field.cxi", "tooth.h5": "real/tooth.h5"}


def sections(page: Path) -> list[tuple[str, str]]:
    """Title and text of every section of a page."""
    parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def python_sections():
    for page in PAGES:
        for title, text in sections(page):
            if code := blocks(text, "python"):
                # The examples of simulated scans say the same in less time.
                measured = any(name in text for name in MEASURED)
                marks = [pytest.mark.slow, pytest.mark.nightly] * measured
                yield pytest.param("\n".join(code), id=f"{page.stem}: {title or 'top'}", marks=marks)


def command_lines():
    for page in PAGES:
        for code in blocks(page.read_text(), ""):
            for line in code.replace("\\\n", " ").splitlines():
                # Synopses have brackets and capitals; what can be typed has none.
                if re.match(r"\s*(\S*/)?diffrecon [a-z]", line) and not re.search(r"\[-|FILE|METHOD|OUT\.h5|<", line):
                    yield pytest.param(line.strip(), id=f"{page.stem}: {line.strip()[:60]}")


@pytest.mark.parametrize("code", list(python_sections()))
def test_python_of_the_pages(code, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, place in MEASURED.items():
        if name in code:
            (tmp_path / name).symlink_to(request.getfixturevalue("shared_data") / place)
    with contextlib.redirect_stdout(None):
        exec(compile(code, request.node.name, "exec"), {"__name__": "page", "dr": dr})


@pytest.mark.parametrize("line", list(command_lines()))
def test_command_lines_of_the_pages(line):
    """The arguments are understood, and the method knows every setting that is named."""
    words = shlex.split(line.partition(" > ")[0].partition(" # ")[0].partition(" && ")[0])
    options = _main._parser().parse_args(words[1:])
    if options.command in ("demo", "simulate"):
        assert options.method in (None, *dr.simulate.methods())
        return
    settings = _settings.gather(None, getattr(options, "sets", []), load=False)
    methods = [options.method] if getattr(options, "method", None) else dr.recipes.methods()
    assert any(_known(settings, method) for method in methods), line


def _known(settings, method: str) -> bool:
    try:
        _settings.refuse_unknown(settings, method)
    except dr.InputError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http", "#")):
            file, _, heading = target.partition("#")
            assert (page.parent / file).exists(), f"{page.name}: {target}"
            if heading:
                anchors = [
                    re.sub(r"[^a-z0-9 -]", "", line.strip("# ").lower()).replace(" ", "-")
                    for line in (page.parent / file).read_text().splitlines()
                    if line.startswith("#")
                ]
                assert heading in anchors, f"{page.name}: {target}"


def test_readme_has_both_commands():
    """Continuous integration takes the test command from between these markers."""
    readme = (ROOT / "README.md").read_text()
    for name, word in (("demo", "diffrecon demo"), ("test", "-m pytest")):
        part = readme.partition(f"<!-- {name} command -->")[2].partition(f"<!-- end of {name} command -->")[0]
        (command,) = blocks(part.strip() + "\n", "")
        assert word in command and command.count("\n") == 1


def test_page_of_performance_is_that_of_the_stored_measurements():
    space = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))
    lines = [json.loads(line) for line in space["STORE"].read_text().splitlines()]
    assert space["PAGE"].read_text() == space["page"](lines), "run benchmarks/table.py"
    assert all(line["date"] and line["versions"] and line["machine"] for line in lines)


METHODS = sorted(page for page in (ROOT / "docs").glob("*.md") if "<!-- in short -->" in page.read_text())


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.stem)
def test_what_a_page_says_in_short_can_be_typed(page):
    """The demo is there, and every setting that the table names belongs to some method or to what a file may lack."""
    short = page.read_text().partition("<!-- in short -->")[2].partition("\n\n")[0]
    (demo,) = re.findall(r"diffrecon demo ([\w-]+)` \|", short)
    assert demo in dr.simulate.methods()
    known = {f"{key.section}.{name}" for name, key in dr.io.KEYS.items()}
    for method in dr.recipes.methods():
        known |= {f"{part}.{name}" for part, names in dr.recipes.defaults(method).items() for name in names}
    sections = {name.partition(".")[0] for name in known}
    named = {name for name in re.findall(r"\b([a-z_]+\.[a-z_]+)\b", short) if name.partition(".")[0] in sections}
    assert named <= known, named - known


SITE = runpy.run_path(str(ROOT / "docs" / "make_site.py"))


def test_reference_has_every_public_name():
    shown = set(re.findall(r"^::: (\S+)$", "\n".join(text for _, text in SITE["reference"]()), re.MULTILINE))
    for module in (dr, *(getattr(dr, name) for name in dr._MODULES)):
        for name in getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]:
            value = getattr(module, name)
            place = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
            if callable(value) and place.startswith("diffrecon.") and "<" not in place:
                assert place in shown, f"{module.__name__}.{name}"


def test_links_of_the_site_lead_to_its_pages():
    """As the site has them, those of the gallery and of notebooks too; `[text](page)` in code is none."""
    pages = SITE["sources"]()
    there = {*pages.values(), "gallery.md", *(place for place, _ in SITE["reference"]())}
    texts = {"gallery.md": SITE["gallery"]()}
    for source, target in pages.items():
        if source.endswith(".md"):
            texts[target] = SITE["with_links"]((ROOT / source).read_text(encoding="utf-8"), source, pages)
        elif source.endswith(".ipynb"):
            cells = json.loads((ROOT / source).read_text(encoding="utf-8"))["cells"]
            words = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
            texts[target] = SITE["with_links"](words, source, pages)
    for target, text in texts.items():
        prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)\s#]+)", prose):
            place = posixpath.normpath(posixpath.join(posixpath.dirname(target), link))
            assert place in there, f"{target}: {link}"
    nav = set(re.findall(r"(?:- |: )([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert nav <= there, nav - there
