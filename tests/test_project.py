"""The house rules that no other test would notice being broken."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "latentwire"
MODULES = sorted(SOURCE.rglob("*.py"))
LEVELS = [
    {"errors"},
    {"types", "config"},
    {"prompt", "codecs", "data", "environment", "weights"},
    {"receivers", "shipped"},
    {"encoders", "adapters", "injections", "objectives", "packets"},
    {"link"},
    {"reading", "earlier"},
    {"saved", "card"},
    {"wire"},
    {"conditions", "readback", "bulk"},
    {"evaluation"},
    {"training", "harness"},
    {"experiments", "sandbox"},
    {"serving"},
    {"cli", "commands"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def tracked() -> list[Path]:
    """Files that git knows or would add; all files below the root where there is no git (an unpacked sdist)."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]


def room_of(module: str) -> str | None:
    """``latentwire.data.rows`` is in room ``data``; the package itself is in none."""
    parts = module.split(".")
    return parts[1] if parts[0] == "latentwire" and len(parts) > 1 else None


def imports(path: Path) -> set[str]:
    """Every module a file imports, also inside functions, without those that only a type checker sees."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide which room they reach into"
            # `from latentwire import prompt` names a room, `from latentwire import Wire` the face of the package
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "latentwire"
                else {node.module}
            )
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path):
    own = path.relative_to(SOURCE).with_suffix("").parts[0]
    if own == "__init__":
        return  # the face: it only forwards to what stands below everything else
    if own == "__main__":  # a door: it leads to the command line and nowhere else
        assert {room_of(module) for module in imports(path)} <= {None, "cli"}
        return
    assert own in LEVEL, f"{own} is a new room: give it a level here and in docs/architecture.md"
    for module in sorted(imports(path)):
        room = room_of(module)
        if room is None or room == own:
            continue
        if room not in LEVEL:  # a name from the face (`Wire`, `Packet`, `__version__`) counts as what it stands for
            room = {"Wire": "wire", "Packet": "packets", "UserError": "errors"}.get(room, own)
        allowed = LEVEL[room] < LEVEL[own] or {room, own} == {"cli", "commands"} or room == own
        assert allowed, f"{path.relative_to(ROOT)} imports {module}: {own} must not know {room}"


def test_serving_never_imports_training():
    for path in SOURCE.glob("serving/**/*.py"):
        assert not any(room_of(module) == "training" for module in imports(path)), path


def test_only_config_knows_the_config_library():
    knowing = {
        str(path.relative_to(SOURCE)) for path in MODULES if any(m.split(".")[0] == "draccus" for m in imports(path))
    }
    assert knowing <= {"config.py"}


def test_no_pickle_is_read():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pickle\.loads?\(|torch\.load\(", text), f"{path} reads pickle"


def test_files_are_small():
    long = {
        str(path.relative_to(ROOT)): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long, "split these by what they know"


def test_no_stubs():
    for path in MODULES:
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8")), path


def test_no_paths_of_one_machine():
    # spelt in pieces, or this file would find itself
    machine = re.compile(r"(?<![\w.~])/(?:wo" + r"rk|fa" + r"rm|ro" + r"ot|home/\w+|Users/\w+|tmp/" + r"\w+)/")
    for path in tracked():
        if (
            path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".cfg", ""}
            and path.stat().st_size < 1 << 20
        ):
            text = path.read_text(encoding="utf-8", errors="ignore")
            found = machine.search(text)
            assert not found, f"{path.relative_to(ROOT)} names a path of one machine: {found and found[0]}"


def test_shipped_weights_are_small():
    files = [path for path in tracked() if path.is_relative_to(SOURCE / "sandbox") and ".safetensors" in path.name]
    assert files
    assert all(path.stat().st_size <= 16 << 20 for path in files), "a shipped file is at most 16 MiB"
    assert sum(path.stat().st_size for path in files) <= 96 << 20, "all shipped weights together are at most 96 MiB"


def test_architecture_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in MODULES} - {"__init__", "__main__"}
    assert not {room for room in rooms if not re.search(rf"\b{room}\b", text)}


def test_readme_numbers_equal_results():
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    assert spec and spec.loader
    readme_table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme_table)
    for path in readme_table.documents():
        text = path.read_text(encoding="utf-8")
        assert readme_table.fill(text) == text, f"{path.name}: run python benchmarks/readme_table.py"


def test_make_targets_named_in_documents_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        used = set(re.findall(r"^make (\w+)", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE))
        assert used <= targets, name
    assert {"make lint", "make test"} <= set((ROOT / ".ci" / "run").read_text().splitlines())


def test_links_in_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_help_imports_nothing_heavy():
    code = (
        "import sys, contextlib, io\n"
        "from latentwire.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): assert main(['--help']) == 0\n"
        "optional = {'zstandard', 'jinja2', 'matplotlib'}\n"
        "heavy = {'torch', 'transformers', 'numpy', 'draccus', 'huggingface_hub', *optional} & set(sys.modules)\n"
        "sys.exit(f'--help imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_answers_in_under_half_a_second():
    # processor time of the best of three: a busy machine must not fail this, an import of torch must
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'latentwire.cli', '--help'], check=True, capture_output=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    command = [sys.executable, "-c", code]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    assert min(times) < 0.5
