"""Compiled programs are kept between processes, quietly, and never against the user's own settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffrecon import _cache

RUN = """
import collections, jax, jax.numpy as jnp
import diffrecon as dr
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event.split("/")[-1]]))
target = jnp.arange(3.0)
before = jax.config.jax_compilation_cache_dir
solution = dr.minimise(lambda x, batch: jnp.sum((x - target) ** 2), jnp.zeros(3), steps=5)
print(events["compile_requests_use_cache"], events["cache_hits"], before, jax.config.jax_compilation_cache_dir)
"""


def run(**environment: str) -> tuple[int, int, str, str]:
    """Programs asked for, programs read from files, folder before and after the first solver."""
    clean = {k: v for k, v in os.environ.items() if k not in ("DIFFRECON_CACHE", "JAX_COMPILATION_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN], env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    asked, hits, before, after = done.stdout.split()
    return int(asked), int(hits), before, after


def test_second_process_compiles_nothing(tmp_path):
    asked, hits, before, after = run(DIFFRECON_CACHE=str(tmp_path))
    # Import alone switches nothing on; programs compiled before the first solver are not kept.
    assert before == "None" and Path(after).parent == tmp_path and asked > hits == 0
    entries = list(Path(after).iterdir())
    assert len(entries) >= 3
    asked, hits, _, _ = run(DIFFRECON_CACHE=str(tmp_path))
    assert hits == len(entries)
    for entry in entries:  # as a process leaves them that was killed while it wrote
        entry.write_bytes(entry.read_bytes()[:100])
    asked, hits, _, _ = run(DIFFRECON_CACHE=str(tmp_path))
    assert hits == 0


def test_a_cache_of_jax_is_left_alone(tmp_path):
    _, _, before, after = run(DIFFRECON_CACHE=str(tmp_path / "ours"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "users"))
    assert before == after == str(tmp_path / "users") and not (tmp_path / "ours").exists()


@pytest.mark.parametrize("unusable", [False, True])
def test_off_or_unusable(tmp_path, unusable):
    (tmp_path / "file").touch()
    _, hits, before, after = run(DIFFRECON_CACHE=str(tmp_path / "file" / "folder") if unusable else "off")
    assert hits == 0 and before == after == "None"


def test_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("DIFFRECON_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache._root() == tmp_path / "diffrecon" / "programs"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert _cache._root() == tmp_path / "local" / "diffrecon" / "programs"


def test_another_processor_or_compiler_reads_nothing(monkeypatch):
    mine = _cache._machine()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    assert (other := _cache._machine()) != mine
    monkeypatch.setattr(_cache, "_processor", lambda: "flags: fpu sse2")
    assert _cache._machine() not in (mine, other)
    monkeypatch.setattr("jaxlib.version.__version__", "99.0")
    assert _cache._machine().startswith("jaxlib-99.0-")


def test_size_is_limited(tmp_path):
    """Those used last stay, whichever machine's they are."""
    for index in range(6):
        path = tmp_path / f"machine{index % 2}" / f"program{index}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 + index, 1e9 - index))
    _cache._remove_oldest(tmp_path, 350)
    assert sorted(p.name for p in tmp_path.rglob("program*")) == ["program3", "program4", "program5"]
