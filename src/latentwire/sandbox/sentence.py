"""Train a small sentence encoder: ``python -m latentwire.sandbox.sentence CONFIG [key=value …] [--data-dir DIR]``.

A BERT from scratch, its mean over tokens pulled towards that of another window of the same article and away from those
of all other articles in the batch (InfoNCE, van den Oord et al. 2018; in-batch negatives). It makes an encoder for
``sentence``, ``sentence-tokens`` and ``aligned`` where none may be fetched. The run's folder holds tokenizer and
articles, state, ``metrics.jsonl`` and, at the end, ``checkpoint/`` for transformers with a card that says what it was
measured at. A killed run goes on from its last state and ends with the weights of an unbroken one.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentwire import config as configs
from latentwire.data.progress import progress
from latentwire.data.rows import data_dir
from latentwire.errors import UserError
from latentwire.sandbox.checkpoint import load_state, save_state
from latentwire.sandbox.sentence_card import card
from latentwire.sandbox.sentence_text import SentenceConfig, sources, tokenise

MEASURED = 4096  # pairs of held-out articles that are measured at most
IGNORED = ("out", "device", "log_every", "save_every")  # what makes no other run


class Run:
    """A training run in its folder. UserError: the folder holds a run of another config, or the text is too little."""

    def __init__(self, config: SentenceConfig, data: Path) -> None:
        from transformers import BertConfig, BertModel

        check(config)
        self.config, self.data = config, data
        self.folder = Path(config.out) / config.name
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = SentenceConfig()
        self.hash = configs.config_hash(replace(config, **{key: getattr(plain, key) for key in IGNORED}))
        self.state = self.folder / "state.safetensors"
        said = self.folder / "run.json"
        if said.exists() and json.loads(said.read_text())["config"] != self.hash:
            raise UserError(f"{self.folder} holds a run of another config; give another out= or name=")
        said.write_text(json.dumps({"config": self.hash}) + "\n")
        self.articles, self.tokenizer = tokenise(config, data, self.folder)
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if config.device == "auto" else config.device)
        torch.manual_seed(config.seed)
        # windows differ, so noise need not make them differ; and without dropout a resumed run has no luck to keep
        shape = BertConfig(
            vocab_size=len(self.tokenizer), hidden_size=config.width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, intermediate_size=config.ff, max_position_embeddings=config.positions,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
        )  # fmt: skip
        self.model = BertModel(shape, add_pooling_layer=False).to(self.device).train()
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": config.decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98))
        self.step, self.tokens = 0, 0
        self.resume()

    def resume(self) -> None:
        """Take up the state in the folder, if there is one."""
        if not self.state.exists():
            return
        tensors, facts = load_state(self.state)
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[f"weight/{name}"])
                self.optimizer.state[parameter] = {
                    key: tensors[f"{key}/{name}"].to("cpu" if key == "step" else self.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        self.step, self.tokens = facts["step"], facts["tokens"]
        print(f"{self.config.name}: goes on at step {self.step}", flush=True)

    def save(self) -> None:
        """Write all that a resumed run needs."""
        tensors = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"weight/{name}"] = parameter
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[parameter].items()}
        save_state(self.state, tensors, {"step": self.step, "tokens": self.tokens})

    def vectors(self, ids_NT: Tensor, count_N: Tensor) -> Tensor:
        """Mean over the tokens of each window, of length 1, [N, width]."""
        mask_NT = torch.arange(ids_NT.shape[1], device=ids_NT.device) < count_N[:, None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            states = self.model(input_ids=ids_NT, attention_mask=mask_NT.long()).last_hidden_state
        mean = (states.float() * mask_NT[..., None]).sum(1) / count_N[:, None]
        return F.normalize(mean, dim=-1)

    def cosines(self, article_B: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Of every first window with every second one, [B, B]; those of one article are on the diagonal."""
        ids, counts = self.articles.pairs(article_B, self.config, rng)
        longest = int(counts.max())
        ids_NT = torch.from_numpy(ids[..., :longest]).flatten(0, 1).to(self.device)
        one_BW, two_BW = self.vectors(ids_NT, torch.from_numpy(counts).flatten().to(self.device)).chunk(2)
        self.tokens += int(counts.sum()) if self.model.training else 0
        return one_BW @ two_BW.T

    def train(self) -> Path:
        """The whole run; returns the checkpoint's folder."""
        config, learning = self.config, self.articles.numbers(held=False)
        size = min(config.batch, len(learning))
        since, tokens = time.monotonic(), self.tokens
        with progress(config.name, config.steps) as show, (self.folder / "metrics.jsonl").open("a") as metrics:
            while self.step < config.steps:
                # the batch is of seed and step alone: resuming needs no memory of what was drawn
                rng = np.random.default_rng([config.seed, self.step])
                logits_BB = self.cosines(rng.choice(learning, size, replace=False), rng) / config.temperature
                own_B = torch.arange(size, device=self.device)
                loss = (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2
                rate = config.rate * share_of_rate(self.step, config)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.step += 1
                if self.step % config.log_every == 0 or self.step == config.steps:
                    right = (logits_BB.argmax(-1) == own_B).float().mean()
                    speed = (self.tokens - tokens) / max(time.monotonic() - since, 1e-9)
                    row = {"step": self.step, "loss": round(loss.item(), 4), "right": round(right.item(), 4)}
                    row |= {"rate": rate, "norm": round(norm.item(), 3), "tokens_per_s": round(speed)}
                    metrics.write(json.dumps(row) + "\n")
                    metrics.flush()
                    show(self.step, f"loss {row['loss']:.3f}, {row['right']:.1%} found, {speed:,.0f} tokens/s")
                    since, tokens = time.monotonic(), self.tokens
                if self.step % config.save_every == 0:
                    self.save()
        self.save()
        return self.export()

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """How often the second window of a held-out article is found by the first one among those of a batch (and the
        other way round): share, pairs, and size of the batches (the last one is smaller; a single pair is left out)."""
        self.model.eval()
        rng = np.random.default_rng([self.config.seed, 1 << 30])
        held = rng.permutation(self.articles.numbers(held=True))[:MEASURED]
        size = min(self.config.batch, len(held))
        batches = [held[i : i + size] for i in range(0, len(held), size)]
        right, many, pairs = 0.0, 0, 0
        for batch in batches:
            if len(batch) < 2:
                continue
            cosines_BB = self.cosines(batch, rng)
            own_B = torch.arange(len(batch), device=self.device)
            right += sum(float((c.argmax(-1) == own_B).sum()) for c in (cosines_BB, cosines_BB.T)) / 2
            many, pairs = many + 1, pairs + len(batch)
        self.model.train()
        return {"accuracy": right / pairs, "chance": many / pairs, "pairs": pairs, "batch": size}

    def export(self) -> Path:
        """The encoder as a transformers checkpoint with its card and figures, whole or not at all."""
        target, partial = self.folder / "checkpoint", self.folder / ".checkpoint"
        shutil.rmtree(partial, ignore_errors=True)
        self.model.save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        measured = self.measure()
        facts = {
            "config": self.hash, "steps": self.step, "tokens": self.tokens, "files": sources(self.data),
            "learnt": len(self.articles.numbers(held=False)), "held": len(self.articles.numbers(held=True)),
            "short": self.articles.short, "vocabulary": len(self.tokenizer),
            "parameters": sum(p.numel() for p in self.model.parameters()), **measured,
        }  # fmt: skip
        (partial / "measured.json").write_text(json.dumps(facts, indent=1) + "\n")
        (partial / "README.md").write_text(card(self.config, facts))
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
        print(f"{self.config.name}: {measured['accuracy']:.1%} found among {measured['batch']}", flush=True)
        return target


def share_of_rate(step: int, config: SentenceConfig) -> float:
    """Share of the peak learning rate: a line up, then a half cosine down."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(config.steps - config.warmup, 1)))


def check(config: SentenceConfig) -> None:
    """Refuse what cannot work before anything is read."""
    if config.width % config.heads:
        raise UserError(f"width {config.width} is no multiple of {config.heads} heads")
    if config.window + 2 > config.positions:
        raise UserError(
            f"a window of {config.window} tokens and two special ones do not fit {config.positions} positions"
        )
    if not 0 < config.shortest <= config.window:
        raise UserError(f"shortest ({config.shortest}) is at least 1 token and at most the window ({config.window})")
    if config.aside < 2 or config.batch < 2 or config.steps < 1 or config.temperature <= 0:
        raise UserError("aside and batch are at least 2, steps at least 1, and temperature is above 0")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.sandbox.sentence", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("config", help="a YAML file, for example configs/sandbox/encoders/sentence.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value, for example steps=2000 width=384 heads=6")
    parser.add_argument("--data-dir", help="folder with text/ (else LATENTWIRE_DATA)")
    given = parser.parse_intermixed_args(arguments)
    try:
        config = configs.load(given.config, SentenceConfig, given.overrides)
        print(Run(config, data_dir(given.data_dir)).train())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
