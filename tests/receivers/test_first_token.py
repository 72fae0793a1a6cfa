"""The first token when it is drawn: by its share, within the nucleus, by the luck of its own row."""

from __future__ import annotations

import pytest
import torch

from latentwire.receivers.decode import FirstToken, generate
from latentwire.receivers.load import load_receiver

SHARES = torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05])
LUCK = (torch.arange(1000) + 0.5) / 1000


def drawn(temperature: float, top_p: float) -> torch.Tensor:
    """Share of each token over all luck there is."""
    tokens = FirstToken(temperature, top_p, LUCK)(SHARES.log().expand(1000, -1))
    return tokens.bincount(minlength=5) / 1000


def test_tokens_are_drawn_by_their_share():
    torch.testing.assert_close(drawn(1.0, 1.0), SHARES, atol=2e-3, rtol=0)
    flat = SHARES.sqrt() / SHARES.sqrt().sum()
    torch.testing.assert_close(drawn(2.0, 1.0), flat, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, [1]), (0.6, [1, 3]), (0.85, [1, 3, 0])])
def test_only_the_nucleus_is_drawn_from(top_p, kept):
    found = drawn(1.0, top_p)
    assert found.nonzero()[:, 0].tolist() == sorted(kept)
    expected = SHARES[kept] / SHARES[kept].sum()
    torch.testing.assert_close(found[kept], expected, atol=2e-3, rtol=0)


def test_the_ends_of_luck_are_the_ends_of_the_nucleus():
    ends = torch.tensor([0.0, 1 - 2**-24])
    assert FirstToken(1.0, 0.6, ends)(SHARES.log().expand(2, -1)).tolist() == [1, 3]


def test_only_the_first_token_is_drawn_and_neighbours_do_not_matter(tiny_readers):
    receiver = load_receiver(tiny_readers["llama"])
    tails = receiver.prompt.question_ids(["Who led the expedition?", "When?", "How many people live there?"])
    luck = torch.tensor([0.2, 0.9, 0.6])
    first = FirstToken(5.0, 1.0, luck)
    prefix = receiver.head_for(3)
    said = generate(receiver, prefix, tails, 6, 6, first=first).ids
    greedy = generate(receiver, prefix, tails, 6, 6).ids
    assert [row[0] for row in said] != [row[0] for row in greedy]
    for i, tail in enumerate(tails):
        alone = generate(receiver, receiver.head_for(1), [tail], 6, 6, first=FirstToken(5.0, 1.0, luck[i : i + 1])).ids
        assert alone[0] == said[i]
        # behind the drawn token it goes on greedily
        assert generate(receiver, receiver.head_for(1), [[*tail, said[i][0]]], 5, 5).ids[0] == said[i][1:]


def test_the_end_token_is_not_drawn_while_it_is_banned(tiny_readers):
    receiver = load_receiver(tiny_readers["llama"])
    tails = receiver.prompt.question_ids(["Who?"]) * 200
    luck = (torch.arange(200) + 0.5) / 200
    hot = FirstToken(100.0, 1.0, luck)
    free = generate(receiver, receiver.head_for(200), tails, 1, first=hot).ids
    banned = generate(receiver, receiver.head_for(200), tails, 1, 1, first=hot).ids
    assert [] in free and all(len(ids) == 1 for ids in banned)
