"""What an evaluation measures: against plain transformers, and against the ways in which it was once wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from latentwire.conditions import Condition
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.evaluation.decoding import MAX_NEW_TOKENS
from latentwire.evaluation.results import key_of
from latentwire.evaluation.runner import evaluate
from latentwire.link import LinkConfig
from latentwire.packets import Packet
from latentwire.types import Example
from latentwire.wire import Wire, WireConfig

CONTEXTS = (
    "Roald Amundsen led the expedition to the South Pole. He arrived on 14 December 1911.",
    "The city has 1,204 inhabitants, a harbour and two schools.",
    "Łódź, 東京 and Reykjavík took note of the British party five weeks later. 🙂",
)
EXAMPLES = [
    Example("squad_v1-train-Pole-0-0", CONTEXTS[0], "Who led the expedition?", ("Roald Amundsen", "Amundsen")),
    Example("squad_v1-train-Pole-0-1", CONTEXTS[0], "When did he arrive at the pole, and on which day?", ("1911",)),
    Example("squad_v1-train-City-0-0", CONTEXTS[1], "How many?", ("1,204 inhabitants",)),
    Example("squad_v1-train-City-1-0", CONTEXTS[2], "Who took note?", ("Łódź, 東京 and Reykjavík", "Łódź")),
]
SCORES = ("em", "f1", "f1_ci", "nll", "first_token", "positions", "kv_positions", "own_ratio", "bytes", "cut", "na")


@pytest.fixture(scope="module")
def results(tiny_wire, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    return evaluate(tiny_wire, EXAMPLES, ratios=(4, 8), bits=(16, 4), out=out, progress=False)


def own_wire(reader, **shape):
    """A wire of one receiver, which is what its encoder was started from."""
    links = {reader.name: LinkConfig(receiver=str(reader))}
    encoder = LMEncoderConfig(**{"d_z": 32, "ratios": (4,), "window": 64, "init": str(reader)} | shape)
    return Wire.create(WireConfig(encoder, links), list(CONTEXTS)).eval()


@pytest.fixture(scope="module")
def wires(tiny_readers, tiny_wire):
    """A wire for each family."""
    return {"llama": tiny_wire, "qwen2": tiny_wire} | {name: own_wire(tiny_readers[name]) for name in ("gpt2", "gemma")}


def find(results, condition, receiver="llama", ratio=None, bits=None):
    key = (receiver, condition, ratio, bits)
    return next(r for r in results["rows"] if (r["receiver"], r["condition"], r["ratio"], r["bits"]) == key)


def run(wire, examples, *conditions, **given):
    return evaluate(wire, examples, conditions=conditions, progress=False, **given)


def plain(tiny_readers, wire, name, example, context):
    """The same question by plain transformers: one row, no padding, no prefix. Answer, nll, first token."""
    receiver = wire.get_receiver(name)
    prompt = receiver.prompt
    model = AutoModelForCausalLM.from_pretrained(tiny_readers[name], dtype=torch.float32, attn_implementation="eager")
    ids = prompt.head_ids() + prompt.context_ids([context])[0] + prompt.question_ids([example.question])[0]
    answer = prompt.answer_ids([example.answers[0]])[0]
    with torch.no_grad():
        logits = model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1]
        out = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=prompt.eos_id,
            pad_token_id=prompt.eos_id,
        )  # fmt: skip
    said = prompt.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).strip()
    nll = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(answer), reduction="sum")
    return said, float(nll), len(answer), int(logits[0].argmax())


def said(wire, examples, condition, tmp_path, **given):
    evaluate(wire, examples, conditions=[condition], out=tmp_path, progress=False, **given)
    return [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("condition", ["text", "none"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gemma"])
def test_text_is_what_plain_transformers_say(tiny_readers, wires, tmp_path, condition, name):
    """Defects 3, 7, 9 and 15: positions, layout, a bare receiver, and answers without the prompt."""
    wire = wires[name]
    row = find(run(wire, EXAMPLES, condition, receivers=[name], out=tmp_path), condition, name)
    found = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    total = tokens = right = 0
    for example, line in zip(EXAMPLES, found, strict=True):
        context = example.context if condition == "text" else ""
        answer, nll, count, first = plain(tiny_readers, wire, name, example, context)
        assert line["prediction"] == answer
        assert line["id"] == example.id
        golds = wire.get_receiver(name).prompt.answer_ids(list(example.answers))
        total, tokens, right = total + nll, tokens + count, right + any(first == gold[0] for gold in golds)
    assert row["nll"] == pytest.approx(total / tokens, abs=2e-4)
    assert row["first_token"] == right / len(EXAMPLES)


def test_defect_03_neighbours_in_a_batch_change_nothing(tiny_wire, results, monkeypatch):
    known = {key_of(row): row for row in results["rows"]}
    alone = evaluate(tiny_wire, EXAMPLES, ratios=(8,), bits=(16,), batch_size=1, progress=False)
    monkeypatch.setattr("latentwire.evaluation.giving.most_positions", lambda receiver: 700)
    few = evaluate(tiny_wire, EXAMPLES, ratios=(8,), bits=(16,), progress=False)
    assert len(alone["rows"]) == len(few["rows"]) > 15
    for other in (alone, few):
        for its in other["rows"]:
            mine = known[key_of(its)]
            for name in SCORES:
                assert mine[name] == (pytest.approx(its[name], abs=2e-4) if its[name] else its[name]), (mine, name)


def test_defect_04_a_text_beyond_the_window_is_cut_before_the_question(tiny_wire, tmp_path):
    long = [dataclasses.replace(EXAMPLES[0], context=CONTEXTS[0] * 12), EXAMPLES[2]]
    results = run(tiny_wire, long, "text", "latents", receivers=["llama"])
    text, latents = find(results, "text"), find(results, "latents", ratio=4, bits=16)
    receiver = tiny_wire.get_receiver("llama")
    assert text["cut"] == 1 and text["n"] == 2
    head, (asked, other) = len(receiver.prompt.head_ids()), receiver.prompt.question_ids([e.question for e in long])
    short = len(receiver.prompt.context_ids([CONTEXTS[1]])[0])
    # the whole question is there, and the longest answer fits behind it
    full = receiver.geometry.window - MAX_NEW_TOKENS
    assert text["positions"] == (full + head + short + len(other)) / 2
    assert text["kv_positions"] == (full - head - len(asked) + short) / 2
    # latents have no such limit: all of the text's are there
    assert latents["cut"] == 0
    packets = tiny_wire.encode([e.context for e in long], 4)
    assert latents["kv_positions"] == sum(len(p.z_MD) for p in packets) / 2 > 60


def test_defect_05_gold_answers_reach_no_model(tiny_wire, tmp_path):
    other = [dataclasses.replace(e, answers=("a much longer answer than it was " * 9,)) for e in EXAMPLES]
    for condition in ("text", "latents"):
        one = said(tiny_wire, EXAMPLES, condition, tmp_path / condition / "a")
        two = said(tiny_wire, other, condition, tmp_path / condition / "b")
        assert [line["prediction"] for line in one] == [line["prediction"] for line in two]


def test_defect_06_padding_does_not_reach_latents(tiny_wire):
    together = tiny_wire.encode_latents(list(CONTEXTS), 4)
    for place, text in enumerate(CONTEXTS):
        alone = tiny_wire.encode_latents([text], 4)
        torch.testing.assert_close(together.z_BMD[place, together.mask_BM[place]], alone.z_BMD[0], atol=1e-4, rtol=1e-4)


def test_defect_09_links_do_not_touch_the_text_conditions(tiny_wire, results):
    before = {name: tensor.clone() for name, tensor in tiny_wire.links.state_dict().items()}
    try:
        with torch.no_grad():
            for tensor in tiny_wire.links.parameters():
                tensor.add_(torch.randn_like(tensor))
        again = run(tiny_wire, EXAMPLES, "text", "none", "budget", "latents", ratios=(4,))
    finally:
        tiny_wire.links.load_state_dict(before)
    for condition, ratio, bits in (("text", None, None), ("none", None, None), ("budget", 4, 16)):
        old, new = (find(r, condition, ratio=ratio, bits=bits) for r in (results, again))
        assert all(old[name] == new[name] for name in SCORES)
    assert find(results, "latents", ratio=4, bits=16)["nll"] != find(again, "latents", ratio=4, bits=16)["nll"]


@pytest.mark.parametrize("mode", ["context", "prompt"])
def test_defect_13_bytes_are_exact_and_of_each_example(tiny_wire, mode):
    """Bytes are those of one packet (mean over examples), and a prompt's length is counted in positions."""
    results = run(tiny_wire, EXAMPLES, "text", "none", "latents", "budget-question", mode=mode, bits=(16, 8, 6, 4))
    asked = [e.question for e in EXAMPLES] if mode == "prompt" else None
    packets = tiny_wire.encode([e.context for e in EXAMPLES], 4, asked)
    for bits in (16, 8, 6, 4):
        row = find(results, "latents", ratio=4, bits=bits)
        assert row["bytes"] == pytest.approx(sum(len(p.to_bytes(bits)) for p in packets) / 4, abs=0.05)
        assert row["kv_positions"] == sum(len(p.z_MD) for p in packets) / 4
    sources = tiny_wire.source_texts([e.context for e in EXAMPLES], asked)
    assert find(results, "text")["bytes"] == pytest.approx(sum(len(text.encode()) for text in sources) / 4, abs=0.05)
    assert find(results, "none")["bytes"] < find(results, "budget-question", ratio=4, bits=16)["bytes"]
    prompt = tiny_wire.get_receiver("llama").prompt
    tails = [prompt.anchor_ids()] * 4 if asked else prompt.question_ids([e.question for e in EXAMPLES])
    positions = find(results, "latents", ratio=4, bits=16)["positions"]
    assert (
        positions == sum(len(prompt.head_ids()) + len(p.z_MD) + len(t) for p, t in zip(packets, tails, strict=True)) / 4
    )


