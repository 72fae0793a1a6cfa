"""The model ``latentwire`` of lm-evaluation-harness (Gao et al. 2024): one receiver, one way of giving the context.

Requests are answered by the code that ``latentwire eval`` runs: contexts are encoded once each, requests are read in
batches of like length, and text, nothing and latents differ in what is given alone. So one task, run with
``condition=latents``, ``text`` and ``none``, gives the three figures that belong together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from latentwire import __version__
from latentwire.data.progress import progress
from latentwire.errors import UserError
from latentwire.evaluation.bench import Bench, suits
from latentwire.evaluation.decoding import MAX_NEW_TOKENS, Decoding
from latentwire.evaluation.giving import Batch, Clock, giving, read_prompts
from latentwire.evaluation.items import Items
from latentwire.evaluation.measure import PARTS
from latentwire.evaluation.plan import conditions_of, jobs_of
from latentwire.evaluation.setting import Setting, check_examples
from latentwire.harness.asked import Asked, asked_of, cut_at
from latentwire.harness.marks import split
from latentwire.receivers.decode import generate
from latentwire.receivers.forced import forced
from latentwire.types import Example
from latentwire.wire import Wire

log = logging.getLogger(__name__)


@register_model("latentwire")
class LatentWire(LM):
    """wire: directory, hub id, ``sandbox``, or a loaded :class:`Wire`. receiver: who reads, the wire's first if None.

    ratio: source tokens per latent, the wire's first if None. bits: per value of the packet. slots: K/V positions for
    each latent, or ``"half"``. condition: what is given of the context, any that ``latentwire eval`` knows. mode,
    gain, seed: as there. max_gen_toks: of an answer whose task names no number. batch_size: requests read at a time;
    the harness says 1 where nobody said anything, so 1 is what suits the device; no score depends on it.
    UserError: there is no such receiver, ratio, condition …
    """

    def __init__(
        self,
        wire: str | Wire = "sandbox",
        receiver: str | None = None,
        ratio: int | None = None,
        bits: int = 16,
        slots: int | str | None = None,
        condition: str = "latents",
        mode: str = "context",
        gain: float = 1.0,
        seed: int = 0,
        max_gen_toks: int = MAX_NEW_TOKENS,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            known = "wire, receiver, ratio, bits, slots, condition, mode, gain, seed, max_gen_toks"
            raise UserError(f"the model latentwire has no argument {next(iter(unknown))!r}; it has: {known}")
        if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
            device = "cpu"  # the harness's command says cuda:0 unless told otherwise
        if not isinstance(wire, Wire):
            wire = Wire.from_pretrained(wire, receivers=[receiver] if receiver else None, device=device)
        self.wire, self.name = wire, receiver or wire.receivers[0]
        self.receiver = wire.get_receiver(self.name)
        self.ratio = wire.ratios[0] if ratio is None else ratio
        self.bits, self.mode, self.slots, self.gain, self.seed = bits, mode, slots, float(gain), seed
        (self.condition,) = conditions_of([condition])
        self.max_gen_toks = max_gen_toks
        size = str(batch_size if max_batch_size is None else max_batch_size)
        self.batch_size = int(size) if size.isdecimal() and int(size) > 1 else 0
        (self.job,) = jobs_of([self.name], [self.condition], [self.ratio], [bits])
        self.setting(max_gen_toks).check(wire, [self.ratio], [self.name])

    def setting(self, max_new_tokens: int) -> Setting:
        """What holds for requests that are answered in so many tokens."""
        return Setting(self.mode, self.slots, self.gain, self.seed, Decoding(max_new_tokens=max_new_tokens))

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside the scores: everything that they depend on."""
        return {
            "latentwire": __version__,
            "encoder": self.wire.fingerprint.hex(),
            "receiver": self.name,
            "receiver_fingerprint": self.receiver.fingerprint(),
            "condition": self.condition,
            "ratio": self.job.key[2],
            "bits": self.job.key[3],
            "slots": self.slots,
            "mode": self.mode,
            "gain": self.gain,
            "control_seed": self.seed,
        }

    @torch.no_grad()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, each up to its task's ``until`` or ``max_gen_toks``, without the space around them."""
        said = [""] * len(requests)
        by_kind: dict[Asked, list[int]] = {}
        for place, request in enumerate(requests):
            by_kind.setdefault(asked_of(request.args[1], self.max_gen_toks), []).append(place)
        decode = self.receiver.tokenizer.decode
        for asked, places in by_kind.items():

            def enough(ids: list[int], until: tuple[str, ...] = asked.until) -> bool:
                text = decode(ids, skip_special_tokens=True)
                return any(word in text for word in until)

            stop: Callable[[list[int]], bool] | None = enough if asked.until else None
            for batch in self._batches([requests[place] for place in places], asked.tokens):
                tails = [[token] for token in batch.last]
                ids = generate(self.receiver, batch.prefix, tails, asked.tokens, stop=stop).ids
                for row, number in enumerate(batch.examples):
                    text = decode(ids[row], skip_special_tokens=True)
                    place = places[number]
                    said[place] = cut_at(text, asked.until).strip()
                    self.cache_hook.add_partial("generate_until", requests[place].args, said[place])
        return said

    @torch.no_grad()
    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each continuation its log-likelihood (natural, summed over its tokens, no end token) behind context,
        question and anchor, and whether greedy decoding would say it."""
        found = [(0.0, False)] * len(requests)
        ids = self.receiver.prompt.ids([request.args[1] for request in requests])
        if empty := [n for n, each in enumerate(ids) if not each]:
            raise UserError(f"request {empty[0]} has an empty continuation; there is nothing to score")
        for batch in self._batches(requests, max(map(len, ids), default=1)):
            answers = [ids[number] for number in batch.examples]
            nll_BT, likeliest_BT, _ = forced(self.receiver, batch.prefix, batch.last, answers)
            for row, number in enumerate(batch.examples):
                greedy = likeliest_BT[row, : len(answers[row])].tolist() == answers[row]
                found[number] = (-float(nll_BT[row].sum()), greedy)
                self.cache_hook.add_partial("loglikelihood", requests[number].args, found[number])
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Refused: the perplexity of a whole text has no context that could be sent."""
        raise UserError(
            "the model latentwire has no loglikelihood_rolling: a perplexity task scores a whole text, and no part "
            "of it is a context; use a task with generate_until, loglikelihood or multiple_choice"
        )

    @property
    def tokenizer_name(self) -> str:
        """Asked for when a chat template is to be applied, and refused: a prompt is laid out as links were trained."""
        raise UserError("the model latentwire lays a prompt out itself; leave --apply_chat_template out")

    def _batches(self, requests: list[Instance], max_new_tokens: int) -> Iterator[Batch]:
        """Requests read up to their answers. ``examples`` of a batch are places in ``requests``."""
        examples = []
        for number, request in enumerate(requests):
            context, question = split(request.args[0])
            # a row's own id names its article, which the control `wrong` asks for
            name = request.doc.get("id") if isinstance(request.doc, dict) else None
            examples.append(Example(str(name or number), context, question, ()))
        check_examples(examples)
        setting = self.setting(max_new_tokens)
        setting.check(self.wire, [self.ratio], [self.name])
        items = Items.of(self.wire, examples, self.mode)
        bench = Bench(self.wire, items, setting, self.batch_size or suits(self.wire))
        terms, why = bench.terms(self.job)
        if why:
            raise UserError(f"condition {self.condition!r} says nothing on this task: {why}")
        given = giving(self.wire, self.receiver, self.job.condition, terms)
        clock = Clock(self.receiver.device, dict.fromkeys(PARTS, 0.0))
        done = cut = 0
        with progress(f"{self.name}, {self.condition}", total=len(requests)) as show:
            for batch in read_prompts(self.receiver, given, terms, clock):
                yield batch
                done, cut = done + len(batch.examples), cut + batch.cut
                show(done, f"{done:,} of {len(requests):,} requests")
        if cut:
            log.warning(
                "%d of %d requests were longer than the window of %s and were cut", cut, len(requests), self.name
            )
