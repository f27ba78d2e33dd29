"""In which arithmetic a network's encoder computes, and whether it is compiled: what `load_model` is asked for.

The encoder holds nearly all of a network's weights and work. All that follows it (heads, rotations, the camera's depth)
stays in single precision whatever is chosen here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wholebody.errors import BadInput
from wholebody.files.cache import cache_folder

PRECISIONS = ("fp32", "bf16", "auto")
Say = Callable[[str], None]


def check_precision(precision: str) -> None:
    """Raises BadInput for a name that is not in `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise BadInput(f"the precision {precision!r} is unknown; known: {', '.join(PRECISIONS)}")


def choose_dtype(precision: str, encoder: nn.Module, device: str | torch.device | None, say: Say) -> torch.dtype:
    """The type of the encoder's weights. `auto`: bfloat16 where the device computes in it, else float32; which of the
    two, and why, is said. An encoder whose `made_for_fp32` is true stays in float32 on a CPU."""
    check_precision(precision)
    if precision == "fp32":
        return torch.float32
    device = torch.device("cpu" if device is None else device)
    if device.type == "cpu" and getattr(encoder, "made_for_fp32", False):
        say("precision: fp32, as this network has kernels of its own on a CPU, and is faster and more exact with these")
        return torch.float32
    able = has_bf16_arithmetic(device)
    name = {"cpu": "this processor", "cuda": "this GPU"}.get(device.type, f"the device {device}")
    if precision == "auto":
        say(f"precision: bf16, in which {name} computes" if able else
            f"precision: fp32, as {name} has no bf16 arithmetic")  # fmt: skip
        return torch.bfloat16 if able else torch.float32
    if not able:
        say(f"precision: bf16 as asked, but {name} has no bf16 arithmetic: fp32 is likely to be faster")
    return torch.bfloat16


def has_bf16_arithmetic(device: str | torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself (AVX512-BF16, AMX, Arm's BF16, tensor cores), not by detours."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
        return any(known.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16", "sve_bf16"))
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # of PyTorch before 2.10
    return any(getattr(torch.cpu, name)() for name in checks if hasattr(torch.cpu, name))


def compile_encoder(encoder: nn.Module, example: Tensor, say: Say) -> bool:
    """Compile an encoder in place, for pictures like `example` (B×3×H×W, of its type, on its device); whether it is.

    What the compiler makes is kept in `cache_folder` for the next process. Where it fails (no compiler is installed,
    say), one line says so, and the encoder goes on as it was; so it does if that happens later, for a batch of another
    size. A tensor's name does not change, nor does what is saved.
    """
    if example.device.type == "cpu" and getattr(encoder, "made_for_fp32", False):
        say("not compiled: this network has kernels of its own on a CPU, and is faster with these")
        return False
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ and (folder := cache_folder()) is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    plain = encoder.forward
    # On a CPU, weights in half precision are laid out once for the products that read them, if they are constants.
    constant = example.device.type == "cpu" and example.dtype in (torch.bfloat16, torch.float16)
    guarded = _Guarded(plain, torch.compile(plain, options={"freezing": True} if constant else None), say)
    encoder.forward = guarded
    say("compiling the encoder; what comes of it is kept, so that the next start takes seconds")
    begin = time.perf_counter()
    with torch.inference_mode():
        encoder(example)
    if not guarded.failed:
        say(f"compiled in {time.perf_counter() - begin:.1f} s")
    return not guarded.failed


class _Guarded:
    """Calls `fast`; from the first time on that it cannot be compiled, `plain`."""

    def __init__(self, plain: Callable[..., Any], fast: Callable[..., Any], say: Say) -> None:
        self.plain, self.fast, self.say = plain, fast, say
        self.failed = False

    def __call__(self, images: Tensor) -> Any:
        if self.failed or torch.is_grad_enabled():
            return self.plain(images)
        if len(images) > 1:  # one more compilation serves all of these
            with contextlib.suppress(AttributeError):
                torch._dynamo.maybe_mark_dynamic(images, 0)
        try:
            return self.fast(images)
        except Exception as error:  # compilers fail in many ways; what `plain` cannot do either, it says itself
            result = self.plain(images)
            self.failed = True
            self.say(f"not compiled, and so not as fast as asked: {_first_line(error)}")
            return result


def _first_line(error: BaseException) -> str:
    """Why, in one line: the innermost cause, which the compiler wraps in its own words."""
    while (inner := error.__cause__ or getattr(error, "inner_exception", None)) is not None:
        error = inner
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text[:200]
