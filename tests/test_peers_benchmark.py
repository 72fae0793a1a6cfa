"""``benchmarks/peers.py``: items and answers by file, the same positions, failures with their reason, the table."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from latentwire.evaluation.runner import evaluate
from latentwire.types import Example

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
TEXTS = ("The city has 1,204 inhabitants. They arrived at the pole in 1911.", "Roald Amundsen led the expedition.")
EXAMPLES = [
    Example(f"q-{number}", TEXTS[number % 2], question, ("Roald Amundsen", "1911"))
    for number, question in enumerate(("Who led it?", "How many people live there?", "When did they arrive?"))
]
FIRST = """
from reader import work
def make(job, reader):
    return lambda method, item, keep: reader.answer_text(item, item["context"][:keep])
work(make)
"""
BROKEN = 'raise SystemExit("OSError: cannot reach https://hub.example/x | see /opt/cache/y")\n'


@pytest.fixture
def scripts(monkeypatch):
    """Modules by name: those of the command, and of the workers."""
    for folder in (BENCHMARKS / "peers", BENCHMARKS):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


def test_an_item_has_as_many_positions_as_the_latents_take(scripts, tiny_wire, tmp_path):
    made, reader = scripts("peers_items"), scripts("reader")
    items = made.items_of(tiny_wire, EXAMPLES, (4, 8), ("llama", "qwen2"))
    own = evaluate(tiny_wire, EXAMPLES, (4, 8), conditions=["latents"])
    for row in own["rows"]:
        kept = [item["keep"][str(row["ratio"])] for item in items[row["receiver"]]]
        assert round(sum(kept) / len(kept), 2) == row["kv_positions"]
    made.write_lines(tmp_path / "new" / "items.jsonl", items["llama"])
    assert reader.lines_of(tmp_path / "new" / "items.jsonl") == items["llama"]
    prompt = tiny_wire.get_receiver("llama").prompt
    assert items["llama"][0]["context"] == prompt.context_ids([TEXTS[0]])[0]
    assert items["llama"][0]["tail"] == prompt.question_ids(["Who led it?"])[0]


def test_the_older_checkpoint_names_what_has_another_name_now(scripts, tiny_readers, tmp_path):
    where = scripts("peers_items").older_checkpoint(tiny_readers["qwen2"], tmp_path / "older")
    source = json.loads((tiny_readers["qwen2"] / "config.json").read_text())
    config = json.loads((where / "config.json").read_text())
    assert config["rope_theta"] == source["rope_parameters"]["rope_theta"] and "rope_scaling" not in config
    assert config["torch_dtype"] == source["dtype"]
    assert json.loads((where / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_the_workers_reader_answers_as_the_receiver_does(scripts, tiny_wire, tiny_readers, tmp_path):
    made, reader = scripts("peers_items"), scripts("reader")
    evaluate(tiny_wire, EXAMPLES, conditions=["text"], out=tmp_path)
    said = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    for name in ("llama", "qwen2"):
        items = made.items_of(tiny_wire, EXAMPLES, (4,), (name,))[name]
        plain = reader.Reader(str(made.older_checkpoint(tiny_readers[name], tmp_path / name)), 32)
        answers = [plain.answer_text(item, item["context"])["prediction"] for item in items]
        found = {"peer": "any", "receiver": name, "answers": answers}
        assert scripts("peers_score").agreement(found, said, EXAMPLES)["same"] == len(EXAMPLES)
        assert len(set(answers)) > 1
        other = scripts("peers_score").agreement({**found, "answers": ["x", *answers[1:]]}, said, EXAMPLES)
        assert other["same"] == len(EXAMPLES) - 1


def test_peers_are_run_scored_and_missed(scripts, tiny_wire, tmp_path, monkeypatch):
    script = scripts("peers")
    workers = tmp_path / "workers"
    workers.mkdir()
    for name in ("reader.py", "presses.py"):
        shutil.copyfile(BENCHMARKS / "peers" / name, workers / name)
    for name, code in (("first.py", FIRST), ("broken.py", BROKEN), ("any.txt", "nothing==1\n")):
        (workers / name).write_text(code)
    environment = SimpleNamespace(
        is_ready=lambda *_: True, make=lambda *_: None, python_of=lambda _: Path(sys.executable),
        versions=lambda *_: {"nothing": "1"}, last_line=scripts("environment").last_line,
    )  # fmt: skip
    for part in (script, scripts("peers_process")):
        monkeypatch.setattr(part, "WORKERS", workers)
        monkeypatch.setattr(part, "module", lambda _: environment)
    asked = [
        script.Peer("first", "any", "first.py", ("first",), {}),
        script.Peer("broken", "any", "broken.py", ("b",), {}),
    ]
    monkeypatch.setattr(script, "peers", lambda _: asked)
    monkeypatch.setattr("latentwire.data.rows.read_examples", lambda _: EXAMPLES)
    words = f"--env-dir {tmp_path} --out {tmp_path / 'out'} --n 3 --ratio 4 8 --receivers llama"
    given = script.arguments(words.split())
    found = script.compare(tiny_wire, given)
    rows = {(row["condition"], row["ratio"]): row for row in found["rows"]}
    for ratio in (4, 8):  # who keeps the first M tokens is the condition that keeps them
        theirs, ours = rows["first", ratio], rows["budget-question", ratio]
        assert {key: theirs[key] for key in ("f1", "f1_ci", "em", "kv_positions", "n")} == {
            key: ours[key] for key in ("f1", "f1_ci", "em", "kv_positions", "n")
        }
        assert theirs["kv_positions"] == rows["latents", ratio]["kv_positions"] > 0
        assert theirs["over_latents"] == ours["over_latents"]
        assert abs(theirs["over_latents"][0] - (theirs["f1"] - rows["latents", ratio]["f1"])) < 2e-4
    assert [(row["peer"], row["same"]) for row in found["baselines"]] == [("first", 3)]
    why = "OSError: cannot reach … / see …"
    assert found["failed"] == [{"peer": "broken", "receiver": "llama", "condition": "b", "ratio": None, "why": why}]
    assert f"b, tried on `llama`, could not be measured: `{why}`" in script.table(found)
    # once more: nothing is answered again, and what failed is tried again
    before = {path: path.read_text() for path in (tmp_path / "out").rglob("answers.jsonl")}
    assert script.compare(tiny_wire, given)["rows"] == found["rows"]
    assert before == {path: path.read_text() for path in (tmp_path / "out").rglob("answers.jsonl")} and len(before) == 1


def test_answers_that_are_not_all_there_are_no_figure(scripts, tmp_path):
    read = scripts("peers_process").read_answers
    lines = [{"id": id, "method": "m", "ratio": ratio, "prediction": "x"} for ratio in (4, 8) for id in ("b", "a")]
    lines = [*lines[:3], {"method": "k", "ratio": 4, "failed": "ValueError: at /opt/x"}]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole, failed = read(tmp_path / "answers.jsonl", ["a", "b"])
    assert {key: [line["id"] for line in found] for key, found in whole.items()} == {("m", 4): ["a", "b"]}
    assert read(tmp_path / "answers.jsonl", ["a", "c"], 1)[0] == {}
    assert failed == {("k", 4): "ValueError: at …", ("m", 8): "only 1 of 2 questions were answered"}


def test_a_worker_goes_on_and_one_method_does_not_cost_the_others(
    scripts, tiny_wire, tiny_readers, tmp_path, monkeypatch
):
    made, reader = scripts("peers_items"), scripts("reader")
    made.write_lines(tmp_path / "items.jsonl", made.items_of(tiny_wire, EXAMPLES, (4,), ("llama",))["llama"])
    job = {"items": str(tmp_path / "items.jsonl"), "answers": str(tmp_path / "answers.jsonl"), "most": 4, "ratios": [4],
           "baseline": 2, "methods": ["bad", "text", "good"], "receiver": str(tiny_readers["llama"])}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    (tmp_path / "answers.jsonl").write_text(
        '{"id": "q-0", "method": "good", "ratio": 4, "prediction": "kept"}\n{"id": "q-'
    )
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / "job.json")])

    def make(job, reader):
        def answer(method, item, keep):
            if method == "bad":
                raise RuntimeError("no such\npress")
            return {"prediction": method, "positions": keep}

        return answer

    reader.work(make)
    lines = reader.lines_of(tmp_path / "answers.jsonl")
    assert [line.get("failed") for line in lines if line["method"] == "bad"] == ["RuntimeError: no such press"]
    assert [line["id"] for line in lines if line["method"] == "text"] == ["q-0", "q-1"]
    assert [(line["id"], line["prediction"]) for line in lines if line["method"] == "good"] == [
        ("q-0", "kept"), ("q-1", "good"), ("q-2", "good"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gives", "tokens"), [(lambda t: t, 10), (lambda t: 2 * t, 10), (lambda t: t // 3, 10), (lambda t: 4, 4)]
)
def test_a_shortened_text_meets_its_budget(scripts, gives, tokens):
    meet = scripts("with_llmlingua").meet
    said, ids = meet(lambda target: {"compressed_prompt": "w " * gives(target)}, str.split, 10)
    assert len(ids) == tokens and ids == said.split()[: len(ids)]


def test_a_text_is_scored_once_and_a_token_may_have_its_own_loss(scripts):
    calls, aligned = [], [False]

    def get_ppl(text, granularity, input_ids, attention_mask, **_):
        calls.append(input_ids.tolist())
        return torch.tensor([1.0, 2.0, 3.0]), "cache"

    shorten = SimpleNamespace(get_ppl=get_ppl)
    scripts("with_llmlingua").score_once(shorten, aligned)
    ids = torch.tensor([[5, 6, 7, 8]])
    first, cache = shorten.get_ppl("", "token", ids, None, past_key_values=None)
    first += 1  # the package writes into what it gets
    aligned[0] = True
    second, _ = shorten.get_ppl("", "token", ids, None, past_key_values=None)
    assert calls == [[[5, 6, 7, 8]]] and cache is None
    assert second.tolist() == [10000, 1, 2], "tokens 0, 1, 2: the first has no loss, 1 and 2 were given 1 and 2"


def test_positions_are_those_of_all_heads_and_layers(scripts):
    keys = torch.zeros(1, 2, 6, 4)
    cache = SimpleNamespace(layers=[SimpleNamespace(keys=keys), SimpleNamespace(keys=keys)])
    hidden = [None, (torch.zeros(4), torch.zeros(4), torch.zeros(4))]
    layers = [SimpleNamespace(self_attn=SimpleNamespace(masked_key_indices=each)) for each in hidden]
    model = SimpleNamespace(config=SimpleNamespace(num_key_value_heads=2), model=SimpleNamespace(layers=layers))
    assert scripts("with_kvpress").held(model, cache) == 5.0


def test_the_best_are_measured_everywhere(scripts):
    rows = [{"condition": name, "f1": f1} for name, f1 in (("a", 0.1), ("b", 0.5), ("c", 0.3), ("a", 0.2), ("c", 0.0))]
    assert scripts("peers_score").best(rows, 2) == ["a", "c"]


def test_an_environment_is_made_once_and_its_failure_is_told(scripts, tmp_path, monkeypatch):
    environment = scripts("environment")
    calls = []

    def run(command, stdout=None, **_):
        calls.append(command[1:4])
        (tmp_path / "kvpress").mkdir(exist_ok=True)
        print("ERROR: No matching distribution", file=stdout, flush=True)
        return SimpleNamespace(returncode=int("pip" in command and fails))

    monkeypatch.setattr(environment.subprocess, "run", run)
    fails = True
    assert environment.make("kvpress", tmp_path) == "ERROR: No matching distribution"
    assert not environment.is_ready("kvpress", tmp_path)
    fails = False
    assert environment.make("kvpress", tmp_path) is None and environment.is_ready("kvpress", tmp_path)
    assert len(calls) == 4 and environment.make("kvpress", tmp_path) is None and len(calls) == 4
    (tmp_path / "kvpress" / "requirements.txt").write_text("kvpress==0.1\n")
    assert not environment.is_ready("kvpress", tmp_path), "other pins are another environment"


def test_bad_input_is_one_line(scripts, tmp_path, capsys):
    script = scripts("peers")
    with pytest.raises(SystemExit, match="inside the repository"):
        script.main(["--env-dir", str(ROOT / "env")])
    with pytest.raises(SystemExit, match="--choose N makes it"):
        script.main(["--env-dir", str(tmp_path), "--results", str(tmp_path / "peers.json")])
    with pytest.raises(SystemExit):
        script.main([])
    assert "--env-dir DIR is missing" in capsys.readouterr().err


def test_the_page_holds_what_was_measured(scripts):
    fill, page = scripts("peers_table").fill, (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert "<!-- peers:begin peers.json -->" in page
    assert fill(page) == page, "run python benchmarks/peers.py --table"
    found = json.loads((BENCHMARKS / "results" / "peers.json").read_text(encoding="utf-8"))
    rows = {(row["condition"], row["ratio"], row["receiver"]): row for row in found["rows"]}
    for (condition, ratio, receiver), row in rows.items():
        if ratio:  # nobody has more room than the latents
            assert row["kv_positions"] == rows["latents", ratio, receiver]["kv_positions"], (condition, ratio, receiver)
