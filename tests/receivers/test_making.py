"""Recorded links: what replays make of other latents, and of fewer, is what the link makes of them.

Without a GPU, recordings are the same work again on the same tensors, and fail where work would wait for the device.
"""

from __future__ import annotations

from threading import Thread

import pytest
import torch

from conftest import FAMILIES, WORDS
from contracts.matrix import D_Z, INJECTIONS, config
from contracts.test_links import after, some_latents
from latentwire.adapters import AdapterConfig
from latentwire.injections import InjectionConfig
from latentwire.link import Link, LinkConfig
from latentwire.receivers import Receiver
from latentwire.receivers.load import load_receiver
from latentwire.receivers.making import Making
from latentwire.receivers.recorded import Recorded
from receivers.recorder import Recorder

RECORDED = ("kv-prefix", "kv-column", "soft-tokens", "soft-and-kv", "coprocessor")


@pytest.fixture(params=FAMILIES, scope="module")
def receiver(request, tiny_readers):
    return load_receiver(tiny_readers[request.param])


def link_of(receiver, readers, injection: str) -> Link:
    torch.manual_seed(0)
    made = LinkConfig(
        adapter=config(AdapterConfig, "mlp", readers, slots=(2,)), injection=config(InjectionConfig, injection, readers)
    )
    link = Link(made, D_Z, receiver).eval()
    link.calibrate(receiver, [WORDS, WORDS[:120]], 100)
    return link


@pytest.mark.parametrize("injection", INJECTIONS)
def test_replays_make_what_the_link_makes(receiver, tiny_readers, injection, caplog):
    link, recorder = link_of(receiver, tiny_readers, injection), Recorder()
    making = Making(recorder)

    @torch.no_grad()
    def same(counts, seed):
        latents = some_latents(counts, seed)
        made = making.run(lambda given: link(given, receiver), latents, ("context",))
        if injection in RECORDED:
            assert made is not None
            want = after(receiver, link(latents, receiver))
            torch.testing.assert_close(after(receiver, made), want, atol=2e-4, rtol=2e-4)
            assert made.next_B.tolist() == link(latents, receiver).next_B.tolist()
        return made

    first = same((5, 3, 1), 0)
    assert (first is not None) == (injection in RECORDED)
    if first is None:
        assert "it changes layers of the receiver" in caplog.text and making.made == 0
        return
    kept = [k.clone() for k, _ in first.kv]
    same((2, 9, 4, 4), 1)  # the same shape, padded, and other contents
    same((3, 2, 7), 2)
    assert recorder.replays == 3 and len(making.held) == 1 and making.made == 3
    # what was made before is still what it was
    assert all(torch.equal(a, k) for a, (k, _) in zip(kept, first.kv, strict=True))
    same((40,), 3)
    assert len(making.held) == 2


def test_a_wire_makes_prefixes_by_recordings_where_its_receiver_records(tiny_wire):
    packets = tiny_wire.encode([WORDS, WORDS[:90], WORDS[20:60]], ratio=4)
    reading, receiver = tiny_wire.receiver("llama"), tiny_wire.get_receiver("llama")
    want = reading.generate(packets, ["Who?", "When was it?", "Where?"], max_new_tokens=6)
    receiver.recorded = Recorded(Recorder(), 1 << 30)
    try:
        for _ in range(2):
            assert reading.generate(packets, ["Who?", "When was it?", "Where?"], max_new_tokens=6) == want
        assert receiver.recorded.making.made == receiver.recorded.begun == 2
        # training, slots that are asked for and several packets of a row take the ordinary way
        tiny_wire.prefix("llama", tiny_wire.latents(packets))
        with torch.no_grad():
            tiny_wire.prefix("llama", tiny_wire.latents(packets), seen=[])
        reading.generate([packets], ["Who?"], max_new_tokens=2)
        assert receiver.recorded.making.made == 2
    finally:
        receiver.recorded = None


def test_too_many_latents_and_a_cpu_take_the_ordinary_way(monkeypatch):
    latents = some_latents()
    with torch.no_grad():
        assert Making().run(lambda _: pytest.fail("nothing is recorded on a CPU"), latents, ()) is None
        monkeypatch.setattr("latentwire.receivers.making.MOST", 64)
        assert Making(Recorder()).run(lambda _: pytest.fail("too many"), latents, ()) is None


def test_threads_get_their_own(tiny_readers):
    receiver = load_receiver(tiny_readers["llama"])
    link, making = link_of(receiver, tiny_readers, "kv-column"), Making(Recorder())
    wrong = []

    @torch.no_grad()
    def ask(seed):
        for _ in range(5):
            latents = some_latents((4, 6), seed)
            made = making.run(lambda given: link(given, receiver), latents, ())
            want = link(latents, receiver)
            M = want.mask_BM.shape[1]
            if not torch.allclose(made.kv[0][0][:, :, :M], want.kv[0][0], atol=1e-5):
                wrong.append(seed)

    threads = [Thread(target=ask, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong and making.made == 20 and len(making.held) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("injection", RECORDED)
@pytest.mark.parametrize("family", FAMILIES)
def test_real_recordings_of_links_make_the_same(family, tiny_readers, injection, caplog):
    loaded = load_receiver(tiny_readers[family])
    receiver = Receiver(family, loaded.model.cuda(), loaded.tokenizer)
    link, making = link_of(receiver, tiny_readers, injection).cuda(), Making()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        for counts, seed in (((5, 3, 1), 0), ((2, 9, 4, 4), 1), ((3, 2, 7), 2), ((40,), 3)):
            latents = some_latents(counts, seed).to(torch.device("cuda"))
            made, want = making.run(lambda given: link(given, receiver), latents, ()), link(latents, receiver)
            assert made is not None and made.next_B.tolist() == want.next_B.tolist()
            # padding may stand between what tokens and what keys alone make, so only what is there is compared
            for row in range(len(counts)):
                ours, theirs = made.mask_BM[row], want.mask_BM[row]
                for (k, v), (k_there, v_there) in zip(made.kv, want.kv, strict=True):
                    torch.testing.assert_close(k[row, :, ours], k_there[row, :, theirs], atol=2e-2, rtol=2e-2)
                    torch.testing.assert_close(v[row, :, ours], v_there[row, :, theirs], atol=2e-2, rtol=2e-2)
    assert not caplog.records and making.made == 4
