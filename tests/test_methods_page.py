"""docs/methods.md knows every registered method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from latentwire.adapters import AdapterConfig
from latentwire.config import decode
from latentwire.encoders import EncoderConfig
from latentwire.injections import InjectionConfig
from latentwire.objectives import ObjectiveConfig
from latentwire.objectives.combination import check
from latentwire.objectives.schedule import KINDS

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", [EncoderConfig, AdapterConfig, InjectionConfig, ObjectiveConfig])
def test_every_method_has_a_line(family):
    own = {name for name, method in family.known().items() if method.__module__.startswith("latentwire.")}
    assert not {name for name in own if not re.search(rf"^\| `{re.escape(name)}` \|", PAGE, re.MULTILINE)}


def test_every_objective_is_in_its_own_table_with_its_role():
    section = PAGE.partition("## Objectives")[2]
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (rows|judge|passage) \|", section, re.MULTILINE))
    own = {name: c for name, c in ObjectiveConfig.known().items() if c.__module__.startswith("latentwire.")}
    assert told == {name: config().build().role for name, config in own.items()}


def test_every_schedule_has_a_line_and_the_example_can_be_trained_with():
    section = PAGE.partition("A weight follows a schedule")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z]+)` \|", section.replace("| `kind` |", ""), re.MULTILINE) == list(KINDS)
    example = yaml.safe_load(section.partition("```yaml")[2].partition("```")[0])
    check({name: decode(ObjectiveConfig, tree) for name, tree in example["objectives"].items()})
