"""Where things live in a clone of the project, whatever the working directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
LIBRARY = ROOT / "lecture_lib"
DATA = ROOT / "data"
OUT = ROOT / "out"  # executed copies, pictures, recorded results: git-ignored
