"""Learned codes in training: draws that read them teach the books, a wire keeps them, and packets of them are read."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
import torch

from latentwire.errors import UserError
from latentwire.evaluation.runner import evaluate
from latentwire.packets import Packet
from latentwire.saved import settings_of
from latentwire.serving.contexts import joined
from latentwire.serving.errors import ApiError
from latentwire.serving.schema import LatentData, LatentsRequest
from latentwire.serving.service import Service
from latentwire.training.average import average
from latentwire.training.run import train
from latentwire.types import Example
from latentwire.wire import Wire

DRAWS = "draws=[{ratio: 4}, {ratio: 4, codes: 1}, {ratio: 8, codes: 3, share: 2}]"
TEXTS = ["In 1801 a letter of Curie was sent from Paris to Oslo.", "The letter was sent from York to Madras in 1802."]


@pytest.fixture(scope="module")
def trained(tiny_tree, tmp_path_factory):
    import yaml

    root = tmp_path_factory.mktemp("codes")
    (root / "wire.yaml").write_text(yaml.safe_dump(tiny_tree))
    plain = train(root / "wire.yaml", ["steps=2"], out=root / "plain")
    more = [f"start={plain}", "grow=['codes={stages: 3, size: 16}']", DRAWS, "steps=12"]
    return train(root / "wire.yaml", more, out=root / "coded")


@pytest.fixture(scope="module")
def wire(trained) -> Wire:
    return Wire.from_pretrained(trained)


def test_the_books_have_learned_and_are_kept(trained, wire):
    assert settings_of(trained).codes.stages == 3
    assert (wire.books.use > 0).any(1).all() and wire.books.books.abs().sum() > 0
    metrics = (trained.parent / "metrics.jsonl").read_text()
    assert '"draw": "8x-3codes"' in metrics and '"codes/far"' in metrics and "llama/answer@4x-1codes" in metrics


def test_a_packet_of_codes_is_read_as_what_its_vectors_add_up_to(wire):
    packet = wire.encode(TEXTS, ratio=4, codes=2)[0]
    data = packet.to_bytes()
    assert len(data) == packet.size() == 32 + 2 * len(packet.z_MD)
    again = Packet.from_bytes(data)
    assert again.coded and again.describe()["codec"] == "codes" and torch.equal(again.z_MD, packet.z_MD)
    plain = wire.encode(TEXTS, ratio=4)[0]
    told_MD = wire.books.vectors(wire.books.codes(plain.z_MD, 2))
    torch.testing.assert_close(wire.latents([again]).z_BMD[0], told_MD)
    # packets of codes and others share a batch
    assert wire.latents([again, plain]).z_BMD.shape == (2, *plain.z_MD.shape)
    fewer = wire.encode(TEXTS, ratio=4, codes=1)[1]
    both = wire.latents([again, fewer])
    for row, each in enumerate((again, fewer)):
        torch.testing.assert_close(both.z_BMD[row][both.mask_BM[row]], wire.latents([each]).z_BMD[0])
    assert isinstance(wire.receiver("llama").generate(again, "Where?", max_new_tokens=4), str)


def test_codes_are_for_the_ratios_they_were_learned_at(trained, tiny_tree, tmp_path):
    import yaml

    assert settings_of(trained).codes.ratios == [4, 8]
    (tmp_path / "wire.yaml").write_text(yaml.safe_dump(tiny_tree))
    plain = trained.parents[1] / "plain" / "wire"
    more = [f"start={plain}", "grow=['codes={stages: 3, size: 16}']", "draws=[{ratio: 8, codes: 2}]", "steps=1"]
    wire = Wire.from_pretrained(train(tmp_path / "wire.yaml", more, out=tmp_path / "eight"))
    assert wire.settings.codes.ratios == [8] and wire.usual_ratio() == 4
    assert wire.encode(TEXTS, codes=2)[0].ratio == 8  # where none is asked for
    with pytest.raises(UserError, match="learned at 8x, not at 4x"):
        wire.encode(TEXTS, ratio=4, codes=2)
    with pytest.raises(UserError, match="learned at 8x, not at 4x"):
        evaluate(wire, [Example("a", TEXTS[0], "Where?", ("Oslo",))], (4,), (1 / 8,), ["latents"], ["llama"])
    service = Service(wire)
    with pytest.raises(ApiError, match="learned at 8x, not at 4x"):
        service.encode_jobs(LatentsRequest(input=TEXTS[0], codes=2, ratio=4), lambda *_: None)
    assert service.encode_jobs(LatentsRequest(input=TEXTS[0], codes=2), lambda *_: None)[0].ratio == 8
    # gone on with at another ratio, they have learned at both
    more = [f"start={tmp_path / 'eight' / 'wire'}", more[1], "draws=[{ratio: 4, codes: 3}]", "steps=1"]
    both = train(tmp_path / "wire.yaml", more, out=tmp_path / "both")
    assert settings_of(both).codes.ratios == [4, 8]


def test_other_books_are_refused(trained, wire):
    packet = wire.encode(TEXTS, ratio=4, codes=1)[0]
    other = Wire.from_pretrained(trained)
    other.books.get_buffer("books")[0] += 1
    with pytest.raises(UserError, match="packet was made by encoder"):
        other.latents([packet])
    with pytest.raises(UserError, match="1 to 3 codes"):
        wire.encode(TEXTS, ratio=4, codes=4)


def test_an_evaluation_has_rows_of_codes(wire):
    examples = [Example(str(i), text, "Where from?", ("Paris",)) for i, text in enumerate(TEXTS)]
    found = evaluate(wire, examples, [4], [16, 0.5], ["latents", "pca"], ["llama"], progress=False)
    assert [(row["condition"], row["bits"]) for row in found["rows"]] == [
        ("latents", 16), ("latents", 0.5), ("pca", 16)
    ]  # fmt: skip
    coded = found["rows"][1]
    assert coded["bytes"] == pytest.approx(sum(p.size() for p in wire.encode(TEXTS, ratio=4, codes=1)) / 2)


def test_codes_that_no_wire_has_are_refused(tiny_config, tiny_wire, tmp_path):
    with pytest.raises(UserError, match=r"set wire\.codes"):
        train(tiny_config, [DRAWS], out=tmp_path / "run")
    with pytest.raises(UserError, match="this wire has no codes"):
        tiny_wire.encode(TEXTS, ratio=4, codes=1)


def test_a_server_takes_packets_of_codes_and_no_forged_ones(wire):
    service = Service(wire, ["llama"])

    def sent(packet: Packet) -> Packet:
        return service.packet(LatentData(data=base64.b64encode(packet.to_bytes()).decode()), "latents")

    packet = wire.encode(TEXTS, ratio=4, codes=2)[0]
    assert sent(packet).coded
    with pytest.raises(ApiError, match="made by encoder"):
        sent(replace(packet, encoder=wire.fingerprint))
    with pytest.raises(ApiError, match="1 to 3 codes"):
        sent(replace(packet, z_MD=torch.zeros(5, 9)))
    assert "norm" not in packet.describe()


def test_a_stage_learns_the_maps_to_narrow_books_alone(trained, tiny_tree, tmp_path):
    import yaml

    (tmp_path / "wire.yaml").write_text(yaml.safe_dump(tiny_tree))
    plain = trained.parents[1] / "plain" / "wire"
    words = [f"start={plain}", "grow=['codes={stages: 2, size: 16, width: 6}']", "steps=3"]
    words += ["stages=[{learn: [codes]}]", "draws=[{ratio: 4, codes: 2}]"]
    told = Wire.from_pretrained(train(tmp_path / "wire.yaml", words, out=tmp_path / "run")).state_dict()
    before = Wire.from_pretrained(plain).state_dict()
    assert all(torch.equal(told[name], tensor) for name, tensor in before.items())
    down = told["codes.down.weight"]
    assert down.shape[0] == 6 and not torch.allclose(down @ down.mT, torch.eye(6), atol=1e-5)
    assert told["codes.books"].abs().sum() > 0


def test_books_that_stay_as_they_are_leave_runs_a_mean(trained, tiny_tree, tmp_path):
    import yaml

    from latentwire.training.average import average

    (tmp_path / "wire.yaml").write_text(yaml.safe_dump(tiny_tree))
    still = [f"start={trained}", "steps=2", "stages=[{learn: [encoder, links]}]", "draws=[{ratio: 4, codes: 2}]"]
    runs = [train(tmp_path / "wire.yaml", [*still, f"seed={n}"], out=tmp_path / str(n)) for n in (0, 1)]
    before, states = Wire.from_pretrained(trained).state_dict(), [Wire.from_pretrained(r).state_dict() for r in runs]
    assert all(
        torch.equal(before[f"codes.{name}"], state[f"codes.{name}"]) for state in states for name in ("books", "use")
    )
    mean = average(runs).state_dict()
    assert torch.equal(mean["codes.books"], before["codes.books"])
    moved = next(n for n in mean if n.startswith("encoder.") and not torch.equal(states[0][n], states[1][n]))
    torch.testing.assert_close(mean[moved], (states[0][moved] + states[1][moved]) / 2)
    with pytest.raises(UserError, match="have other codes"):
        average([trained, train(tmp_path / "wire.yaml", [still[0], "steps=2", still[3]], out=tmp_path / "moved")])


def test_codes_on_a_grid_learn_from_their_gradient_and_have_a_mean(tiny_tree, tmp_path):
    import yaml

    draws = "draws=[{ratio: 4, codes: 2}, {ratio: 8, codes: 1}]"
    made = {**tiny_tree, "wire": {**tiny_tree["wire"], "codes": {"type": "grid", "stages": 2, "hidden": 16}}}
    (tmp_path / "wire.yaml").write_text(yaml.safe_dump(made))
    first = train(tmp_path / "wire.yaml", [draws, "steps=2"], out=tmp_path / "first")
    runs = [first, train(tmp_path / "wire.yaml", [f"start={first}", draws, "steps=2"], out=tmp_path / "second")]
    wires, mean = [Wire.from_pretrained(run) for run in runs], average(runs)
    one, two, both = (wire.books.get_parameter("down.0.weight") for wire in (*wires, mean))
    assert not torch.equal(one, two)
    torch.testing.assert_close(both, (one + two) / 2)
    packet = mean.encode(TEXTS, ratio=4, codes=2)[0]
    assert Packet.from_bytes(packet.to_bytes()).coded and packet.size() == 32 + 2 * len(packet.z_MD)
    with pytest.raises(UserError, match="packet was made by encoder"):
        wires[1].latents([packet])


def test_codes_of_parts_begin_where_tokens_are_told_apart(trained, tiny_tree, tmp_path, caplog):
    import yaml

    (tmp_path / "wire.yaml").write_text(yaml.safe_dump(tiny_tree))
    plain = trained.parents[1] / "plain" / "wire"
    grow = "grow=['codes={type: product, stages: 4, parts: 4, bits: 8, width: 4, read: 6, layers: 1}']"
    words = [f"start={plain}", grow, "draws=[{ratio: 4, codes: 4}]", "steps=2"]
    with caplog.at_level("INFO"):
        first = train(tmp_path / "wire.yaml", words, out=tmp_path / "first")
    assert "latents at 4x" in caplog.text and "codes begin from" in caplog.text
    wire = Wire.from_pretrained(first)
    packet = wire.encode(TEXTS, ratio=4, codes=4)[0]
    assert Packet.from_bytes(packet.to_bytes()).coded and packet.size() == 32 + 4 * len(packet.z_MD)
    assert isinstance(wire.receiver("llama").generate(packet, "Where?", max_new_tokens=4), str)
    # several packets of a request are read each by itself, whatever they hold
    packets = [*wire.encode(TEXTS, ratio=4, codes=4), *wire.encode(TEXTS[:1], ratio=4)]
    alone = torch.cat([wire.latents([each]).z_BMD[0] for each in packets])
    torch.testing.assert_close(joined(wire, packets).z_MD, alone)
    # what comes with a wire is gone on with, and does not begin again; here its way back alone learns
    caplog.clear()
    back = "stages=[{learn: [codes.up, codes.blocks, codes.book]}]"
    with caplog.at_level("INFO"):
        second = train(tmp_path / "wire.yaml", [f"start={first}", back, *words[2:]], out=tmp_path / "second")
    assert "codes begin" not in caplog.text
    before, after = wire.state_dict(), Wire.from_pretrained(second).state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"codes.up.weight", "codes.book.weight", "codes.blocks.0.mix.weight"} <= moved
    assert all(name.startswith(("codes.up.", "codes.blocks.", "codes.book.")) for name in moved)
    # and again, with nobody reading: codes are held to the latents alone
    alone = "stages=[{receivers: none, learn: [codes.up, codes.blocks, codes.book]}]"
    more = ["steps=40", "log_every=1", "warmup=1", "rate=0.01", "diagnostics.every=10"]
    train(tmp_path / "wire.yaml", [f"start={first}", alone, words[2], *more], out=tmp_path / "alone")
    lines = [json.loads(line) for line in (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["source"] == "text"]
    assert not any(key.startswith(("llama/", "qwen2/")) for line in steps for key in line)
    far = [line["codes/far"] for line in steps]
    assert sum(far[-10:]) < 0.9 * sum(far[:10])
    assert steps[0]["rows_per_second"] == 0 and steps[0]["tokens_per_second"] > 0
    after = Wire.from_pretrained(tmp_path / "alone" / "wire").state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(("codes.up.", "codes.blocks.", "codes.book.")) for name in moved)
    with pytest.raises(UserError, match="4 codes for a latent, all or none, not 2"):
        train(tmp_path / "wire.yaml", [*words[:2], "draws=[{ratio: 4, codes: 2}]"], out=tmp_path / "fewer")
    # at another ratio a latent has more tokens than parts
    with caplog.at_level("INFO"):
        train(tmp_path / "wire.yaml", [*words[:2], "draws=[{ratio: 8, codes: 4}]", "steps=1"], out=tmp_path / "eight")
    assert "codes begin untrained" in caplog.text
