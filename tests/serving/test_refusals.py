"""Whatever is wrong with a request is said in OpenAI's shape, with a status that fits, and costs nobody anything."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket

import httpx
import openai
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentwire.codecs import Codec
from serving.conftest import QUESTION, TEXT, asked, part, running

CHAT = "/v1/chat/completions"


def about(latent: dict | str, **more) -> dict:
    """A chat about whatever stands in the latent part."""
    content = [{"type": "latent", "latent": latent}, {"type": "text", "text": QUESTION}]
    return {"model": "llama", "messages": [{"role": "user", "content": content}], **more}


def sent(data: bytes) -> dict:
    return about({"data": base64.b64encode(data).decode()})


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[" * 50_000, b'"text"', b"[]", b"null"])
def test_bad_json(server, body):
    with server.http as client:
        answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"


def test_a_form_is_no_json(server):
    with server.http as client:
        answer = client.post(CHAT, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415 and "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("data", ["no base64!", "YQ", "ÿ"])
def test_bad_base64(server, data):
    error = server.error(CHAT, about({"data": data}))
    assert error["code"] == "bad_base64" and error["param"] == "messages.0.content.0.latent.data"


@pytest.mark.parametrize(
    ("latent", "param"),
    [
        ({}, "messages.0.content.0.latent.data"),
        ({"data": 5}, "messages.0.content.0.latent.data"),
        ({"data": "", "kind": "a"}, "messages.0.content.0.latent.kind"),
        ("AA==", "messages.0.content.0.latent"),
    ],
)
def test_the_field_that_is_wrong_is_named(server, latent, param):
    assert server.error(CHAT, about(latent))["param"] == param


@pytest.mark.parametrize("data", [b"", b"LW", b"no packet at all, but long enough to be one", b"\x80\x04N."])
def test_bytes_that_are_no_packet(server, data):
    assert server.error(CHAT, sent(data))["code"] == "invalid_packet"


def test_a_packet_of_another_wire(server, packets):
    stranger = dataclasses.replace(packets[0], encoder=b"stranger")
    error = server.error(CHAT, asked(stranger))
    assert error["code"] == "invalid_packet" and b"stranger".hex() in error["message"]


def test_a_damaged_packet(server, packets):
    data = bytearray(packets[0].to_bytes(8))
    data[-1] ^= 1
    assert "checksum" in server.error(CHAT, sent(bytes(data)))["message"]


def test_latents_that_are_no_numbers(server, packets, monkeypatch):
    """A packet that says NaN, with a checksum that fits: made by somebody who does not check."""
    z_MD = packets[0].z_MD.clone()
    z_MD[1, 2] = float("nan")
    monkeypatch.setattr(Codec, "encode", lambda self, z_MD: self.pack(z_MD))
    error = server.error(CHAT, asked(dataclasses.replace(packets[0], z_MD=z_MD)))
    assert error["code"] == "invalid_packet" and "not a number" in error["message"]


def test_a_packet_of_another_width_or_ratio(server, packets):
    wide = dataclasses.replace(packets[0], z_MD=torch.ones(3, 33))
    assert "33 values" in server.error(CHAT, asked(wide))["message"]
    assert "ratios 4, 8" in server.error(CHAT, asked(dataclasses.replace(packets[0], ratio=5)))["message"]


def test_wild_values_stay_in_their_own_row(server, packets):
    """The largest finite values that a packet holds: an answer or a refusal, never a failure of the server."""
    wild = dataclasses.replace(packets[0], z_MD=torch.full((3, 32), 65504.0), source_tokens=2**32 - 1)
    for temperature in (0.0, 1.0):
        assert server.post(CHAT, asked(wild, temperature=temperature)).status_code in (200, 400)
    assert server.post(CHAT, asked(packets[0])).status_code == 200


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "gpt-4"}, "llama, qwen2"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": 1e-9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10_000}, "at most 256"),
        ({"n": 2}, "n: only 1"),
        ({"top_p": 0.5}, "top_p: only 1"),
        ({"tools": []}, "tools"),
        ({"stop": [""]}, "stop"),
        ({"stop": list("abcde")}, "stop"),
        ({"seed": 2**64}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, "not a conversation"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "one question"),
        ({"messages": [{"role": "user", "content": " "}]}, "no question"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "image_url"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "window"),
        ({"messages": [{"role": "user", "content": "word " * 200}]}, "room for 0 tokens"),
        ({"messages": [{"role": "system", "content": "word " * 200}, {"role": "user", "content": "a"}]}, "as a packet"),
    ],
)
def test_fields_that_cannot_be(server, change, says):
    body = {"model": "llama", "messages": [{"role": "user", "content": QUESTION}]} | change
    error = server.error(CHAT, body, 404 if "model" in change else 400)
    assert says in error["message"], error


@pytest.mark.parametrize("body", [
    b'{"model": "llama", "messages": [{"role": "user", "content": "\\ud800?"}]}',
    b'{"model": "llama", "messages": [{"role": "user", "content": "?"}], "\\ud800": 1}',
    b'{"model": "llama", "messages": [{"role": "user", "content": "?"}], "stop": "\\udfff"}',
])  # fmt: skip
def test_half_a_surrogate_pair_is_no_text(server, body):
    with server.http as client:
        answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_text_beside_its_latents_has_one_place(server, packets):
    body = asked(packets[0])
    body["messages"].insert(0, {"role": "system", "content": TEXT})
    assert "one of them" in server.error(CHAT, body)["message"]
    body["messages"] = [{"role": "system", "content": [part(packets[0])]}, {"role": "user", "content": "a"}]
    assert "user message" in server.error(CHAT, body)["message"]


def test_a_format_that_is_not_that_of_the_data(server, packets):
    latent = part(packets[0])["latent"] | {"format": "wav"}
    assert "format" in server.error(CHAT, about(latent))["message"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input": ""}, "empty"),
        ({"input": ["a", " \n"]}, "text 1 is empty"),
        ({"input": []}, "1 to 64"),
        ({"input": ["a"] * 65}, "1 to 64"),
        ({"ratio": 5}, "ratios 4, 8"),
        ({"bits": 5}, "bits"),
        ({"codes": 1}, "this wire has no codes"),
        ({"question": ["a", "b"]}, "2 questions"),
        ({"model": "gpt-4"}, "llama"),
        ({"input": "word " * 200_000}, "higher ratio"),
    ],
)
def test_texts_that_cannot_be_encoded(server, change, says):
    error = server.error("/v1/latents", {"input": TEXT} | change, 404 if "model" in change else 400)
    assert says in error["message"], error


def test_a_text_of_too_many_latents_is_refused_alone(tiny_wire):
    with running(tiny_wire, latents=20) as server:
        error = server.error("/v1/latents", {"input": "1 2 3 4 5 6 7 8 9 0 " * 8})
        assert error["code"] == "context_length_exceeded"
        packet = tiny_wire.encode(["1 2 3 4 5 6 7 8 9 0 " * 8], 4)[0]
        assert server.error(CHAT, asked(packet))["code"] == "context_length_exceeded"
        assert server.post("/v1/latents", {"input": "Oslo"}).status_code == 200


def test_unknown_places(server):
    with server.http as client:
        for answer in (client.get("/v1/nothing"), client.get(CHAT), client.get("/v1/models/gpt-4")):
            assert answer.status_code in (404, 405) and answer.json()["error"]["message"]


def test_the_client_raises_its_own_errors(server, packets):
    client = server.openai()
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.chat.completions.create(**asked(packets[0], model="gpt-4"))
    with pytest.raises(openai.BadRequestError, match="one question"):
        client.chat.completions.create(model="llama", messages=[{"role": "user", "content": "a"}] * 2)


def raw(server, head: bytes) -> socket.socket:
    address = httpx.URL(server.url)
    sock = socket.create_connection((address.host, address.port), timeout=30)
    sock.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode() + head + b"\r\n\r\n")
    return sock


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_a_body_of_100_mb_is_refused_before_it_is_sent(server):
    with raw(server, b"Content-Length: 104857600") as sock:
        answer = read_all(sock)  # ends because the server closes; nothing of the body was sent
    assert b" 413 " in answer.splitlines()[0] and b'"body_too_large"' in answer
    assert b"connection: close" in answer.lower()


def test_a_client_that_sends_100_mb_gets_the_refusal(server):
    body = b"[" + b" " * (100 << 20) + b"]"
    with server.http as client:
        answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_a_body_without_a_length_is_read_to_the_limit_and_no_further(tiny_wire):
    with running(tiny_wire, body=1 << 20) as server, raw(server, b"Transfer-Encoding: chunked") as sock:
        chunk, taken = b"10000\r\n" + b" " * (1 << 16) + b"\r\n", 0
        with pytest.raises(OSError):  # the connection is closed on whoever goes on sending
            for _ in range(1600):
                sock.sendall(chunk)
                taken += 1 << 16
        assert taken < 32 << 20  # what the system's buffers took in beyond the limit


def test_a_length_that_is_none(server):
    with raw(server, b"Content-Length: -5") as sock:
        assert b" 4" in read_all(sock).splitlines()[0]


def test_keys(tiny_wire, packets):
    with running(tiny_wire, keys=("first key", "zweiter-schlüssel")) as server:
        for key in ("first key", "zweiter-schlüssel"):
            header = {"Authorization": f"Bearer {key}".encode()}
            assert server.post(CHAT, asked(packets[0]), headers=header).status_code == 200
        with pytest.raises(openai.AuthenticationError, match="Bearer"):
            server.openai("first ke").chat.completions.create(**asked(packets[0]))
        assert server.openai("first key").models.list().data
        with server.http as client:
            assert client.get("/health").status_code == 200
            for path in ("/metrics", "/v1/models", "/openapi.json"):
                answer = client.get(path)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            for given in ("first key", "Basic first key", "Bearer", "Bearer first keyfirst key"):
                assert client.get("/metrics", headers={"Authorization": given}).status_code == 401
        # refused before the body is looked at
        with server.http as client:
            assert client.post(CHAT, content=b"{", headers={"content-type": "application/json"}).status_code == 401


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/latents"]),
    body=st.fixed_dictionaries(
        {"model": st.just("llama")},
        optional={"messages": JSON, "prompt": JSON, "input": JSON, "stop": JSON, "max_tokens": st.just(1) | JSON},
    ),
)
def test_no_json_makes_the_server_fail(server, path, body):
    with server.http as client:  # as Python writes JSON, which may hold NaN and halves of surrogate pairs
        answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_no_bytes_make_the_server_fail(server, packets, place, byte):
    data = bytearray(packets[1].to_bytes(8))
    data[place % len(data)] = byte
    answer = server.post(CHAT, sent(bytes(data)) | {"max_tokens": 1, "temperature": 1.0})
    assert answer.status_code in (200, 400), answer.text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 40), st.sampled_from([1, 31, 32, 33])),
    scale=st.sampled_from([0.0, 1e-7, 1.0, 6e4]),
    ratio=st.sampled_from([1, 4, 8, 65_535]),
    source=st.sampled_from([1, 40, 100_000, 2**32 - 1]),
)
def test_no_packet_makes_the_server_fail(server, packets, shape, scale, ratio, source):
    """Forged with care: checksum and counts fit, what they say cannot be."""
    z_MD = scale * torch.ones(shape).cumsum(-1).sin()
    forged = dataclasses.replace(packets[0], z_MD=z_MD, ratio=ratio, source_tokens=source)
    answer = server.post(CHAT, asked(forged, max_tokens=2, temperature=1.0))
    assert answer.status_code in (200, 400), answer.text
