"""What `--precision` and `--compile` choose, and that a network goes on where a compiler fails."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import wholebody
from wholebody.errors import BadInput
from wholebody.model import precision
from wholebody.model.encoder import ViT, ViTConfig
from wholebody.model.precision import choose_dtype, compile_encoder

TINY = ViTConfig(width=32, depth=2, heads=2)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.mark.parametrize(("able", "auto"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bf16_where_there_is_such_arithmetic_and_says_which(monkeypatch, said, able, auto):
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda device: able)
    assert choose_dtype("auto", nn.Identity(), None, said.append) == auto
    assert len(said) == 1 and ("no bf16 arithmetic" in said[0]) != able
    assert choose_dtype("fp32", nn.Identity(), "cpu", said.append) == torch.float32 and len(said) == 1
    assert choose_dtype("bf16", nn.Identity(), "cpu", said.append) == torch.bfloat16
    assert len(said) == (1 if able else 2)  # asked for where it is slow: done, and said


def test_an_unknown_precision_is_refused(said):
    with pytest.raises(BadInput, match="'half'.*fp32, bf16, auto"):
        choose_dtype("half", nn.Identity(), None, said.append)
    with pytest.raises(BadInput, match="give one of them"):
        wholebody.load_model("t", dtype=torch.float32, precision="fp32")


def test_all_but_the_encoder_stays_in_single_precision():
    """The embedded network in bf16: close to itself, and its camera's depth not among the 8 bits of bf16."""
    exact = wholebody.load_model("t")
    half = wholebody.load_model("t", dtype=torch.bfloat16)
    assert {p.dtype for p in half.encoder.blocks.parameters()} == {torch.bfloat16}
    outside = {p.dtype for name, p in half.named_parameters() if not name.startswith("encoder.")}
    assert outside == {torch.float32} and {b.dtype for b in half.body.buffers() if b.is_floating_point()} <= outside
    picture = torch.rand(2, 3, 512, 384, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        one, other = exact(picture), half(picture)
    assert other.vertices_cam.dtype == other.cam_trans.dtype == torch.float32
    assert not torch.equal(other.cam_trans, other.cam_trans.bfloat16().float())
    apart = (one.vertices_cam - one.cam_trans[:, None]) - (other.vertices_cam - other.cam_trans[:, None])
    assert apart.norm(dim=-1).mean() < 0.02  # noise shows nobody; on photos see docs/speed.md


class Eager:
    """Stands in for `torch.compile`: what it makes counts its calls, or fails."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.calls = fails, 0

    def __call__(self, function, **options):
        def run(images: Tensor):
            self.calls += 1
            if self.fails:
                raise RuntimeError("InductorError") from FileNotFoundError("no C++ compiler\nand more lines")
            return function(images)

        return run


def tiny_vit() -> tuple[ViT, Tensor]:
    torch.manual_seed(0)
    return ViT(TINY).eval(), torch.rand(1, 3, 512, 384)


def test_a_compiled_encoder_keeps_its_names_and_learns_uncompiled(monkeypatch, said):
    encoder, picture = tiny_vit()
    names, plain = list(encoder.state_dict()), encoder(picture)
    monkeypatch.setattr(torch, "compile", compiler := Eager(fails=False))
    assert compile_encoder(encoder, picture, said.append)
    assert compiler.calls == 1 and any("compiled in" in line for line in said)
    with torch.inference_mode():
        assert torch.equal(encoder(picture).tokens, plain.tokens)
    assert compiler.calls == 2 and list(encoder.state_dict()) == names
    encoder(picture).tokens.sum().backward()
    assert compiler.calls == 2 and encoder.norm.weight.grad is not None


def test_where_compiling_fails_one_line_says_so_and_the_encoder_goes_on(monkeypatch, said):
    encoder, picture = tiny_vit()
    plain = encoder(picture)
    monkeypatch.setattr(torch, "compile", compiler := Eager(fails=True))
    assert not compile_encoder(encoder, picture, said.append)
    assert [line for line in said if "not compiled" in line] == [
        "not compiled, and so not as fast as asked: no C++ compiler"
    ]
    with torch.inference_mode():
        torch.testing.assert_close(encoder(picture).tokens, plain.tokens)
    assert compiler.calls == 1  # it is not tried again for every picture


def test_a_fault_of_the_input_stays_one(monkeypatch, said):
    encoder, picture = tiny_vit()
    monkeypatch.setattr(torch, "compile", Eager(fails=False))
    assert compile_encoder(encoder, picture, said.append)
    with torch.inference_mode(), pytest.raises(BadInput, match="100, 100"):
        encoder(torch.zeros(1, 3, 100, 100))


def test_an_encoder_that_gains_nothing_is_left_alone(said):
    class Own(nn.Module):
        made_for_fp32 = True

    encoder = Own()
    for precision_ in ("bf16", "auto"):
        assert choose_dtype(precision_, encoder, "cpu", said.append) == torch.float32 and "fp32" in said.pop()
    assert not compile_encoder(encoder, torch.zeros(1, 3, 4, 4), said.append)
    assert "forward" not in vars(encoder) and "not compiled" in said[0]


@pytest.mark.slow
def test_compiled_is_the_same_network(tmp_path, monkeypatch, said):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    encoder, picture = tiny_vit()
    pictures = torch.rand(3, 3, 512, 384)
    with torch.inference_mode():
        plain = encoder(picture), encoder(pictures)
        assert compile_encoder(encoder, picture, said.append)
        for before, images in zip(plain, (picture, pictures), strict=True):
            torch.testing.assert_close(encoder(images).tokens, before.tokens, rtol=1e-4, atol=1e-5)
    assert any(tmp_path.iterdir()), "nothing is kept for the next process"
