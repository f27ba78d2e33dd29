"""With the published recipe the loop computes the oracle's losses and gradients; a pre-trained encoder is taken in."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from wholebody.errors import AssetMissing, BadInput
from wholebody.model.published_names import published_name
from wholebody.training import loop
from wholebody.training.config import read_config

RECIPE = """
name = "oracle"
network = "b"
variant = "{variant}"
start_from = "{start}"
body = "{body}"
objective = "published"
batch_size = 2
epochs = 1
ema_decay = 0.0
clip_norm = 0.0
fan_in_scaling = false
weight_decay = 0.0
vertices = 2
precision = "fp32"
{more}
[people]
targets = "published"
sets = [{{ name = "MSCOCO" }}]
"""


@pytest.fixture(scope="module")
def batch(fill, images):
    truth, masks = fill["train_batch"]()
    return {"image": images.permute(0, 2, 3, 1).double()} | {
        name: torch.from_numpy(np.asarray(value)).double() for name, value in {**truth, **masks}.items()
    }


@pytest.fixture(scope="module")
def started(published_file, standin_dir, tmp_path_factory):
    """(network, a run that starts from its published checkpoint), in double precision as the oracle's forward pass.

    Without decoders: what passes through published ones differs a little, see tests/model/test_published_way.py.
    """
    variant = "wo_decoder"
    network = f"b_{variant}"
    folder = tmp_path_factory.mktemp(network)
    recipe = folder / "oracle.toml"
    recipe.write_text(RECIPE.format(variant=variant, start=published_file(network), body=standin_dir, more=""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "open_data", tiny.open_made_up)
        patch.setattr(loop, "new_network", loop.new_network)
        patch.setattr(loop.BodyModel, "load", loop.BodyModel.load)
        tiny.compute_in_double_precision()
        run = loop.start(read_config(recipe), folder / "run")
    run.model.train = lambda mode=True: torch.nn.Module.train(run.model, False)  # as the oracle was computed
    yield network, run
    run.close()


def test_losses_and_gradient_norms_are_the_oracles(started, batch, oracle, monkeypatch):
    network, run = started
    kept = {}
    monkeypatch.setattr(run.optimizer, "step", lambda: None)
    monkeypatch.setattr(run.log, "step", lambda step, loss, terms, extra: kept.update(terms, total=loss, **extra))
    run.learn([batch])
    arrays = oracle(f"{network}_train")
    names = {name.removeprefix("loss/") for name in arrays if name.startswith("loss/")}
    assert names == kept.keys() - {"total", "learning_rate", "gradient_norm"}
    for name in names:
        assert float(kept[name]) == pytest.approx(float(arrays[f"loss/{name}"].mean()), rel=1e-4), name
    assert float(kept["total"]) == pytest.approx(float(arrays["total"]), rel=1e-5)
    found: dict[str, float] = {}
    for name, parameter in run.model.named_parameters():
        published = published_name(name, run.model.config.variant)
        square = 0.0 if parameter.grad is None else float(parameter.grad.norm()) ** 2
        found[published] = found.get(published, 0.0) + square
    norms = dict(zip(str(arrays["grad_names"]).split("\n"), arrays["grad_norms"], strict=True))
    assert found.keys() == norms.keys()
    for name, square in found.items():
        assert square**0.5 == pytest.approx(norms[name], rel=1e-3, abs=2e-5), name


@pytest.mark.parametrize("variant", ["normal", "wo_decoder"])
def test_on_agora_shape_counts_twice_and_the_projection_moves_the_camera_alone(tmp_path, monkeypatch, variant):
    monkeypatch.setattr(loop, "open_data", tiny.open_made_up)
    config = read_config(tiny.write_recipe(tmp_path, variant=variant), [f"variant={variant}"])
    run = loop.start(config, tmp_path / "run")
    (batch,) = next(run.batches())
    published = dataclasses.replace(config.published, shape_weight=2.0, detach_projection=True)
    agora = loop.Learner(run.model, run.learner.body, dataclasses.replace(config, published=published))
    run.model.eval()
    plain, doubled = run.learner(batch, {}), {"smplx_shape"}
    changed = agora(batch, {})
    run.close()
    if variant == "wo_decoder":
        doubled |= {"smplx_pose", "smplx_expr", "joint_cam", "smplx_joint_cam"}
    for name, loss in plain.items():
        assert changed[name].item() == pytest.approx(loss.item() * (2 if name in doubled else 1), rel=1e-5), name

    def moved(loss):
        run.model.zero_grad()
        loss.backward()
        return {name.split(".")[0] for name, p in run.model.body_head.named_parameters() if p.grad is not None}

    assert moved(plain["joint_proj"]) > moved(changed["joint_proj"]) == {"camera"}


def encoder_file(model, folder, drop=()):
    state = {
        published_name(f"encoder.{name}", "normal").replace("encoder.", "backbone.", 1): value + 1
        for name, value in model.encoder.state_dict().items()
        if name not in drop
    }
    torch.save({"state_dict": state}, folder / "osx_vit_small.pth")
    return str(folder / "osx_vit_small.pth")


def test_a_pre_trained_encoder_is_taken_whole_or_not_at_all(small_config, tmp_path):
    from wholebody.model.osx import build_osx
    from wholebody.training.network import load_encoder

    model = build_osx(small_config)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    load_encoder(model, encoder_file(model, tmp_path, drop=("component_tokens",)))
    for name, value in model.encoder.state_dict().items():
        torch.testing.assert_close(value, before[name] + (name != "component_tokens"))
    with pytest.raises(BadInput, match="lacks 1 of .*encoder.pos_embed"):
        load_encoder(model, encoder_file(model, tmp_path, drop=("pos_embed",)))
    with pytest.raises(AssetMissing, match="osx_vit_l.pth"):
        load_encoder(model, str(tmp_path / "nowhere.pth"))
    (tmp_path / "half.pth").write_bytes(b"PK half a file")
    with pytest.raises(BadInput, match="damaged"):
        load_encoder(model, str(tmp_path / "half.pth"))


@pytest.mark.parametrize("override, message", [("variant=wo_decoder", "set network=small variant=normal"),
                                               ("body=nowhere", "body")])  # fmt: skip
def test_a_checkpoint_of_another_network_is_no_start(tmp_path, monkeypatch, override, message):
    monkeypatch.setattr(loop, "open_data", tiny.open_made_up)
    monkeypatch.setattr(loop.BodyModel, "load", lambda *_, **__: None)
    config = read_config(tiny.write_recipe(tmp_path), [override])
    with pytest.raises(BadInput, match=message):
        loop.new_network(config)
