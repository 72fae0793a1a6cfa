"""The model of lm-evaluation-harness answers and scores as ``latentwire eval`` does, on the same items."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM

from latentwire import cli
from latentwire.errors import UserError
from latentwire.evaluation.runner import evaluate
from latentwire.harness import LatentWire
from latentwire.harness import model as model_module
from latentwire.harness.marks import CONTEXT, QUESTION
from latentwire.types import Example

TASKS = Path(__file__).resolve().parents[2] / "examples" / "harness"
TEXTS = (
    "Roald Amundsen arrived at the pole on 14 December 1911. He led four others.",
    "The city has 1,204 inhabitants and a small harbour. It was founded in 1850 by people from the south of the land.",
)
EXAMPLES = [
    Example("a-1", TEXTS[0], "Who arrived?", ("Roald Amundsen", "Amundsen")),
    Example("a-2", TEXTS[0], "When did they arrive?", ("14 December 1911",)),
    Example("a-3", TEXTS[1], "How many people live there?", ("1,204",)),
    Example("a-4", TEXTS[1], "Who leads it?", ()),
]


@pytest.fixture
def rows(tmp_path) -> Path:
    """A file of EXAMPLES."""
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({**vars(e), "answers": list(e.answers)}) for e in EXAMPLES]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def own_tasks(monkeypatch):
    """The command without the thousands of tasks that the harness brings: it takes ten seconds to look through them."""
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))


def asked(example: Example, *more) -> Instance:
    """A request about an example."""
    kind = "generate_until" if isinstance(more[0], dict) else "loglikelihood"
    text = f"{CONTEXT}{example.context}{QUESTION}{example.question}"
    return Instance(kind, vars(example), (text, *more), 0)


def run(model: LatentWire, rows: Path, **more) -> dict:
    """What the harness makes of the shipped task on a file of rows."""
    tasks = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"data": str(rows)})
    found = simple_evaluate(model=model, tasks=["latentwire_squad"], task_manager=tasks, **more)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "condition", "mode"),
    [
        *(("llama", condition, "context") for condition in ("latents", "text", "none", "wrong")),
        *(("qwen2", "latents", mode) for mode in ("context", "prompt")),
    ],
)
def test_answers_and_scores_are_those_of_eval(tiny_wire, rows, tmp_path, name, condition, mode):
    model = LatentWire(wire=tiny_wire, receiver=name, ratio=8, bits=4, condition=condition, mode=mode)
    found = run(model, rows)
    evaluate(tiny_wire, EXAMPLES, (8,), (4,), [condition], [name], mode, out=tmp_path / "eval", progress=False)
    row = json.loads((tmp_path / "eval" / "results.json").read_text())["rows"][0]
    lines = [json.loads(line) for line in (tmp_path / "eval" / "predictions.jsonl").read_text().splitlines()]
    said = {line["id"]: line["prediction"] for line in lines}
    samples = found["samples"]["latentwire_squad"]
    assert {s["doc"]["id"]: s["filtered_resps"][0] for s in samples} == said
    assert any(said.values())
    scores = found["results"]["latentwire_squad"]
    assert scores["f1,none"] == pytest.approx(row["f1"], abs=1e-4)
    assert scores["exact_match,none"] == pytest.approx(row["em"], abs=1e-4)
    info = found["config"]
    assert (info["encoder"], info["receiver"], info["condition"]) == (tiny_wire.fingerprint.hex(), name, condition)


def test_requests_are_read_in_batches_and_the_batch_changes_nothing(tiny_wire, monkeypatch):
    calls = []
    real = model_module.generate
    monkeypatch.setattr(model_module, "generate", lambda *a, **k: calls.append(len(a[2])) or real(*a, **k))
    requests = [asked(e, {"until": []}) for e in EXAMPLES]
    # the harness says 1 where nobody said anything
    together = LatentWire(wire=tiny_wire, receiver="llama", batch_size=1).generate_until(requests)
    assert calls == [4]
    apart = [LatentWire(wire=tiny_wire, receiver="llama").generate_until([each])[0] for each in requests]
    assert together == apart
    assert LatentWire(wire=tiny_wire, receiver="llama", batch_size=2).generate_until(requests) == apart
    assert calls[-2:] == [2, 2]


def test_until_and_max_gen_toks_are_honoured_request_by_request(tiny_wire):
    model = LatentWire(wire=tiny_wire, receiver="llama", condition="text")
    whole = model.generate_until([asked(e, {"until": [], "max_gen_toks": 24}) for e in EXAMPLES])
    stops = [text[len(text) // 2] for text in whole]
    wishes = [{"until": [stop], "max_gen_toks": 24} for stop in stops]
    cut = model.generate_until([asked(e, wish) for e, wish in zip(EXAMPLES, wishes, strict=True)])
    assert cut == [text[: text.index(stop)].strip() for text, stop in zip(whole, stops, strict=True)]
    assert all(len(a) < len(b) for a, b in zip(cut, whole, strict=True))
    short = model.generate_until([asked(e, {"until": [], "max_gen_toks": 2}) for e in EXAMPLES])
    assert all(b.startswith(a) and len(a) < len(b) for a, b in zip(short, whole, strict=True))


def test_a_row_that_has_said_its_stop_leaves_the_batch(tiny_wire, monkeypatch):
    receiver = tiny_wire.get_receiver("llama")
    steps = []
    real = receiver.logits
    monkeypatch.setattr(receiver, "logits", lambda h: steps.append(len(h)) or real(h))
    model = LatentWire(wire=tiny_wire, receiver="llama", condition="text")
    whole = model.generate_until([asked(EXAMPLES[0], {"until": [], "max_gen_toks": 24})])[0]
    free = len(steps)
    model.generate_until([asked(EXAMPLES[0], {"until": [whole[1]], "max_gen_toks": 24})])
    assert len(steps) - free < free


@torch.no_grad()
def test_loglikelihood_is_what_the_frozen_model_gives_the_whole_prompt(tiny_wire, tiny_readers):
    plain = AutoModelForCausalLM.from_pretrained(tiny_readers["qwen2"]).eval()
    layout, said = tiny_wire.get_receiver("qwen2").prompt, [" Roald Amundsen", " 1911", " nobody knows"]
    model = LatentWire(wire=tiny_wire, receiver="qwen2", condition="text")
    got = model.loglikelihood([asked(e, word) for e in EXAMPLES for word in said])
    for (e, word), (value, greedy) in zip([(e, word) for e in EXAMPLES for word in said], got, strict=True):
        ids = layout.ids([word])[0]
        prompt = layout.head_ids() + layout.context_ids([e.context])[0] + layout.question_ids([e.question])[0]
        logits = plain(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert value == pytest.approx(float(logits[range(len(ids)), ids].sum()), abs=1e-3)
        assert greedy == (logits.argmax(-1).tolist() == ids)


def test_loglikelihood_knows_what_greedy_decoding_says_behind_latents(tiny_wire):
    model = LatentWire(wire=tiny_wire, receiver="llama", ratio=4)
    layout = tiny_wire.get_receiver("llama").prompt
    likeliest = {}
    for token in range(2, len(layout.tokenizer)):
        word = layout.tokenizer.decode([token])
        if layout.ids([word])[0] == [token]:
            likeliest[word] = None
    got = model.loglikelihood([asked(EXAMPLES[0], word) for word in likeliest])
    values = dict(zip(likeliest, got, strict=True))
    best = max(values, key=lambda word: values[word][0])
    assert [word for word, (_, greedy) in values.items() if greedy] in ([best], [])
    assert sum(2.718281828**value for value, _ in got) <= 1.001


def test_a_multiple_choice_task_runs(tiny_wire, tmp_path):
    (tmp_path / "choice.yaml").write_text(
        "task: choice\ncustom_dataset: !function latentwire.harness.tasks.rows\ntest_split: test\nnum_fewshot: 0\n"
        "output_type: multiple_choice\ndoc_to_choice: ['Roald Amundsen', 'Robert Scott']\ndoc_to_target: 0\n"
        f"doc_to_text: '{CONTEXT}{{{{context}}}}{QUESTION}{{{{question}}}}'\n"
    )
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({**vars(e), "answers": list(e.answers)}) for e in EXAMPLES))
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False, metadata={"data": str(data)})
    model = LatentWire(wire=tiny_wire, receiver="llama")
    found = simple_evaluate(model=model, tasks=["choice"], task_manager=tasks)
    assert found is not None
    right = [a > b for (a, _), (b, _) in (s["filtered_resps"] for s in found["samples"]["choice"])]
    assert found["results"]["choice"]["acc,none"] == sum(right) / len(right)


def test_answers_that_are_cached_are_not_asked_again(tiny_wire, rows, tmp_path, monkeypatch):
    model = LatentWire(wire=tiny_wire, receiver="llama")
    first = run(model, rows, use_cache=str(tmp_path / "cache"))
    monkeypatch.setattr(model_module, "generate", None)
    again = run(model, rows, use_cache=str(tmp_path / "cache"))
    assert again["results"] == first["results"]


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"receiver": "gpt9"}, "no receiver"),
        ({"ratio": 5}, "ratio"),
        ({"bits": 7}, "bits"),
        ({"condition": "telepathy"}, "no condition"),
        ({"mode": "chat"}, "mode"),
        ({"slots": 3}, "slots"),
        ({"latency": 1}, "no argument 'latency'"),
    ],
)
def test_an_argument_that_is_impossible_is_refused_before_any_request(tiny_wire, wish, why):
    with pytest.raises(UserError, match=why):
        LatentWire(wire=tiny_wire, **{"receiver": "llama", **wish})


def test_what_the_model_cannot_do_is_said(tiny_wire, rows):
    model = LatentWire(wire=tiny_wire, receiver="llama")
    with pytest.raises(UserError, match="loglikelihood_rolling"):
        model.loglikelihood_rolling([])
    with pytest.raises(UserError, match="chat_template"):
        run(model, rows, apply_chat_template=True)
    with pytest.raises(UserError, match="in front of"):
        run(model, rows, system_instruction="Answer briefly.")
    with pytest.raises(UserError, match="empty continuation"):
        model.loglikelihood([asked(EXAMPLES[0], "")])


@pytest.mark.usefixtures("own_tasks")
def test_the_command_says_what_eval_says(tiny_wire, rows, tmp_path, capsys, monkeypatch):
    tiny_wire.save_pretrained(tmp_path / "wire")
    monkeypatch.chdir(tmp_path)
    words = ["harness", "--tasks", str(TASKS / "squad.yaml"), "--metadata", f"data={rows}", "--output_path", "out"]
    arguments = ["--model_args", f"wire={tmp_path / 'wire'},receiver=qwen2,ratio=8", "--log_samples"]
    assert cli.main([*words, *arguments]) == 0
    assert "latentwire_squad" in capsys.readouterr().out
    (written,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(written.read_text())
    row = evaluate(tiny_wire, EXAMPLES, (8,), (16,), ["latents"], ["qwen2"], progress=False)["rows"][0]
    assert found["results"]["latentwire_squad"]["f1,none"] == pytest.approx(row["f1"], abs=1e-4)
    assert found["config"]["encoder"] == tiny_wire.fingerprint.hex()


@pytest.mark.usefixtures("own_tasks")
def test_a_slip_is_one_line(capsys):
    assert cli.main(["harness", "--tasks", "nothing.yaml"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: Tasks not found")


def test_the_shipped_task_has_the_questions_that_eval_draws():
    from latentwire.data.rows import draw, read_examples
    from latentwire.data.squad import shipped_valid
    from latentwire.harness.tasks import rows as task_rows

    drawn = draw(read_examples(shipped_valid()), 7, 3)
    assert task_rows(n=7, seed=3, wire="sandbox")["test"]["id"] == [e.id for e in drawn]


def test_without_the_harness_the_error_names_the_extra():
    code = "import sys; sys.modules['lm_eval'] = None\nfrom latentwire.cli import main\nsys.exit(main(['harness']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'latentwire[harness]'" in done.stderr
