"""Write settings.md: every setting of every method, from the classes that the methods read.

python docs/make_settings.py
"""

from pathlib import Path

from diffrecon import io, recipes, settings

HEAD = """# Settings

Every setting of every method, by section: `--set solver.steps=100` on the command line, `[solver]` and `steps = 100`
in a configuration, `settings={"solver": {"steps": 100}}` in Python. `diffrecon reconstruct FILE -m METHOD --settings`
prints them as TOML, `diffrecon explain solver.steps` says what one does. This page is written by
`python docs/make_settings.py` from the classes that the methods read.
"""


ABOUT_THE_FILE = """## About the file

What can be said about any file, and where it comes from: [file formats](file_formats.md).

| key | what it is |
|---|---|
"""


def page() -> str:
    """Make the text of the page."""
    about = [f"| `{key.section}.{name}` | {key.documented(name)} |\n" for name, key in io.KEYS.items()]
    parts = [f"## {name}\n\n{settings.table(recipes.find(name).settings)}" for name in recipes.BUILT_IN]
    return "\n".join([HEAD, *parts, ABOUT_THE_FILE + "".join(about)])


if __name__ == "__main__":
    Path(__file__).with_name("settings.md").write_text(page())
