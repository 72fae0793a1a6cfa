"""A virtual environment for one peer: ``python benchmarks/peers/environment.py NAME DIR`` makes ``DIR/NAME``.

What it holds is pinned in ``NAME.txt`` beside this file. One that is there already is left alone; one that was not
finished, or whose pins have changed since, is made anew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STAMP = "requirements.txt"


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def is_ready(name: str, env_dir: Path) -> bool:
    """Whether the environment was finished, with today's pins."""
    stamp = env_dir / name / STAMP
    return stamp.is_file() and stamp.read_text() == (HERE / f"{name}.txt").read_text()


def make(name: str, env_dir: Path) -> str | None:
    """Make an environment unless it is ready; returns why that failed. Minutes, and about a gigabyte each.

    What pip said is in ``DIR/NAME.log``.
    """
    if is_ready(name, env_dir):
        return None
    folder, wanted = env_dir / name, HERE / f"{name}.txt"
    shutil.rmtree(folder, ignore_errors=True)
    env_dir.mkdir(parents=True, exist_ok=True)
    with (env_dir / f"{name}.log").open("w") as log:
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(wanted)],
        ):
            if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
                return last_line(env_dir / f"{name}.log")
    shutil.copyfile(wanted, folder / STAMP)
    return None


def last_line(log: Path) -> str:
    """What a process said last, which is its error if it has failed."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def versions(name: str, env_dir: Path) -> dict[str, str]:
    """What is installed in an environment of all that its pins name."""
    lines = (HERE / f"{name}.txt").read_text().splitlines()
    wanted = [line.split("=")[0].split(">")[0] for line in lines if line and not line.startswith("#")]
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    command = [str(python_of(env_dir / name)), "-c", code, *wanted]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not (HERE / f"{sys.argv[1]}.txt").is_file():
        known = ", ".join(sorted(path.stem for path in HERE.glob("*.txt")))
        sys.exit(f"usage: python {sys.argv[0]} NAME DIR, with NAME one of: {known}")
    if why := make(sys.argv[1], Path(sys.argv[2])):
        sys.exit(f"error: {why} (the log is {sys.argv[2]}/{sys.argv[1]}.log)")
    print(json.dumps(versions(sys.argv[1], Path(sys.argv[2]))))
