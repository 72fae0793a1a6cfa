"""What a config of a training run must be, said before anything is loaded."""

from __future__ import annotations

from latentwire.codecs import by_bits
from latentwire.data.text import LINES
from latentwire.errors import UserError
from latentwire.objectives.combination import check as check_objectives
from latentwire.training.config import READERS, Draw, Stage, TrainConfig
from latentwire.training.optim import OPTIMIZERS
from latentwire.training.watch import ACTIONS
from latentwire.types import MODES


def check(config: TrainConfig) -> None:
    """Refuse what cannot work before anything is loaded."""
    if not config.objectives:
        raise UserError("no objectives; name at least one under objectives (for example answer: {type: answer})")
    check_objectives(config.objectives)
    if bool(config.steps) == bool(config.minutes):
        raise UserError("give either steps or minutes, and not both")
    if config.optimizer not in OPTIMIZERS:
        raise UserError(f"optimizer is one of {', '.join(OPTIMIZERS)}, not {config.optimizer!r}")
    if unknown := [name for name in config.links if not config.start and name not in config.wire.links]:
        raise UserError(f"links names {unknown[0]!r}, wire.links has: {', '.join(config.wire.links)}")
    if config.join and config.links:
        raise UserError("links and join exclude each other: what joins is all that learns")
    if config.join and not config.start:
        raise UserError("join needs start: the trained wire that the new link joins")
    if config.grow and (config.join or not config.start):
        raise UserError("grow needs start, and no join: it adds to a trained wire whose links go on learning")
    if config.corpus.made_lines not in LINES:
        raise UserError(f"corpus.made_lines is one of {', '.join(LINES)}, not {config.corpus.made_lines!r}")
    _draws(config, config.draws, "draws")
    _stages(config)
    _numbers(config)
    _kept(config)
    if config.shard:
        _shard(config)


def _draws(config: TrainConfig, draws: list[Draw], where: str) -> None:
    known = config.wire.encoder.ratios
    if odd := [draw.ratio for draw in draws if not config.start and draw.ratio not in known]:
        made = ", ".join(map(str, known))
        raise UserError(f"{where} names ratio {odd[0]}, the encoder is made for {made}; add it to wire.encoder.ratios")
    if any(draw.mode not in MODES for draw in draws):
        raise UserError(f"the mode of a draw is {' or '.join(MODES)}")
    if any(draw.mode == "prompt" for draw in draws) and not config.corpus.prompts:
        raise UserError("a draw of prompt mode needs questions to encode: set corpus.prompts, for example to 80000")
    known_codes = config.wire.codes
    if not config.start and any(
        draw.codes and (known_codes is None or draw.codes > known_codes.stages) for draw in draws
    ):
        raise UserError(f"{where} names codes that the wire does not have; set wire.codes, for example {{stages: 16}}")
    for draw in draws:
        if draw.bits is not None:
            by_bits(draw.bits)  # says which there are
        if draw.bits and draw.codes:
            raise UserError(f"{where}: a draw is read from codes or from bits, not from both")
    if any(draw.documents < 1 or (draw.documents > 1 and draw.mode == "prompt") for draw in draws):
        raise UserError(f"{where}: documents is a number from 1, and packets of prompt mode stand alone")
    most = max((draw.documents for draw in draws), default=1)
    if most > config.passages:
        raise UserError(f"{where}: {most} documents need as many passages in a step, and there are {config.passages}")
    looking = [name for name, objective in config.objectives.items() if objective.build().role == "passage"]
    if most > 1 and looking:
        raise UserError(
            f"{where}: with several documents a packet of another passage stands in front, and objective "
            f"{looking[0]!r} would compare it with this one; leave one of the two out"
        )
    if draws and not all(draw.share > 0 for draw in draws):
        raise UserError("the share of a draw is a number above 0")


