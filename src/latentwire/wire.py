"""The wire: one encoder, and a link for each frozen receiver. Saved without the receivers, loaded strictly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from torch import Tensor, nn

from latentwire.card import forget_card, scores, wire_card
from latentwire.codecs import Codec, Codes, by_bits
from latentwire.earlier import CONFIG, take_up
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.link import Link, LinkConfig
from latentwire.packets import Packet
from latentwire.reading import Reading
from latentwire.receivers import Receiver, load_receiver
from latentwire.receivers.load import by_receiver
from latentwire.saved import WireConfig, read, write
from latentwire.shipped import resolve
from latentwire.types import MODES, Latents, Prefix


class Wire(nn.Module, ModelHubMixin, library_name="latentwire"):
    """One encoder and its links. Receivers stay outside the module: never trained, never saved with it.

    >>> wire = Wire.from_pretrained("sandbox")                           # doctest: +SKIP
    >>> packet = wire.encode(["Nikola Tesla was born in 1856."], ratio=4)[0]  # doctest: +SKIP
    >>> wire.receiver("llama").generate(packet, "When was Tesla born?")  # doctest: +SKIP
    """

    def __init__(self, settings: WireConfig, receivers: dict[str, Receiver], assets: Path | None = None) -> None:
        super().__init__()
        self.settings, self.frozen = settings, receivers
        self.encoder = settings.encoder.build(assets)
        self.links = nn.ModuleDict()
        for name, receiver in receivers.items():
            self.links[name] = Link(settings.links[name], settings.encoder.d_z, receiver)
        self.codes = None if settings.codes is None else settings.codes.build(settings.encoder.d_z)
        self._fingerprint: bytes | None = None
        self._readers: dict[str, str] = {}

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def receivers(self) -> list[str]:
        """Names of the receivers that are loaded."""
        return list(self.frozen)

    @property
    def ratios(self) -> tuple[int, ...]:
        """Source tokens per latent that the encoder was made for."""
        return tuple(self.settings.encoder.ratios)

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def fingerprint(self) -> bytes:
        """Eight bytes over the encoder's weights: packets carry them, and another encoder's packets are refused."""
        if self._fingerprint is None or self.training:
            digest = hashlib.sha256()
            for name, tensor in sorted(self.encoder.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.detach().float().cpu().reshape(-1).view(torch.uint8).numpy())
            self._fingerprint = digest.digest()[:8]
        return self._fingerprint

    @property
    def books(self) -> Codes:
        """The wire's learned codes. UserError: it has none."""
        if self.codes is None:
            raise UserError("this wire has no codes: it was not trained with wire.codes, and draws that name some")
        return self.codes

    def made_by(self, coded: bool = False) -> bytes:
        """Eight bytes that packets name as their maker: the encoder, and where they are ``coded``, the books too."""
        return self.books.fingerprint(self.fingerprint) if coded else self.fingerprint

    def usual_ratio(self, coded: bool = False) -> int:
        """The ratio where none is asked for: the wire's first, or the first that its codes were learned at."""
        return (self.books.config.ratios if coded and self.books.config.ratios else self.ratios)[0]

    def codec(self, bits: float) -> Codec:
        """What packs values of latents at so many bits each; below 1, the wire's own codes."""
        return by_bits(int(bits)) if bits >= 1 else self.books.codec(bits)

    def get_receiver(self, name: str) -> Receiver:
        """The frozen receiver of that name."""
        if name not in self.frozen:
            raise UserError(f"this wire has no receiver {name!r}; it has: {', '.join(self.frozen)}")
        return self.frozen[name]

    def receiver(self, name: str) -> Reading:
        """A receiver ready to answer from packets, or from text."""
        self.get_receiver(name)
        return Reading(self, name)

    # -- the path: text → latents → packet → latents → prefix -------------------------------------------------------

    def source_texts(self, texts: list[str], questions: list[str] | None = None) -> list[str]:
        """What is encoded: the contexts, or in prompt mode each context with its question behind it."""
        if questions is None:
            return texts
        if len(questions) != len(texts):
            raise UserError(f"{len(texts)} texts but {len(questions)} questions; prompt mode encodes them in pairs")
        layout = next(iter(self.frozen.values())).prompt
        return [text + layout.question_text(question) for text, question in zip(texts, questions, strict=True)]

    @torch.no_grad()
    def encode_latents(
        self, texts: list[str], ratio: int | None = None, questions: list[str] | None = None, batch_size: int = 64
    ) -> Latents:
        """Latents of texts of any length, in float32. Neighbours in a batch make no difference."""
        for number, text in enumerate(texts):
            if not text.strip():
                raise UserError(f"text {number} is empty; there is nothing to encode")
        source = self.encoder.prepare(self.source_texts(texts, questions))
        return self.encoder.encode(source, ratio or self.ratios[0], batch_size)

    def encode(
        self,
        texts: list[str],
        ratio: int | None = None,
        questions: list[str] | None = None,
        batch_size: int = 64,
        codes: int | None = None,
    ) -> list[Packet]:
        """A packet for each text. ``ratio``: source tokens per latent. ``questions``: given for prompt mode. ``codes``:
        so many bytes a latent, if the wire has learned codes. UserError: it has none, not so many, or learned them at
        other ratios."""
        if codes is not None:
            self.books.stages(codes)  # a slip is told before anything is encoded
            ratio = ratio or self.usual_ratio(coded=True)
            self.books.at(ratio)
        latents = self.encode_latents(texts, ratio, questions, batch_size)
        mode, made_by = MODES[0] if questions is None else MODES[1], self.made_by(codes is not None)
        z_BMD = latents.z_BMD if codes is None else self.books.codes(latents.z_BMD, codes).float()
        return [
            Packet(z[mask].cpu(), int(source), int(per), mode, made_by, coded=codes is not None)
            for z, mask, source, per in zip(z_BMD, latents.mask_BM, latents.source_B, latents.ratio_B, strict=True)
        ]

    def check(self, packet: Packet) -> None:
        """UserError unless the packet is one of this wire's: of its encoder, and where it has codes, of its books."""
        made_by = self.made_by(packet.coded)
        if packet.encoder != made_by:
            raise UserError(
                f"packet was made by encoder {packet.encoder.hex()}, this wire's is {made_by.hex()}; "
                "encode the text again with this wire"
            )
        values = self.books.stages(packet.z_MD.shape[1]) if packet.coded else self.settings.encoder.d_z
        if packet.z_MD.shape[1] != values:
            raise UserError(f"a latent of this packet has {packet.z_MD.shape[1]} values, of this wire {values}")

    def latents(self, packets: list[Packet]) -> Latents:
        """Packets back as one batch of latents on the wire's device."""
        device = self.device
        for packet in packets:
            self.check(packet)
        coded = [packet.z_MD.to(device, torch.uint8) for packet in packets if packet.coded]
        told = iter(self.books.read(coded) if coded else ())
        values = [next(told) if packet.coded else packet.z_MD.to(device).float() for packet in packets]
        z_BMD = nn.utils.rnn.pad_sequence(values, batch_first=True)
        counts = torch.tensor([len(packet.z_MD) for packet in packets], device=device)
        mask_BM = torch.arange(z_BMD.shape[1], device=device) < counts[:, None]
        source_B = torch.tensor([packet.source_tokens for packet in packets], device=device)
        return Latents(z_BMD, mask_BM, source_B, torch.tensor([packet.ratio for packet in packets], device=device))

    @torch.no_grad()
    def told(self, packets: Sequence[Packet]) -> list[Packet]:
        """The packets, those of codes as packets of the values that their codes stand for."""
        coded = [packet for packet in packets if packet.coded]
        z_BMD = iter(self.latents(coded).z_BMD.cpu() if coded else ())
        return [
            replace(packet, z_MD=next(z_BMD)[: len(packet.z_MD)], encoder=self.fingerprint, bits=None, coded=False)
            if packet.coded else packet
            for packet in packets
        ]  # fmt: skip

    def prefix(
        self,
        name: str,
        latents: Latents,
        mode: str = "context",
        slots: int | None = None,
        seen: list[tuple[Tensor, Tensor]] | None = None,
        behind: Sequence[Latents] = (),
    ) -> Prefix:
        """What receiver ``name`` has read once it has its head and these latents, each as so many ``slots``.

        latents: all that is in a packet; those that are private to other receivers are left out here. seen: receives
        the slots and their mask, [B, S, E] and [B, S]. behind: the latents of further packets, see :meth:`columns`.
        """
        receiver = self.get_receiver(name)
        first, *rest = (self.encoder.part(part, name).to(receiver.device) for part in (latents, *behind))
        link = self.links[name]
        if receiver.recorded and seen is None and not (rest or self.training):
            # weights that are elsewhere now would be read where they were
            which = mode, slots, name, next(link.parameters()).data_ptr()
            made = receiver.recorded.making.run(lambda given: link(given, receiver, mode, slots), first, which)
            if made is not None:
                return made
        return link(first, receiver, mode, slots, seen, rest)

    def columns(self, rows: Sequence[Sequence[Packet]]) -> list[Latents]:
        """Rows of packets that are read one behind the other: the first of each row as a batch, then the second of
        each. A row that has ended has no latents there."""
        if not all(rows):
            raise UserError("a row without packets leaves nothing to read; give at least one for each prompt")
        found = []
        for column in range(max(map(len, rows))):
            latents = self.latents([row[min(column, len(row) - 1)] for row in rows])
            there_B = torch.tensor([column < len(row) for row in rows], device=self.device)
            mask_BM = latents.mask_BM & there_B[:, None]
            z_BMD = latents.z_BMD * mask_BM[..., None]
            found.append(Latents(z_BMD, mask_BM, latents.source_B * there_B, latents.ratio_B))
        return found

    # -- making, saving, loading ------------------------------------------------------------------------------------

    @classmethod
    def create(cls, settings: WireConfig, texts: list[str], device: str | torch.device = "cpu") -> Wire:
        """A new wire: encoder from its pretrained start, links calibrated on ``texts`` (plain text, a few hundred)."""
        if not settings.links:
            raise UserError("the wire has no links; name at least one receiver under links")
        if odd := [name for name, link in settings.links.items() if link.like]:
            raise UserError(f"links.{odd[0]}.like needs join: in a new wire no link has learnt anything yet")
        receivers = {
            name: load_receiver(resolve(link.receiver), name, prompt=link.prompt, device=device, load=link.load)
            for name, link in settings.links.items()
        }
        start = settings.encoder
        if isinstance(start, LMEncoderConfig):
            start = replace(start, init=str(resolve(start.init)), lexicons=[str(resolve(w)) for w in start.lexicons])
        wire = cls(WireConfig(start, settings.links, settings.codes), receivers)
        if strange := [name for name in wire.encoder.receivers if name not in receivers]:
            raise UserError(
                f"encoder.receivers names {strange[0]!r}, which has no link; its latents would be read by nobody "
                f"(links: {', '.join(receivers)})"
            )
        wire.settings = settings
        for name in receivers:
            wire.calibrate(name, texts)
        return wire.place(device)

    def place(self, device: str | torch.device) -> Wire:
        """Encoder and codes go to ``device``, each link to where its receiver is: latents alone travel between them."""
        self.to(device)
        for name, receiver in self.frozen.items():
            self.links[name].to(receiver.device)
        return self

    def calibrate(self, name: str, texts: list[str]) -> None:
        """Measure a new link's statistics on plain text; if its config names an earlier link, start from that."""
        count = self.encoder.prepare(texts).arrays["count"].sum()
        self.links[name].calibrate(self.frozen[name], texts, int(count))  # ty: ignore[not-callable]
        take_up(self.links[name], name, self.frozen[name])  # ty: ignore[invalid-argument-type]

    def join(self, name: str, config: LinkConfig, texts: list[str]) -> None:
        """Add a receiver with a new, untrained link; encoder and other links stay as they are."""
        if name in self.frozen:
            raise UserError(f"this wire already has a receiver {name!r}; give the new one another name")
        if config.like and config.like not in self.links:
            raise UserError(f"links.{name}.like is {config.like!r}, this wire has: {', '.join(self.receivers)}")
        path = resolve(config.receiver)
        receiver = load_receiver(path, name, prompt=config.prompt, device=self.device, load=config.load)
        self.frozen[name] = receiver
        self.settings = replace(self.settings, links={**self.settings.links, name: config})
        self.links[name] = Link(config, self.settings.encoder.d_z, receiver).to(receiver.device)
        if config.like:
            self.links[name].begin_like(self.links[config.like])  # ty: ignore[not-callable]
        self.calibrate(name, texts)

    def _save_pretrained(self, save_directory: Path) -> None:
        self._fingerprint = None
        self._readers = write(self, Path(save_directory))  # the card comes next; large models take a while to hash
        forget_card(Path(save_directory))

    def generate_model_card(
        self, *, repo_id: str = "", results: str | Path | None = None, limits: Sequence[str] = (), **_: Any
    ) -> ModelCard:
        """The card of this wire, see :func:`latentwire.card.wire_card`; ``save_pretrained`` writes it as README.md
        where there is none that a person has written."""
        readers = self._readers or {name: receiver.fingerprint() for name, receiver in self.frozen.items()}
        self._readers = {}
        return wire_card(self, readers, repo_id, scores(self, results), limits)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        results: str | Path | None = None,
        limits: Sequence[str] = (),
        commit_message: str = "Upload wire",
        model_card_kwargs: dict[str, Any] | None = None,
        **hub: Any,
    ) -> str:
        """Upload the wire, without receivers, and a card that says what it is; returns the address of the commit.

        repo_id: ``owner/name``, made if it is not there. results: a ``results.json`` of ``latentwire eval``, or its
        folder, for the card. limits: sentences for the card, on what the wire must not be taken for. hub: ``private``,
        ``token``, ``branch``, ``create_pr``, ``ignore_patterns`` and others, as transformers' models have them.
        UserError, before the hub is asked for anything: the results are not this wire's.
        """
        scores(self, results)  # a slip should not leave an empty repository behind
        told = {**(model_card_kwargs or {}), "repo_id": repo_id, "results": results, "limits": limits}
        return super().push_to_hub(repo_id, commit_message=commit_message, model_card_kwargs=told, **hub)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path = "sandbox", **kwargs: Any) -> Wire:
        """Load a wire from a directory, a hub id, or ``"sandbox"`` (the one that comes along).

        receivers: names to load (all by default), without: names to leave out. paths: where to find receivers,
        by name, if not where they were.
        device: for the wire and its receivers. dtype, load_in_4bit, attn_implementation, device_map: how receivers are
        loaded (see :class:`~latentwire.receivers.load.LoadConfig`), for all of them or by name: a receiver may be on
        another device than the encoder, or on several.

        >>> Wire.from_pretrained("my-wire", device="cuda:0", device_map={"llama": "cuda:1"})  # doctest: +SKIP
        """
        where = resolve(pretrained_model_name_or_path)
        if isinstance(where, Path) and not (where / CONFIG).is_file():
            raise UserError(
                f"{where} holds no wire ({CONFIG} is missing); give a directory that `latentwire train` wrote"
            )
        return super().from_pretrained(str(where), **kwargs)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        receivers: Iterable[str] | None = None,
        without: Iterable[str] = (),
        paths: dict[str, str | Path] | None = None,
        device: str | torch.device = "cpu",
        dtype: Any = "",
        load_in_4bit: Any = False,
        attn_implementation: Any = "",
        device_map: Any = "",
        **hub: Any,
    ) -> Wire:
        known = {key: hub[key] for key in ("revision", "cache_dir", "force_download", "local_files_only", "token")}
        directory = Path(model_id) if Path(model_id).is_dir() else Path(snapshot_download(model_id, **known))
        saved = read(directory)
        names = saved.names(receivers, without)
        load = by_receiver(
            names,
            dtype=dtype,
            load_in_4bit=load_in_4bit,
            attn_implementation=attn_implementation,
            device_map=device_map,
        )
        frozen = {name: saved.receiver(name, (paths or {}).get(name), device, load[name]) for name in names}
        wire = cls(saved.settings, frozen, directory / "encoder")
        saved.fill(wire)
        wire.eval().place(device)
        saved.check_encoder(wire)
        return wire
