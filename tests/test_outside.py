"""A method of an outside package is found through its entry point: nothing of this repository is touched."""

from __future__ import annotations

import os
import subprocess
import sys

from latentwire.adapters import AdapterConfig

PACKAGE = '''
"""An adapter that someone else wrote."""
from dataclasses import dataclass

from latentwire.adapters import AdapterConfig
from latentwire.adapters.linear import LinearAdapter, LinearAdapterConfig


@AdapterConfig.register_subclass("theirs")
@dataclass
class TheirsConfig(LinearAdapterConfig):
    strength: float = 2.0

    def build(self, d_z: int, width: int) -> "Theirs":
        return Theirs(self, d_z, width)


class Theirs(LinearAdapter):
    pass
'''
ASKED = """
from latentwire.adapters import AdapterConfig
from latentwire.config import decode, encode
from latentwire.link import LinkConfig

assert "theirs" in AdapterConfig.known()
link = decode(LinkConfig, {"receiver": "sandbox:llama", "adapter": {"type": "theirs", "strength": 3.0}})
assert encode(link)["adapter"]["type"] == "theirs" and link.adapter.strength == 3.0
print(type(link.adapter.build(8, 16)).__name__, type(link.adapter).__module__)
"""


def test_an_outside_package_adds_an_adapter_without_a_line_here(tmp_path):
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "__init__.py").write_text("")
    (tmp_path / "their_package" / "adapter.py").write_text(PACKAGE)
    about = tmp_path / "their_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[latentwire.methods]\ntheirs = their_package.adapter\n")

    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.split() == ["Theirs", "their_package.adapter"]
    assert "theirs" not in AdapterConfig.known()  # it is no part of this installation