def _stages(config: TrainConfig) -> None:
    if not config.stages or config.stages[-1].until < 1.0:
        raise UserError("the last stage must last until 1.0")
    ends = [stage.until for stage in config.stages]
    if ends != sorted(ends):
        raise UserError(f"stages follow one another, but their until is {', '.join(map(str, ends))}; put them in order")
    names = [stage.name for stage in config.stages if stage.name]
    if len(set(names)) < len(names):
        raise UserError(f"two stages have the same name, of: {', '.join(names)}; a name is a folder of the run")
    for number, stage in enumerate(config.stages):
        if "/" in stage.name or stage.name.startswith("."):
            raise UserError(f"the name of a stage is that of a folder, not {stage.name!r}")
        if stage.score and not stage.name:
            raise UserError(f"stages.{number} has a score but no name; its answers go to stages/NAME of the run")
        if stage.rate < 0:
            raise UserError(f"stages.{number}.rate is a factor on the learning rates, 0 or more, not {stage.rate}")
        if unknown := [name for name in stage.weights if name not in config.objectives]:
            known = ", ".join(config.objectives)
            raise UserError(f"stages.{number}.weights names {unknown[0]!r}; there are the objectives: {known}")
        _draws(config, stage.draws, f"stages.{number}.draws")
        _readers(config, stage, f"stages.{number}")


def _readers(config: TrainConfig, stage: Stage, where: str) -> None:
    if stage.receivers not in ("", *READERS):
        raise UserError(f"{where}.receivers is one of {', '.join(READERS)}, not {stage.receivers!r}")
    if stage.receivers == "none":
        draws = stage.draws or config.draws
        if not draws or any(not draw.codes for draw in draws):
            raise UserError(f"{where}.receivers is none, so all its draws need codes: nothing else is held to latents")
        if not stage.learn or any(word.split(".")[0] != "codes" for word in stage.learn):
            raise UserError(
                f"{where}.receivers is none, so codes alone can learn: learn: [codes], or names below codes"
            )


def _numbers(config: TrainConfig) -> None:
    if config.receivers not in ("all", "sampled"):
        raise UserError(f"receivers is all or sampled, not {config.receivers!r}; links says which ones take part")
    sampled = [*(stage.receivers for stage in config.stages), config.receivers]
    if config.lean and "sampled" in sampled:
        raise UserError("lean weighs receivers within a step; with receivers: sampled there is only one in each")
    if any(not weight > 0 for weight in config.lean.values()):
        raise UserError("lean names weights above 0; links says which receivers take part")
    if config.on_collapse not in ACTIONS:
        raise UserError(f"on_collapse is one of {', '.join(ACTIONS)}, not {config.on_collapse!r}")
    for name in ("accumulate", "keep"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} is a number from 1, not {getattr(config, name)}")
    if config.head_tokens < 0:
        raise UserError(f"head_tokens is a number of tokens, or 0 for all, not {config.head_tokens}")
    for name in ("every", "gradients"):
        if getattr(config.diagnostics, name) < 0:
            raise UserError(f"diagnostics.{name} is 0 or more, not {getattr(config.diagnostics, name)}")
    if config.watch.patience < 1:
        raise UserError(f"watch.patience is a number of looks from 1, not {config.watch.patience}")
    text, own = config.text_warmup, config.own_tokens
    shares = {
        "text_warmup.share": text.share, "text_warmup.tail": text.tail, "text_warmup.until": text.until,
        "own_tokens.share": own.share, "own_tokens.begin": own.begin, "own_tokens.end": own.end,
    }  # fmt: skip
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is a share from 0 to 1, not {value}")
    if own.share and own.begin >= own.end:
        raise UserError(f"own_tokens.end ({own.end}) must lie behind own_tokens.begin ({own.begin})")


def _kept(config: TrainConfig) -> None:
    kept = [name for name, objective in config.objectives.items() if objective.build().cache]
    if kept and config.own_tokens.share:
        raise UserError(
            f"objectives.{kept[0]}.cache keeps what the teacher makes of true answers, and own_tokens has it read the "
            "receiver's own; leave one of them out"
        )


def _shard(config: TrainConfig) -> None:
    draws = [*config.draws, *(draw for stage in config.stages for draw in stage.draws)]
    against = {
        "graphs": (config.graphs, "shares travel between processes in every step, which cannot be recorded"),
        "join": (config.join, "the encoder does not learn then"),
        "diagnostics.gradients": (config.diagnostics.gradients, "one process alone cannot work out a gradient"),
        "links.NAME.load.device_map": (
            any(link.load.device_map for link in config.wire.links.values()), "each process has its receivers beside it"
        ),
        "draws of codes": (any(draw.codes for draw in draws), "they learn with the whole encoder"),
    }  # fmt: skip
    for name, (there, why) in against.items():
        if there:
            raise UserError(f"shard and {name} exclude each other ({why}); leave one of them out")