def test_latents_answer_as_their_packets_do(tiny_wire, tmp_path):
    """A row of the table and ``Reading.generate`` on real packet bytes are the same thing."""
    for mode in ("context", "prompt"):
        asked = [e.question for e in EXAMPLES] if mode == "prompt" else None
        packets = tiny_wire.encode([e.context for e in EXAMPLES], 8, asked)
        packets = [Packet.from_bytes(packet.to_bytes(8), tiny_wire.fingerprint) for packet in packets]
        answers = tiny_wire.receiver("qwen2").generate(packets, [e.question for e in EXAMPLES])
        lines = said(
            tiny_wire, EXAMPLES, "latents", tmp_path / mode, ratios=(8,), bits=(8,), mode=mode, receivers=["qwen2"]
        )
        assert [line["prediction"] for line in lines] == answers


def test_controls_stand_where_latents_stand_and_say_something_else(results):
    latents = find(results, "latents", ratio=4, bits=16)
    for control in ("zero", "shuffled"):
        row = find(results, control, ratio=4, bits=16)
        assert row["nll"] != latents["nll"]
        assert all(row[name] == latents[name] for name in ("positions", "kv_positions", "bytes"))
    assert find(results, "wrong", ratio=4, bits=16)["nll"] != latents["nll"]
    assert find(results, "none")["kv_positions"] == 0 and find(results, "none")["own_ratio"] is None
    assert find(results, "text")["own_ratio"] == 1


