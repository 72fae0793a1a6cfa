"""docs/methods.md knows every registered method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from latentwire.adapters import AdapterConfig
from latentwire.encoders import EncoderConfig
from latentwire.injections import InjectionConfig

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", [EncoderConfig, AdapterConfig, InjectionConfig])
def test_every_method_has_a_line(family):
    own = {name for name, method in family.known().items() if method.__module__.startswith("latentwire.")}
    assert not {name for name in own if not re.search(rf"^\| `{re.escape(name)}` \|", PAGE, re.MULTILINE)}
