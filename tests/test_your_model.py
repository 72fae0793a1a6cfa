"""What docs/your-model.md tells to type is typed here in order, on tiny readers in place of those that come along."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from latentwire import Wire, cli
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.link import LinkConfig
from latentwire.wire import WireConfig

ROOT = Path(__file__).resolve().parents[1]
DOCS = (ROOT / "docs" / "your-model.md").read_text(encoding="utf-8")
SMOKED = {"join", "eval"}
LETTERS = ("Curie", "Darwin", "Hopper", "Noether", "Turing")
# passages and questions of these readers' few positions, and links as narrow as they are
TINY = ("corpus.shortest=8", "corpus.longest=160", "corpus.asked=96", "corpus.stretch=1.4", "draws=[]", "minutes=0",
        "wire.links.my-gpt2.injection.width=32")  # fmt: skip


def commands() -> list[str]:
    """Every ``latentwire …`` line, but for that which reads gigabytes (tests/data runs it on small files)."""
    blocks = re.findall(r"```bash\n(.*?)```", DOCS, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("latentwire ")]
    return [line for line in lines if not line.startswith("latentwire data prepare")]


@pytest.fixture
def newcomer(tmp_path, monkeypatch, tiny_readers):
    """A folder with data and configs; what comes along is a tiny wire, and another model under the name ``gpt2``."""
    torch.manual_seed(0)
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in ("llama", "qwen2")}
    links["gpt2"] = LinkConfig(receiver="sandbox:gpt2")
    # the tiny gpt2 has too few positions for passage and question
    along = {"wire": tmp_path / "along", "gpt2": tiny_readers["gemma"]}
    monkeypatch.setattr("latentwire.weights.unpacked", lambda name: along[name])
    facts = [f"In {1800 + n} letter {n} of {LETTERS[n % 5]} was sent from Oslo to York." for n in range(60)]
    encoder = LMEncoderConfig(d_z=32, ratios=(4, 8), window=160, init=str(tiny_readers["llama"]))
    Wire.create(WireConfig(encoder, links), facts[:4]).save_pretrained(along["wire"])
    articles = [{"title": f"Letters {n}", "text": " ".join(facts[n : n + 30])} for n in range(12)]
    rows = [{"id": f"squad_v1-train-Letters_{n}-0-0", "context": fact, "question": f"Who wrote letter {n}?",
             "answers": [LETTERS[n % 5]]} for n, fact in enumerate(facts)]  # fmt: skip
    for name, lines in (("squad/train.jsonl", rows), ("text/some.jsonl", articles)):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "my.txt").write_text(facts[0])
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_the_first_command_to_the_hub(newcomer, capsys, monkeypatch):
    lines = commands()
    assert [line.split()[1] for line in lines] == ["join"] * 4 + ["eval", "report", "ask"]
    for line in lines:  # in their order: one reads the wire that another wrote
        argv = shlex.split(line)[1:]
        argv += [*(TINY if argv[0] == "join" else ()), *(["--smoke"] if argv[0] in SMOKED else ())]
        assert cli.main(argv) == 0, f"{line}\n{capsys.readouterr().err}"
    assert (newcomer / "my-gpt2.html").is_file()

    uploaded = newcomer / "uploaded"
    hub = SimpleNamespace(
        create_repo=lambda **how: SimpleNamespace(repo_id=how["repo_id"]),
        upload_folder=lambda **how: shutil.copytree(how["folder_path"], uploaded),
    )
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda token: hub)
    (example,) = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    exec(compile(example, "your-model.md", "exec"), {})
    assert Wire.from_pretrained(uploaded).receivers == ["llama", "qwen2", "gpt2", "my-gpt2"]
    card = (uploaded / "README.md").read_text(encoding="utf-8")
    assert "| `my-gpt2` | **latents** | 4× | 16 | " in card and "- English, of the kind" in card