def test_text_and_none_are_measured_once_and_controls_at_the_first_bits(results):
    keys = [(r["receiver"], r["condition"], r["ratio"], r["bits"]) for r in results["rows"]]
    # latents and same-bytes at each of the bits; two budgets and three controls at one
    assert len(keys) == len(set(keys)) == 2 * (2 + 2 * (2 * 2 + 5))
    assert {(r["ratio"], r["bits"]) for r in results["rows"] if r["condition"] in ("text", "none")} == {(None, None)}
    assert {r["bits"] for r in results["rows"] if r["condition"] in ("zero", "wrong", "budget")} == {16}
    assert {r["bits"] for r in results["rows"] if r["condition"] == "latents"} == {16, 4}


def test_same_bytes_is_not_applicable_until_the_packet_is_smaller(tiny_readers, results):
    # d_z 32 at 16 bits: 64 bytes a latent, more than the text it stands for
    row = find(results, "same-bytes", ratio=4, bits=16)
    assert row["f1"] is None and "no smaller" in row["na"] and row["n"] == len(EXAMPLES)
    # d_z 8 at 4 bits: 6 bytes a latent
    wire = own_wire(tiny_readers["llama"], d_z=8)
    long = [dataclasses.replace(EXAMPLES[0], context=CONTEXTS[0] * 3), EXAMPLES[2]]
    row = find(run(wire, long, "same-bytes", bits=(4,)), "same-bytes", ratio=4, bits=4)
    packets, texts = wire.encode([e.context for e in long], 4), [len(e.context.encode()) for e in long]
    assert packets[0].size(4) < texts[0] and packets[1].size(4) > texts[1]
    # one text is cut to its packet, the other is smaller than its own and stays whole
    assert row["na"] is None and row["bytes"] == (packets[0].size(4) + texts[1]) / 2


