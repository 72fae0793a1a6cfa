"""Recorded decoding says what ordinary decoding says.

Mostly without a GPU: what is tested is that the passes can be recorded at all (nothing in them waits for the device or
comes from another), and that replays on the same tensors decode other contents, and rows that end, as the ordinary way
does. Where there is a GPU, the last test makes real recordings.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import tiny_tokenizer
from contracts.waits import StaysOn
from latentwire.receivers import Receiver
from latentwire.receivers.decode import generate, steps
from latentwire.receivers.recorded import Recorded
from latentwire.receivers.room import Pass, Room
from latentwire.types import LayerBlock, Prefix
from receivers.families import FAMILIES, VOCABULARY, model_of
from receivers.recorder import Recorder

KINDS = ("llama", "qwen2", "qwen2, sliding", "mistral, sliding", "gemma2", "gemma3", "gpt2", "opt")
TAILS = [[7, 8, 9], [11, 12, 13, 14, 15, 16, 17], [21], list(range(30, 48)), [60, 61]]
LENGTHS = (12, 19, 5, 9, 16)
LARGE = 1 << 30


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(VOCABULARY - 20, digits=False)


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tokenizer):
    return Receiver(request.param, model_of(request.param), tokenizer)


@pytest.fixture(scope="module")
def llama(tokenizer):
    return Receiver("llama", model_of("llama"), tokenizer)


@torch.no_grad()
def contexts(receiver, lengths=LENGTHS, seed=0) -> Prefix:
    """Texts of these lengths, each read alone: a prefix with padded rows."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(5, VOCABULARY - 20, (1, length), generator=generator) for length in lengths]
    rows = [ids.to(receiver.device) for ids in rows]
    return Prefix.stacked([receiver.read(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in rows])


def decoded(receiver, prefix, tails, recorded=None, ends=(), most=8):
    """What is said at each step, and the logits that it was chosen by. ends: steps behind which rows are ended."""
    logits, said, ended = [], [], set()

    def choose(step, rows, logits_BV):
        logits.append((list(rows), logits_BV.clone()))
        logits_BV[:, receiver.prompt.eos_id] = float("-inf")
        return logits_BV.argmax(-1)

    receiver.recorded = recorded
    try:
        with torch.no_grad():
            for step, tokens in enumerate(steps(receiver, prefix, tails, most, choose, ended)):
                said.append(tokens)
                ended.update(row for row, at in dict(ends).items() if at == step)
    finally:
        receiver.recorded = None
    return said, logits


def assert_same(receiver, prefix, tails, recorded, **options):
    want_said, want = decoded(receiver, prefix, tails, **options)
    before = recorded.begun
    said, got = decoded(receiver, prefix, tails, recorded, **options)
    assert recorded.begun == before + 1
    assert said == want_said
    for (rows, logits), (rows_there, logits_there) in zip(got, want, strict=True):
        assert rows == rows_there
        torch.testing.assert_close(logits, logits_there, atol=2e-4, rtol=2e-4)


def test_every_family_says_the_same_whatever_its_rows_hold_and_when_they_end(kind):
    recorder = Recorder()
    recorded = Recorded(recorder, LARGE)
    ends = {0: 1, 2: 3, 4: 3}
    assert_same(kind, contexts(kind), TAILS, recorded, ends=ends)
    # one recording for tails, one for tokens, in one memory
    assert recorder.pools == [None, recorder] and recorder.replays == 8
    # other contents of the same shape, tails a token shorter: what was there before has left nothing behind
    others = [[token + 3 for token in tail[:17]] for tail in reversed(TAILS)]
    assert_same(kind, contexts(kind, LENGTHS[::-1], 1), others, recorded, ends={1: 0, 3: 2})
    assert len(recorder.pools) == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_in_a_pass_travels_between_devices(name, tokenizer):
    """On a device without memory: what a pass made on the CPU, or asked back, could not be recorded."""
    receiver = Receiver(name, model_of(name).to("meta"), tokenizer)
    shape = torch.Size((1, receiver.geometry.kv_heads, 5, receiver.geometry.head_dim))
    room = Room((2, 256, 0), 0, [shape] * 2 * receiver.geometry.layers, receiver)
    for width in (16, 1):
        ids = torch.zeros(2, width, dtype=torch.long, device="meta")
        with torch.no_grad(), StaysOn("meta"):
            logits = room.go(receiver, Pass(ids, ids.bool()))
        assert logits.shape == (2, VOCABULARY)


def test_a_tail_of_one_token_needs_one_recording(llama):
    recorder = Recorder()
    assert_same(llama, contexts(llama, (4,)), [[9]], Recorded(recorder, LARGE))
    assert len(recorder.pools) == 1


def test_one_prefix_serves_all_rows(llama):
    one = contexts(llama, (9,))
    assert_same(llama, one, TAILS[:3], Recorded(Recorder(), LARGE))


def test_an_empty_tail_among_others(llama):
    assert_same(llama, contexts(llama, (9, 5)), [[], [8, 9]], Recorded(Recorder(), LARGE))


def test_ended_rows_may_run_beyond_learned_positions(tokenizer):
    receiver = Receiver("gpt2", model_of("gpt2"), tokenizer)
    prefix = contexts(receiver, (118, 9, 8, 7, 9))
    assert_same(receiver, prefix, [[7, 8]] * 5, Recorded(Recorder(), LARGE), ends={0: 3}, most=24)


def test_latents_that_stand_between_two_tokens_count_in_sliding_windows(tokenizer):
    receiver = Receiver("mistral, sliding", model_of("mistral, sliding"), tokenizer)
    prefix = contexts(receiver, (9, 7))
    assert prefix.positions_BM is not None
    between = replace(prefix, positions_BM=prefix.positions_BM + 0.5)
    assert_same(receiver, between, TAILS[:2], Recorded(Recorder(), LARGE))


def test_what_is_no_number_leaves_with_its_batch(llama):
    recorded, prefix = Recorded(Recorder(), LARGE), contexts(llama)
    broken = [(torch.full_like(k, float("nan")), v) for k, v in prefix.kv]
    decoded(llama, replace(prefix, kv=broken), TAILS, recorded)
    assert_same(llama, prefix, TAILS, recorded)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_by_the_same_seed(llama, temperature):
    prefix = contexts(llama)

    def answers():
        # rows stop at different lengths, and those that leave take no part in what is drawn
        return generate(
            llama, prefix, TAILS, 12, 3, temperature, seed=5, stop=lambda ids: len(ids) >= 4 and ids[-1] % 3 == 0
        ).ids

    want, llama.recorded = answers(), Recorded(Recorder(), LARGE)
    try:
        assert answers() == want and answers() == want and llama.recorded.begun == 2
    finally:
        llama.recorded = None
    assert len({len(ids) for ids in want}) > 1


def test_the_rooms_used_last_are_kept_within_the_bound(llama):
    recorder = Recorder()
    one = 2 * 3 * 2 * 8 * 256 * 4  # keys and values, layers, heads, width, places, bytes of a number
    recorded = Recorded(recorder, 3 * one)
    prefixes = {rows: contexts(llama, LENGTHS[:rows]) for rows in (1, 2, 4)}

    def ask(rows):
        assert_same(llama, prefixes[rows], TAILS[:rows], recorded, most=3)
        return [room.kind[0] for room in recorded.idle], len(recorder.pools)

    assert ask(1) == ([1], 2)
    assert ask(2) == ([1, 2], 4)
    assert ask(1) == ([2, 1], 4)
    assert recorded.held == 3 * one
    # four rows are more than the bound: nothing is recorded, and no other room has to make way
    assert decoded(llama, prefixes[4], TAILS[:4], recorded)[0] == decoded(llama, prefixes[4], TAILS[:4])[0]
    assert recorded.begun == 3 and len(recorded.idle) == 2
    assert_same(llama, contexts(llama, (300,)), TAILS[:1], recorded, most=3)
    assert [room.kind[:2] for room in recorded.idle] == [(1, 256), (1, 512)] and recorded.held == 3 * one
    assert ask(2) == ([2], 8)


@pytest.mark.parametrize("bound", [LARGE, 2 * 3 * 2 * 8 * 256 * 4 * 2])
def test_two_batches_at_once_do_not_meet(llama, bound):
    prefixes = [contexts(llama, LENGTHS[:2], seed) for seed in (1, 2)]
    want = [decoded(llama, prefix, TAILS[:2])[0] for prefix in prefixes]
    llama.recorded = recorded = Recorded(Recorder(), bound)

    def choose(step, rows, logits_BV):
        logits_BV[:, llama.prompt.eos_id] = float("-inf")
        return logits_BV.argmax(-1)

    try:
        with torch.no_grad():
            for _ in range(2):  # with new rooms, and with those that were given back
                both = [steps(llama, prefix, TAILS[:2], 8, choose, set()) for prefix in prefixes]
                said = list(zip(*both, strict=True))
                assert [[tokens[number] for tokens in said] for number in (0, 1)] == want
            # where there is memory for one room, the other batch goes the ordinary way
            assert len(recorded.idle) == (2 if bound == LARGE else 1) and recorded.begun == 2 * len(recorded.idle)
            left = steps(llama, prefixes[0], TAILS[:2], 8, choose, set())
            next(left)
            count = len(recorded.idle)
            left.close()  # whoever leaves early gives the room back too
            assert len(recorded.idle) == count + 1
    finally:
        llama.recorded = None


def test_a_recording_that_fails_is_said_once_and_the_answer_is_the_ordinary_one(llama, caplog):
    tried = []

    def record(work, pool):
        tried.append(pool)
        raise RuntimeError("operation not permitted when stream is capturing\nsecond line")

    recorded, prefix = Recorded(record, LARGE), contexts(llama)
    want = decoded(llama, prefix, TAILS)[0]
    for _ in range(2):
        assert decoded(llama, prefix, TAILS, recorded)[0] == want
    (line,) = [record.getMessage() for record in caplog.records]
    assert "llama could not record" in line and line.endswith("when stream is capturing")
    assert tried == [None] and recorded.held == recorded.begun == 0


def test_no_memory_for_one_shape_leaves_the_others(llama, caplog):
    recorder = Recorder()

    def record(work, pool):
        if not recorder.pools:
            recorder.pools.append("short")
            raise torch.cuda.OutOfMemoryError("out of memory")
        return recorder(work, pool)

    recorded = Recorded(record, LARGE)
    small, large = contexts(llama, LENGTHS[:1]), contexts(llama, LENGTHS[:2])
    for _ in range(2):
        assert decoded(llama, large, TAILS[:2], recorded)[0] == decoded(llama, large, TAILS[:2])[0]
    assert recorded.begun == 0 and len(caplog.records) == 1
    assert_same(llama, small, TAILS[:1], recorded)


def test_weights_that_moved_are_not_read_where_they_were(llama):
    recorder = Recorder()
    recorded, prefix = Recorded(recorder, LARGE), contexts(llama)
    assert_same(llama, prefix, TAILS, recorded)
    words = llama.model.get_input_embeddings()
    words.weight.data = words.weight.data.clone()
    assert_same(llama, prefix, TAILS, recorded)
    assert len(recorder.pools) == 4


def test_what_a_room_cannot_hold_goes_the_ordinary_way(llama, tokenizer):
    recorded, prefix = Recorded(Recorder(), LARGE), contexts(llama, LENGTHS[:1])
    kv, mask = prefix.kv[0], prefix.mask_BM
    block = LayerBlock(1, lambda h, k, v, m: h + 0.1 * v.mean(), *kv, mask)
    for other in (replace(prefix, blocks=(block,)), replace(prefix, lora=True)):
        assert decoded(llama, other, TAILS[:1], recorded)[0] == decoded(llama, other, TAILS[:1])[0]
    decoded(llama, prefix, TAILS[:1] * 33, recorded, most=2)
    decoded(llama, prefix, [[7] * 257], recorded, most=2)
    with torch.autocast("cpu", torch.bfloat16):
        decoded(llama, prefix, TAILS[:1], recorded, most=2)
    assert recorded.begun == 0
    assert_same(llama, prefix, TAILS[:1], recorded)


def test_without_a_gpu_nothing_is_recorded(llama):
    prefix, want = contexts(llama), decoded(llama, contexts(llama), TAILS)[0]
    llama.record()
    assert llama.recorded is not None
    assert decoded(llama, prefix, TAILS, llama.recorded)[0] == want
    llama.record()
    assert generate(llama, prefix, TAILS, 4).ids and llama.recorded.begun == 0
    llama.record(False)
    assert llama.recorded is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", FAMILIES)
def test_real_recordings_say_the_same(name, tokenizer, caplog):
    receiver = Receiver(name, model_of(name).cuda(), tokenizer)
    recorded = Recorded()
    assert_same(receiver, contexts(receiver), TAILS, recorded, ends={0: 1, 2: 3, 4: 3})
    others = [[token + 3 for token in tail[:17]] for tail in reversed(TAILS)]
    assert_same(receiver, contexts(receiver, LENGTHS[::-1], 1), others, recorded, ends={1: 0, 3: 2})
    assert_same(receiver, contexts(receiver, (20,)), [[9]], recorded)
    assert not caplog.records and [len(room.passes) for room in recorded.idle] == [2, 1]
