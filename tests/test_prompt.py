"""Latents inside a user's turn: what is cut out of a chat template, and which templates are refused."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS, tiny_tokenizer
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.prompt import Prompt, PromptConfig
from latentwire.receivers import load_receiver
from latentwire.wire import Wire, WireConfig

PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|end|>\n{% endfor %}"
BEGIN = "{% if add_generation_prompt %}[assistant]{% endif %}"
CHATML = PLAIN + BEGIN
TRIMMED = "<s>" + CHATML.replace("m['content']", "m['content'] | trim")
DATED = "{{ date_string }} {{ 'thinks' if enable_thinking else 'answers' }} " + CHATML


def chatting(template: str | None, **changes):
    tokenizer = tiny_tokenizer(300, digits=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = template
    return Prompt(PromptConfig(chat=True, **changes), tokenizer)


@pytest.mark.parametrize("template", [CHATML, TRIMMED, DATED], ids=["chatml", "trimmed", "dated"])
def test_segments_joined_are_the_rendered_template(template):
    prompt = chatting(template)
    context, question = "Oslo has {two} harbours.\n\nBoth…", "How many?"
    said = f"Context: {context}\nQuestion: {question}"
    whole = prompt.tokenizer.apply_chat_template(
        [{"role": "user", "content": said}], tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
    )
    parts = prompt.head_ids() + prompt.context_ids([context])[0] + prompt.question_ids([question])[0]
    assert prompt.tokenizer.decode(parts) == whole == prompt.text(context, question)
    # a beginning token stands there where the template has written it, and once
    assert prompt.head_ids().count(prompt.bos_id) == template.startswith("<s>")


def test_an_answer_ends_as_the_assistants_turn_does():
    prompt = chatting(CHATML)
    end = prompt.tokenizer.convert_tokens_to_ids("<|end|>")
    assert prompt.eos_id == end != prompt.tokenizer.eos_token_id
    assert prompt.tokenizer.decode(prompt.answer_ids(["Two."])[0]) == "Two.<|end|>"
    unclosed = chatting("{% for m in messages %}\n{{ m['role'] }}: {{ m['content'] }}{% endfor %}\nassistant: ")
    assert unclosed.eos_id == unclosed.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('only assistants') }}", "cannot be used: only assistants"),
        ("{{ messages[0]['nothing'] }}[assistant]", "shows what the user says 0 times"),
        (CHATML + "{{ messages[0]['content'] }}", "shows what the user says 2 times"),
        (CHATML.replace("m['content']", "m['content'] | upper"), "changes what the user says"),
        (PLAIN.replace("<|end|>\n", ""), "puts nothing before an answer"),
    ],
    ids=["none", "raises", "hides", "repeats", "changes", "no turn"],
)
def test_a_template_that_does_not_allow_it_is_refused(template, why):
    with pytest.raises(UserError, match=why):
        chatting(template)


def test_words_that_a_template_would_trim_are_refused():
    with pytest.raises(UserError, match=r"begin and end without spaces"):
        chatting(TRIMMED, question="\nQuestion: {question}\n")


def test_without_chat_nothing_is_asked_of_a_template():
    tokenizer = tiny_tokenizer(300, digits=False)
    prompt = Prompt(PromptConfig(), tokenizer)
    assert prompt.head_ids()[0] == prompt.bos_id and prompt.eos_id == tokenizer.eos_token_id
    assert prompt.text("a", "b", "c") == "Context: a\nQuestion: b\nAnswer: c"


def test_a_wire_reads_latents_inside_the_users_turn(tiny_readers, tmp_path):
    where = tmp_path / "reader"
    receiver = load_receiver(tiny_readers["llama"])
    receiver.tokenizer.chat_template = CHATML
    receiver.model.save_pretrained(where)
    receiver.tokenizer.save_pretrained(where)
    torch.manual_seed(0)
    links = {"chat": LinkConfig(receiver=str(where), prompt=PromptConfig(chat=True))}
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=64, init=str(where))
    wire = Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]]).eval()
    reader = wire.get_receiver("chat")
    assert reader.head().mask_BM.shape[1] == len(reader.prompt.ids(["[user]Context:"])[0])
    packet = wire.encode([WORDS], ratio=4)[0]
    said = wire.receiver("chat").generate(packet, "Who led it?")
    wire.save_pretrained(tmp_path / "wire")
    again = Wire.from_pretrained(tmp_path / "wire")
    assert again.get_receiver("chat").prompt.layout == reader.prompt.layout
    assert again.receiver("chat").generate(packet, "Who led it?") == said
