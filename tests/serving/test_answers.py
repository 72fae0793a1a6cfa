"""The real OpenAI client against a real server: every answer is the one that the wire gives offline."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from latentwire import Packet
from latentwire.receivers.recorded import Recorded
from receivers.recorder import Recorder
from serving.conftest import QUESTION, TEXT, asked, part, running


def offline(wire, packet, question=QUESTION, model="llama", **more):
    return wire.receiver(model).generate(packet, question, **more)


@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_a_chat_about_latents_is_answered_as_offline(server, tiny_wire, packets, model):
    answer = server.openai().chat.completions.create(**asked(packets[0], model=model))
    assert answer.choices[0].message.content == offline(tiny_wire, packets[0], model=model) != ""
    assert answer.object == "chat.completion" and answer.model == model
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    (took,) = answer.latentwire
    assert took["context_positions"] == len(packets[0].z_MD) and took["prompt_positions"] == answer.usage.prompt_tokens


def test_a_text_as_system_message_is_answered_as_offline(server, tiny_wire):
    messages = [{"role": "system", "content": TEXT}, {"role": "user", "content": QUESTION}]
    answer = server.openai().chat.completions.create(model="llama", messages=messages)
    assert answer.choices[0].message.content == tiny_wire.receiver("llama").answer(TEXT, QUESTION)


def test_a_stream_adds_up_to_the_whole(server, tiny_wire, packets):
    stream = server.openai().chat.completions.create(
        **asked(packets[0], max_tokens=40), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == offline(tiny_wire, packets[0], max_new_tokens=40)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 2
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage.completion_tokens > 0 and len({chunk.id for chunk in chunks}) == 1


def test_completions_answer_several_prompts_at_once(server, tiny_wire, packets):
    prompts = [
        [part(packets[0]), {"type": "text", "text": QUESTION}],
        [{"type": "text", "text": "Where?"}, part(packets[1], bits=8)],
    ]
    answer = server.openai().completions.create(model="qwen2", prompt=prompts, max_tokens=7)
    sent = Packet.from_bytes(packets[1].to_bytes(8))
    wanted = [
        offline(tiny_wire, packets[0], model="qwen2", max_new_tokens=7),
        offline(tiny_wire, sent, "Where?", model="qwen2", max_new_tokens=7),
    ]
    assert [choice.text for choice in answer.choices] == wanted
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_completions_stream_each_choice(server, tiny_wire, packets):
    prompts = [[part(packets[0]), {"type": "text", "text": question}] for question in (QUESTION, "Where?")]
    said = {0: "", 1: ""}
    for chunk in server.openai().completions.create(model="llama", prompt=prompts, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.text
    assert list(said.values()) == [offline(tiny_wire, packets[0], question) for question in (QUESTION, "Where?")]


def test_a_question_without_any_context(server):
    answer = server.openai().completions.create(model="llama", prompt=QUESTION)
    assert answer.choices[0].text and answer.latentwire[0]["context_positions"] == 0


def test_a_seed_draws_what_it_draws_offline(server, tiny_wire, packets):
    ask = server.openai().chat.completions.create
    for seed in (0, 7):
        answer = ask(**asked(packets[0], temperature=1.0, seed=seed))
        assert answer.choices[0].message.content == offline(tiny_wire, packets[0], temperature=1.0, seed=seed)
    assert ask(**asked(packets[0], temperature=1.0, seed=0)) != ask(**asked(packets[0], temperature=1.0, seed=7))


def test_an_answer_ends_in_front_of_its_stop(server, tiny_wire, packets):
    whole = offline(tiny_wire, packets[0])
    stop = whole[4:7]
    for streamed in (False, True):
        answer = server.openai().chat.completions.create(
            **asked(packets[0], stop=["never said", stop]), stream=streamed
        )
        if streamed:
            chunks = list(answer)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            finish = chunks[-1].choices[0].finish_reason
        else:
            said, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert said == whole[: whole.find(stop)].strip() and finish == "stop"


def test_slots_and_prompt_mode_are_answered_as_offline(server, tiny_wire):
    (packet,) = tiny_wire.encode([TEXT], 4, [QUESTION])
    content = [part(packet)]
    body = {"model": "llama", "messages": [{"role": "user", "content": content}]}
    answer = server.openai().chat.completions.create(**body, extra_body={"slots": 1})
    assert answer.choices[0].message.content == offline(tiny_wire, packet, slots=1)
    content.append({"type": "text", "text": "Another?"})
    assert "already" in server.error("/v1/chat/completions", body)["message"]
    assert "slots" in server.error("/v1/chat/completions", {**body, "slots": 3})["message"]


def test_the_best_of_several_latent_parts_is_read(server, tiny_wire, packets):
    texts = [TEXT[:60], TEXT[20:90], TEXT[40:]]
    made = tiny_wire.encode(texts, ratio=4)
    reading = tiny_wire.receiver("llama")
    content = [*map(part, made), {"type": "text", "text": QUESTION}]
    body = {"model": "llama", "messages": [{"role": "user", "content": content}], "max_tokens": 8}
    for best in (1, 2):
        (kept,) = reading.sifted([made], [QUESTION], best)
        alone = {**body, "messages": [{"role": "user", "content": [*map(part, kept), content[-1]]}]}
        got, wanted = (server.post("/v1/chat/completions", each).json() for each in ({**body, "best": best}, alone))
        assert got["choices"][0]["message"] == wanted["choices"][0]["message"]
        assert got["usage"] == wanted["usage"], "positions are of what was read"
    assert server.error("/v1/chat/completions", {**body, "best": 0})["param"] == "best"
    every = [server.post("/v1/chat/completions", {**body, **more}).json()["usage"] for more in ({}, {"best": 3})]
    assert every[0] == every[1]


def test_several_latent_parts_are_read_as_one_text(server, tiny_wire):
    halves = tiny_wire.encode([TEXT, TEXT], 4)
    content = [*map(part, halves), {"type": "text", "text": QUESTION}]
    answer = server.openai().chat.completions.create(model="llama", messages=[{"role": "user", "content": content}])
    assert answer.latentwire[0]["context_positions"] == 2 * len(halves[0].z_MD)
    mixed = [part(halves[0]), part(tiny_wire.encode([TEXT], 8)[0]), {"type": "text", "text": QUESTION}]
    body = {"model": "llama", "messages": [{"role": "user", "content": mixed}]}
    assert "one ratio" in server.error("/v1/chat/completions", body)["message"]


def test_texts_become_the_packets_that_they_become_offline(server, tiny_wire):
    texts = [TEXT, "Oslo.", "x " * 150]
    answer = server.post("/v1/latents", {"input": texts, "ratio": 8, "bits": 4, "norms": True}).json()
    for row, packet in zip(answer["data"], tiny_wire.encode(texts, 8), strict=True):
        data = base64.b64decode(row["latent"]["data"])
        assert len(data) == row["bytes"] == packet.size(4)
        received = Packet.from_bytes(data, tiny_wire.fingerprint)
        wanted = Packet.from_bytes(packet.to_bytes(4))
        assert (received.z_MD - wanted.z_MD).abs().max() < 1e-2  # rounding may fall to either side of a step
        assert len(row["norms"]) == row["latents"] == len(packet.z_MD)
        assert row["norms"] == pytest.approx(received.z_MD.norm(dim=-1).tolist(), abs=1e-3)


def test_what_latents_gives_goes_into_a_prompt_as_it_is(server, tiny_wire):
    row = server.post("/v1/latents", {"input": TEXT}).json()["data"][0]
    content = [{"type": "latent", "latent": row["latent"]}, {"type": "text", "text": QUESTION}]
    answer = server.openai().chat.completions.create(model="llama", messages=[{"role": "user", "content": content}])
    packet = Packet.from_bytes(base64.b64decode(row["latent"]["data"]))
    assert answer.choices[0].message.content == offline(tiny_wire, packet)


def test_models_are_the_receivers(server, tiny_wire):
    client = server.openai()
    found = client.models.list().data
    assert [model.id for model in found] == tiny_wire.receivers
    assert found[0].latentwire["ratios"] == [4, 8] and found[0].latentwire["bits"][0] == 16
    assert client.models.retrieve("qwen2").id == "qwen2"


def test_many_at_once_are_neither_lost_nor_mixed_up(server, tiny_wire, packets):
    """Lengths, stops, temperatures, seeds, receivers and contexts of every kind, in the same batches."""
    cases = []
    for number in range(24):
        model, packet = ("llama", "qwen2")[number % 2], packets[number // 2 % 2]
        sampling = {"max_new_tokens": 1 + number % 9, "temperature": (0.0, 0.8)[number % 3 == 1], "seed": number}
        cases.append((model, packet, f"Who is number {number}?", sampling))

    def ask(case):
        model, packet, question, sampling = case
        more = {
            "max_tokens": sampling["max_new_tokens"],
            "temperature": sampling["temperature"],
            "seed": sampling["seed"],
        }
        answer = server.openai().chat.completions.create(**asked(packet, question, model, **more))
        return answer.choices[0].message.content, answer.latentwire[0]["batch"]

    with ThreadPoolExecutor(len(cases)) as pool:
        got = list(pool.map(ask, cases))
    wanted = [offline(tiny_wire, packet, question, model, **sampling) for model, packet, question, sampling in cases]
    assert [text for text, _ in got] == wanted
    assert max(rows for _, rows in got) > 1, "none of them shared a batch"


def test_recorded_decoding_answers_as_offline(tiny_wire, packets):
    cases = [
        {"max_new_tokens": 2 + number, "temperature": (0.0, 0.8)[number % 2], "seed": number} for number in range(6)
    ]
    wanted = [offline(tiny_wire, packets[number % 2], **case) for number, case in enumerate(cases)]
    receiver = tiny_wire.get_receiver("llama")

    def ask(number):
        case = {**cases[number], "max_tokens": cases[number]["max_new_tokens"]}
        del case["max_new_tokens"]
        return server.openai().chat.completions.create(**asked(packets[number % 2], **case)).choices[0].message.content

    receiver.recorded = recorded = Recorded(Recorder(), 1 << 28)
    try:
        with running(tiny_wire) as server, ThreadPoolExecutor(6) as pool:
            assert list(pool.map(ask, range(6))) == wanted
        assert recorded.begun > 0 and len(recorded.idle) > 0
    finally:
        receiver.recorded = None


def test_what_is_counted(server, packets):
    server.openai().chat.completions.create(**asked(packets[0], max_tokens=3))
    server.error("/v1/chat/completions", {"model": "llama"})
    with server.http as client:
        assert client.get("/health").json()["status"] == "ok"
        lines = client.get("/metrics").text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    route = 'route="/v1/chat/completions"'
    assert float(samples[f'latentwire_requests_total{{{route},status="200"}}']) >= 1
    assert float(samples[f'latentwire_errors_total{{{route},code="invalid_value"}}']) >= 1
    assert float(samples['latentwire_tokens_total{kind="written"}']) >= 3
    assert samples["latentwire_queue_depth"] == "0"
    edges = [name for name in samples if name.startswith(f"latentwire_request_seconds_bucket{{{route}")]
    assert float(samples[edges[-1]]) == float(samples[f"latentwire_request_seconds_count{{{route}}}"])
    counts = [float(samples[edge]) for edge in edges]
    assert counts == sorted(counts)
    assert any(name.startswith("latentwire_batch_rows_bucket") for name in samples)
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert len(typed) == 10
    assert 0 <= float(samples["latentwire_prefix_cache_hits"]) < float(samples["latentwire_prefix_cache_queries"])
    assert float(samples["latentwire_prefix_cache_bytes"]) > 0


def test_the_description_of_the_routes_is_there(server):
    with server.http as client:
        described = client.get("/openapi.json").json()
    assert {"/v1/latents", "/v1/chat/completions"} <= set(described["paths"]) and json.dumps(described)
