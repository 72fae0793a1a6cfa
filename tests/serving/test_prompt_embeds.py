"""Packets for vLLM: the payload passes a loader written as vLLM's is documented, and holds what the receiver reads.

vLLM (``--enable-prompt-embeds``) decodes the base64 strictly, loads with ``weights_only`` on the CPU while invariants
of sparse tensors are checked, and takes one dense float tensor [tokens, hidden size].
"""

from __future__ import annotations

import base64
import binascii
import io

import pytest
import torch

from latentwire import Packet, UserError, cli
from latentwire.injections import InjectionConfig
from latentwire.serving.embeds import payload_text, prompt_embeds
from serving.conftest import QUESTION, TEXT, part, running


def loaded(text: str, hidden: int) -> torch.Tensor:
    """What vLLM makes of ``data``, or what it refuses."""
    with torch.sparse.check_sparse_tensor_invariants():
        tensor = torch.load(io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True, map_location="cpu")
        assert isinstance(tensor, torch.Tensor)
        tensor = tensor.to_dense()
    assert tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    assert tensor.dim() == 2 and tensor.shape[1] == hidden
    return tensor


@pytest.fixture(scope="module")
def soft_wire(tiny_readers):
    """``llama`` by soft tokens, ``qwen2`` by keys and values."""
    from latentwire.encoders.lm import LMEncoderConfig
    from latentwire.injections.soft_tokens import SoftTokensConfig
    from latentwire.link import LinkConfig
    from latentwire.wire import Wire, WireConfig

    torch.manual_seed(0)
    links = {
        "llama": LinkConfig(receiver=str(tiny_readers["llama"]), injection=SoftTokensConfig(multiple=1.0)),
        "qwen2": LinkConfig(receiver=str(tiny_readers["qwen2"])),
    }
    encoder = LMEncoderConfig(d_z=32, ratios=(4, 8), window=64, init=str(tiny_readers["llama"]))
    return Wire.create(WireConfig(encoder, links), [TEXT, TEXT[:40]]).eval()


@pytest.fixture(scope="module")
def packet(soft_wire) -> Packet:
    return Packet.from_bytes(soft_wire.encode([TEXT], 4)[0].to_bytes(8))


def test_latents_alone_are_what_the_receiver_reads(soft_wire, packet, monkeypatch):
    receiver, read = soft_wire.get_receiver("llama"), []
    states = type(receiver).states

    def watched(self, ids_BT=None, *, embeds_BTE=None, **more):
        if embeds_BTE is not None:
            read.append(embeds_BTE[0])
        return states(self, ids_BT, embeds_BTE=embeds_BTE, **more)

    monkeypatch.setattr(type(receiver), "states", watched)
    vectors = loaded(payload_text(prompt_embeds(soft_wire, "llama", packet)), receiver.geometry.width)
    assert len(vectors) == len(packet.z_MD)
    assert torch.equal(vectors, read[0])


def test_a_whole_prompt_stands_in_the_receivers_layout(soft_wire, packet):
    receiver = soft_wire.get_receiver("llama")
    alone, whole = (prompt_embeds(soft_wire, "llama", packet, question) for question in (None, QUESTION))
    head, tail = receiver.prompt.head_ids(), receiver.prompt.question_ids([QUESTION])[0]
    table = receiver.model.get_input_embeddings().weight
    assert torch.equal(whole, torch.cat([table[head], alone, table[tail]]))
    # a model of transformers goes on from it as it would from any prompt
    said = receiver.model.generate(inputs_embeds=whole[None], max_new_tokens=3, do_sample=False)
    assert said.shape == (1, 3) or receiver.prompt.eos_id in said


def test_a_packet_with_its_question_needs_none(soft_wire):
    (packet,) = soft_wire.encode([TEXT], 4, [QUESTION])
    whole = prompt_embeds(soft_wire, "llama", packet, "")
    receiver = soft_wire.get_receiver("llama")
    assert len(whole) == len(receiver.prompt.head_ids()) + len(packet.z_MD) + len(receiver.prompt.anchor_ids())
    with pytest.raises(UserError, match="already"):
        prompt_embeds(soft_wire, "llama", packet, QUESTION)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_payload_holds_nothing_but_its_vectors(soft_wire, packet, dtype):
    vectors = prompt_embeds(soft_wire, "llama", packet, dtype=dtype)
    data = base64.b64decode(payload_text(vectors))
    assert len(data) < vectors.nbytes + 3000, "no view of something larger was saved"
    assert loaded(payload_text(vectors), 32).dtype == getattr(torch, dtype)


def test_the_loader_of_this_test_refuses_what_vllm_refuses():
    with pytest.raises(binascii.Error):
        loaded("no base64!", 32)
    with pytest.raises(AssertionError):
        loaded(payload_text(torch.ones(3, 31)), 32)


def test_a_link_of_keys_and_values_is_refused_by_name(soft_wire, packet):
    with pytest.raises(UserError, match=r"'qwen2' injects by kv-prefix.*inject by soft-tokens"):
        prompt_embeds(soft_wire, "qwen2", packet)


def test_which_injections_are_vectors_alone():
    assert [name for name, kind in InjectionConfig.known().items() if kind.only_vectors] == ["soft-tokens"]


def test_a_link_with_lora_is_refused(soft_wire, packet, monkeypatch):
    monkeypatch.setattr(soft_wire.settings.links["llama"], "lora", object())
    with pytest.raises(UserError, match="LoRA"):
        prompt_embeds(soft_wire, "llama", packet)


def test_the_server_gives_the_same(soft_wire, packet):
    latent = part(packet, bits=8)["latent"]
    with running(soft_wire) as server:
        for question in (None, QUESTION):
            answer = server.post(
                "/v1/latents/prompt_embeds", {"model": "llama", "latent": latent, "question": question}
            ).json()
            wanted = prompt_embeds(soft_wire, "llama", packet, question)
            assert torch.equal(loaded(answer["data"], 32), wanted)
            assert (answer["tokens"], answer["width"], answer["dtype"]) == (*wanted.shape, "float32")
        error = server.error("/v1/latents/prompt_embeds", {"model": "qwen2", "latent": latent})
        assert "soft-tokens" in error["message"] and "kv-prefix" in error["message"]
        with server.http as client:
            found = client.get("/v1/models").json()["data"]
        models = {model["id"]: model["latentwire"]["prompt_embeds"] for model in found}
        assert models == {"llama": True, "qwen2": False}


def test_the_command_writes_bytes_or_base64(soft_wire, packet, tmp_path, capsys):
    soft_wire.save_pretrained(tmp_path / "wire")
    packet.save(tmp_path / "a.lw", bits=8)
    wanted = prompt_embeds(soft_wire, "llama", packet, QUESTION)
    argv = ["prompt-embeds", str(tmp_path / "wire"), str(tmp_path / "a.lw"), "-r", "llama", "-q", QUESTION]
    assert cli.main(argv) == 0
    assert torch.equal(loaded(capsys.readouterr().out.strip(), 32), wanted)
    assert cli.main([*argv, "-o", str(tmp_path / "a.pt"), "--dtype", "bfloat16"]) == 0
    assert f"{len(wanted)} vectors of 32 bfloat16" in capsys.readouterr().out
    written = base64.b64encode((tmp_path / "a.pt").read_bytes()).decode()
    assert torch.equal(loaded(written, 32), wanted.bfloat16())
    assert cli.main([*argv[:4], "qwen2"]) == 2
    assert "soft-tokens" in capsys.readouterr().err
    assert cli.main([*argv, "--dtype", "int8"]) == 2
    assert "--dtype" in capsys.readouterr().err
