"""Write settings.md: every setting of every method, from the classes that the methods read.

python docs/make_settings.py
"""

from pathlib import Path

from diffrecon import recipes, settings

HEAD = """# Settings

Every setting of every method, by section: `--set solver.steps=100` on the command line, `[solver]` and `steps = 100`
in a configuration, `settings={"solver": {"steps": 100}}` in Python. `diffrecon reconstruct FILE -m METHOD --settings`
prints them as TOML. This page is written by `python docs/make_settings.py` from the classes that the methods read.
"""


def page() -> str:
    """Make the text of the page."""
    parts = [f"## {name}\n\n{settings.table(recipes.find(name).settings)}" for name in recipes.BUILT_IN]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    Path(__file__).with_name("settings.md").write_text(page())
