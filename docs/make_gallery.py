"""Run the demos and keep their pictures and judgements for the gallery: `docs/gallery/METHOD.webp` and `demos.json`.

    python docs/make_gallery.py [METHOD ...]

A demo simulates a measurement, reconstructs it and compares with the truth. Pictures are WebP,
a fifth of the bytes of a PNG. All demos take some ten minutes of processor time; those named are replaced, the others
stay.
"""

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from diffrecon.simulate import methods

FOLDER = Path(__file__).resolve().parent / "gallery"
WIDEST, QUALITY = 1000, 55


def demo(method: str) -> tuple[bytes, list[str]]:
    """Run a demo in a process of its own: its picture, and its lines after the reconstruction.

    **Raises:** `CalledProcessError` where it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "diffrecon", "demo", method, "-o", folder]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        place = next(i for i, line in enumerate(lines) if "_reconstruction." in line)
        picture = small((Path(folder) / f"demo_{method}_reconstruction.png").read_bytes())
    return picture, [line.strip() for line in lines[place + 1 :] if folder not in line]


def small(picture: bytes) -> bytes:
    """Make a picture of few pixels and bytes."""
    from PIL import Image

    whole, out = Image.open(io.BytesIO(picture)).convert("RGB"), io.BytesIO()
    whole.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.LANCZOS)
    whole.save(out, "webp", quality=QUALITY, method=6)
    return out.getvalue()


def main() -> None:
    """Run all demos, or some; what is done is kept at once."""
    FOLDER.mkdir(exist_ok=True)
    store = FOLDER / "demos.json"
    told = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    for method in sys.argv[1:] or methods():
        picture, told[method] = demo(method)
        (FOLDER / f"{method}.webp").write_bytes(picture)
        store.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{method}: {len(picture) // 1000} kB", flush=True)


if __name__ == "__main__":
    main()
