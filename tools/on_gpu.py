"""The steps of `tools/on_gpu.sh`; each writes its part of the JSON as soon as it is known, and one that fails says why.

1. Outputs of the networks on the device against the oracle's float64 ones, in float32 and in bf16.
2. Time of `b`, `l`, `s`, `h` and `t` at batches of 1, 8 and 32: eager, compiled, and as CUDA graphs (bf16).
3. Training steps of size `b` in bf16 with one process.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import runpy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ORACLE = Path(__file__).parents[1] / "tests" / "oracle"
SECONDS = 440  # what is not begun by then is left out, and named
PUBLISHED_FPS_V100 = {"l": 12.2, "smpler_x_s": 36.2, "smpler_x_b": 33.1, "smpler_x_l": 24.4, "smpler_x_h": 17.5}


class Report:
    def __init__(self, path: Path) -> None:
        self.path, self.begin = path, time.monotonic()
        self.table: dict[str, Any] = {}

    def step(self, name: str, measure: Callable[[], Any]) -> None:
        if time.monotonic() - self.begin > SECONDS:
            found: Any = {"left_out": "no time was left"}
        else:
            try:
                found = measure()
            except Exception as error:  # one network that does not fit must not cost the rest
                found = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"}
        self.table[name] = found
        self.path.write_text(json.dumps(self.table, indent=1) + "\n")
        print(name, json.dumps(found), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry", action="store_true", help="tiny and on the CPU: only shows that the script runs")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        print("PyTorch sees no NVIDIA GPU here; --dry tries the script without one", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.dry else "cuda")
    report = Report(options.out)
    report.step("device", partial(about, device))
    for name in ("tiny",) if options.dry else ("b_normal", "smpler_x_s"):
        report.step(f"exactness_{name}", partial(exactness, name, device))
    sizes = ("tiny", "t") if options.dry else ("t", "b", "smpler_x_s", "l", "smpler_x_h")
    for size in sizes:
        for batch in (1,) if options.dry else (1, 8, 32):
            for way in ("eager",) if options.dry else ("eager", "compiled", "cuda_graphs"):
                if size == "t" and way == "compiled":
                    continue
                report.step(f"{size}_{batch}_{way}", partial(speed, size, batch, way, device))
    steps = 2 if options.dry else 50
    report.step("training_b_bf16", partial(training, "tiny" if options.dry else "b", steps, device))
    return 0 if not any("failed" in part for part in report.table.values()) else 1


def about(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    return {"name": name, "torch": torch.__version__, "dry": device.type == "cpu", "published_fps": PUBLISHED_FPS_V100}


def build(size: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """A network with made-up weights and the open body, which costs as much as a licensed one; `t` with its own."""
    import wholebody
    from wholebody.body.layer import BodyModel
    from wholebody.model.config import published_config, smpler_x_config
    from wholebody.model.osx import build_osx

    if size == "t":
        return wholebody.load_model("t", device=str(device), dtype=dtype)
    torch.manual_seed(0)
    if size == "tiny":
        config = tiny()
    else:
        config = smpler_x_config(size[-1]) if size.startswith("smpler") else published_config(size)
    model = build_osx(config, BodyModel.load()).eval().requires_grad_(False)
    return model.to(device=device, dtype=dtype)


def tiny() -> Any:
    import dataclasses

    from wholebody.model.config import FACE, HANDS, OSXConfig
    from wholebody.model.decoder import DecoderConfig
    from wholebody.model.encoder import ViTConfig

    decoder = DecoderConfig(width=32, layers=1, heads=4, points=2, ffn=48, norm_groups=8)
    hands, face = (dataclasses.replace(config, decoder=decoder) for config in (HANDS, FACE))
    encoder = ViTConfig(width=64, depth=1, heads=4)
    return OSXConfig(name="tiny", encoder=encoder, hidden=24, box_channels=(16, 16, 16), hands=hands, face=face)


def exactness(name: str, device: torch.device) -> dict[str, float]:
    """Largest differences in millimetres of root-relative joints, against float64: of the oracle's weights on the CPU
    (what the oracle's tests hold to the published code)."""
    sys.path.insert(0, str(ORACLE))  # the family's file builds on OSX's
    model = filled(name)
    picture = torch.from_numpy(runpy.run_path(str(ORACLE / "fill.py"))["image"](1))
    found = {}
    with torch.inference_mode():
        true = relative(model.double()(picture.double()))
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            model = model.to(torch.float32).to(device=device, dtype=dtype)
            ours = relative(model(picture.to(device)))
            found[precision] = float((ours.double().cpu() - true).norm(dim=-1).max() * 1000)
            model = model.cpu()
    return found


def filled(name: str) -> Any:
    """The network of that name with the oracle's made-up weights."""
    import gzip
    import tempfile

    from wholebody.body.layer import BodyModel
    from wholebody.model import checkpoint

    if name == "tiny":
        return build("tiny", torch.device("cpu"))
    with gzip.open(ORACLE / "keys.json.gz") as file:
        keys = json.load(file)[name]
    fill = runpy.run_path(str(ORACLE / "fill_family.py"))
    unused = set(keys["no_gradient"])
    tensors = {}
    for key, shape in keys["state_dict"].items():
        values = None if key in unused else fill["value"](key, tuple(shape))
        kind = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        tensors[f"module.{key}"] = torch.zeros(shape, dtype=kind) if values is None else torch.from_numpy(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pth.tar"
        torch.save({"epoch": 0, "network": tensors}, path)
        model, _ = checkpoint.load(path)
        model = copy.deepcopy(model)  # off the file, which goes
    model.body = BodyModel.load()
    return model.eval().requires_grad_(False)


def relative(prediction: Any) -> Tensor:
    return prediction.joints_cam - prediction.joints_cam[:, :1]


def speed(size: str, batch: int, way: str, device: torch.device) -> dict[str, float]:
    """Milliseconds a batch in float32 (t) or bf16, and people a second."""
    model = build(size, device, torch.float32 if size == "t" or device.type == "cpu" else torch.bfloat16)
    if way != "eager":
        mode = "reduce-overhead" if way == "cuda_graphs" else "default"
        encoder: nn.Module = model.encoder
        encoder.forward = torch.compile(encoder.forward, mode=mode)  # type: ignore[method-assign]
    images = torch.rand(batch, 3, 512, 384, device=device)

    def once() -> None:
        model(images)
        if device.type == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        for _ in range(3):
            once()
        times = []
        for _ in range(2 if device.type == "cpu" else 20):
            begin = time.perf_counter()
            once()
            times.append(time.perf_counter() - begin)
    median = float(np.median(times))
    return {"ms": round(1e3 * median, 2), "people_a_second": round(batch / median, 1)}


def training(size: str, steps: int, device: torch.device) -> dict[str, float]:
    """Steps of forward, backward and fused AdamW under bf16 autocast, on made-up pictures and a made-up target."""
    model = build(size, device).train().requires_grad_(True)
    model.body = None
    batch = 2 if device.type == "cpu" else 16
    images = torch.rand(batch, 3, 512, 384, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    losses, begin = [], 0.0
    for step in range(steps):
        if step == min(5, steps - 1):
            begin = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            prediction = model.regress(images)
        loss = prediction.rotations.float().square().mean() + prediction.joints_cells.float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))  # waits for the device
    counted = steps - min(5, steps - 1)
    seconds = time.perf_counter() - begin
    return {"samples_a_second": round(batch * counted / seconds, 1), "first_loss": losses[0], "last_loss": losses[-1]}


if __name__ == "__main__":
    sys.exit(main())
