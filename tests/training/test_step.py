"""The parts of a training step."""

from __future__ import annotations

import pytest
import torch

from latentwire.encoders.lm import LMEncoderConfig
from latentwire.link import LinkConfig
from latentwire.objectives import Objective
from latentwire.objectives.answer import AnswerConfig
from latentwire.objectives.continuation import ContinuationConfig
from latentwire.objectives.kl import KLConfig
from latentwire.training.batches import Batches
from latentwire.training.config import CorpusConfig
from latentwire.training.corpus import question_store, text_store
from latentwire.training.step import Step
from latentwire.types import Example
from latentwire.wire import Wire, WireConfig

WORDS = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party led by Robert Falcon Scott. The city has 1,204 inhabitants."
)


@pytest.fixture(scope="module")
def wire(tiny_readers):
    torch.manual_seed(0)
    encoder = LMEncoderConfig(d_z=16, ratios=(4,), window=200, init=str(tiny_readers["llama"]))
    links = {"qwen2": LinkConfig(receiver=str(tiny_readers["qwen2"]))}
    return Wire.create(WireConfig(encoder, links), [WORDS, WORDS[:100]]).eval()


@pytest.fixture(params=["text", "questions"])
def run(request, wire):
    """``run(passages, taught)``: the parts of one step's loss on the first so many passages."""
    shapes = CorpusConfig(longest=200, row=32, asked=72, stretch=2.0, threads=1)
    prompts = {"qwen2": wire.get_receiver("qwen2").prompt}
    texts = [WORDS[i : i + 90] for i in (0, 40, 90, 130)]
    if request.param == "text":
        store = text_store([(text, WORDS) for text in texts], wire.encoder, prompts, shapes)
        kept: dict[str, Objective] = {"continuation": ContinuationConfig().build()}
    else:
        rows = [Example(str(i), text, "Who led it?", (text[5:14],)) for i, text in enumerate(texts)]
        store = question_store(rows, wire.encoder, prompts, shapes)
        kept = {"answer": AnswerConfig().build()}
    batches = Batches(store, {"qwen2": 4}, 4, 1, torch.device("cpu"))

    @torch.no_grad()
    def step(passages: int, taught: float, question: float = 0.0) -> dict[str, float]:
        if question:
            kept["answer"] = AnswerConfig(question=question).build()
        batch = batches.at(torch.arange(passages), torch.zeros(passages, 1))
        made = Step(wire, {**kept, "kl": KLConfig(taught=taught).build()}, 32, 50, ["qwen2"])
        loss, parts = made(batch, request.param, 4, None, "context", 0.0, torch.Generator().manual_seed(0))
        name = next(iter(kept))
        return {"loss": float(loss), "own": float(parts[f"qwen2/{name}"]), "kl": float(parts[f"qwen2/{name}/kl"])}

    return step


def test_a_teacher_of_a_share_of_the_passages_judges_these_alone(run):
    half, whole, first = run(4, 0.5), run(4, 1.0), run(2, 1.0)
    assert half["own"] == pytest.approx(whole["own"], abs=1e-5)
    assert half["kl"] == pytest.approx(first["kl"], abs=1e-5)
    assert half["kl"] != pytest.approx(whole["kl"], abs=1e-5)


def test_divergence_from_the_teacher_is_never_negative(run):
    assert run(4, 1.0)["kl"] > 0


def test_a_question_is_learnt_from_beside_its_answer_and_the_figure_stays_that_of_the_answer(run, request):
    if request.node.callspec.params["run"] != "questions":
        pytest.skip("questions stand in steps of questions alone")
    alone, beside, more = run(4, 1.0), run(4, 1.0, question=0.2), run(4, 1.0, question=0.4)
    assert beside["own"] == pytest.approx(alone["own"], rel=1e-5)
    assert beside["kl"] == pytest.approx(alone["kl"], rel=1e-5)
    # the question's share of the loss grows with its weight
    assert more["loss"] - alone["loss"] == pytest.approx(2 * (beside["loss"] - alone["loss"]), rel=1e-3)
    assert beside["loss"] > alone["loss"]


def test_the_loss_is_the_mean_over_receivers_and_leans_towards_the_heavier(tiny_wire):
    prompts = {name: tiny_wire.get_receiver(name).prompt for name in ("llama", "qwen2")}
    shapes = CorpusConfig(longest=64, row=32, asked=72, stretch=2.0, threads=1)
    rows = [Example(str(i), WORDS[i : i + 60], "Who led it?", (WORDS[i : i + 9],)) for i in (0, 40)]
    batches = Batches(
        question_store(rows, tiny_wire.encoder, prompts, shapes), dict.fromkeys(prompts, 4), 2, 1, torch.device("cpu")
    )
    batch = batches.at(torch.arange(2), torch.zeros(2, 1))

    @torch.no_grad()
    def loss(names: list[str], lean: dict[str, float] | None = None) -> float:
        step = Step(tiny_wire, {"answer": AnswerConfig().build()}, 32, 16, names, lean)
        work = step.cut(batch, "questions", 0.0, torch.Generator().manual_seed(0))
        return float(step.losses(work, 4)[0])

    one, two = loss(["llama"]), loss(["qwen2"])
    assert one != pytest.approx(two)
    assert loss(["llama", "qwen2"]) == pytest.approx((one + two) / 2)
    assert loss(["llama", "qwen2"], {"qwen2": 3.0}) == pytest.approx((one + 3 * two) / 4)