def test_rows_of_one_article_have_no_wrong_one(tiny_wire):
    row = find(run(tiny_wire, EXAMPLES[:2], "wrong"), "wrong", ratio=4, bits=16)
    assert row["f1"] is None and "one article" in row["na"]
    # without an article in the id another context is another article
    own = [dataclasses.replace(e, id=f"row {i}") for i, e in enumerate(EXAMPLES)]
    assert find(run(tiny_wire, own, "wrong"), "wrong", ratio=4, bits=16)["na"] is None


def test_a_receiver_with_learned_positions_never_leaves_its_window(wires):
    wire = wires["gpt2"]
    hard = [
        dataclasses.replace(EXAMPLES[0], context=CONTEXTS[0] * 9, answers=("a very long answer " * 20,)),
        dataclasses.replace(EXAMPLES[2], question="How many and " * 40 + "who?"),
    ]
    results = run(wire, hard, "text", "none", "latents")
    assert [row["cut"] for row in results["rows"]] == [2, 1, 1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"conditions": ["txt"]}, "no condition 'txt'.*latents"),
        ({"ratios": (3,)}, "made for ratios 4, 8"),
        ({"bits": (5,)}, "no codec of bits 5"),
        ({"receivers": ["gpt"]}, "no receiver 'gpt'.*llama"),
        ({"mode": "both"}, "context or prompt"),
        ({"gain": 0.0}, "gain is a number above 0"),
        ({"gain": float("nan")}, "gain is a number above 0"),
        ({"examples": []}, "no examples"),
        (
            {"examples": [dataclasses.replace(EXAMPLES[0], context=" ")]},
            "'squad_v1-train-Pole-0-0' has an empty context",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(tiny_wire, tmp_path, given, says):
    examples = given.pop("examples", EXAMPLES)
    with pytest.raises(UserError, match=says):
        evaluate(tiny_wire, examples, out=tmp_path, progress=False, **given)
    assert not list(tmp_path.iterdir())


def test_every_condition_has_a_row(results):
    assert {row["condition"] for row in results["rows"]} == {n for n, c in Condition.known().items() if c.by_default}


def test_a_receiver_that_was_not_made_for_so_many_slots_is_named(tiny_wire):
    with pytest.raises(UserError, match=r"llama cannot read that many slots .*--receivers leaves it out"):
        evaluate(tiny_wire, EXAMPLES, ratios=(4,), slots="half", progress=False)
