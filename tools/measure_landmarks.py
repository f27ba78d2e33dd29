"""How far the key points of MoveNet Thunder and BlazePose lie from the truth of synthetic people.

    wholebody synth --layers --count 500 --seed 41 --out output/layers
    python tools/measure_landmarks.py output/layers --count 500 --out noise.npz

2D errors are in fractions of the person's box (its longer side), of joints that can be seen. `--out` keeps what was
found and the truth of every person, for whoever wants to simulate it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from wholebody.body.joints import COCO_BODY_17, COCO_WHOLEBODY_FROM_137
from wholebody.geometry.crop import fit_crop
from wholebody.model.embedded.blazepose import POSE_33, BlazePose, region_of_body
from wholebody.model.embedded.thunder import find_keypoints, load_thunder
from wholebody.people.predictor import crop_person
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.sets.compose import blend, camera_effects
from wholebody.synthesis.sets.layers import LayerSet

BODY = list(COCO_WHOLEBODY_FROM_137[:17])


def photo(layer, bank, rng):
    """The layer over a background, cut to the photo that it stands for; its sample moved along."""
    height, width = layer.alpha.shape
    picture = camera_effects(blend(bank.sample(rng, height, width), layer.color, layer.alpha), rng)
    frame = np.array([0, 0, width, height]) if layer.sample.frame_xyxy is None else layer.sample.frame_xyxy
    x0, y0 = np.floor(np.maximum(frame[:2], 0)).astype(int)
    x1, y1 = np.ceil(np.minimum(frame[2:], [width, height])).astype(int)
    origin = np.array([x0, y0])
    sample = layer.sample
    moved = replace(
        sample,
        joints_px=sample.joints_px - origin,
        box_xyxy=sample.box_xyxy - np.tile(origin, 2),
        principal_px=sample.principal_px - origin,
    )
    return np.ascontiguousarray(picture[y0:y1, x0:x1]), moved


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--out", help="an .npz for what was found")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layers, bank = LayerSet(arguments.layers), BackgroundBank(None, None, seed=0, split="train")
    thunder, pose = load_thunder(), BlazePose()
    rows: dict[str, list] = {}

    def keep(**values):
        for name, value in values.items():
            rows.setdefault(name, []).append(value)

    from wholebody.model.embedded.thunder import average_with_mirrored

    for number in range(min(arguments.count, len(layers))):
        picture, sample = photo(layers.get(number), bank, np.random.default_rng((7, number)))
        box = np.concatenate([np.maximum(sample.box_xyxy[:2], 0),
                              np.minimum(sample.box_xyxy[2:], picture.shape[1::-1])])  # fmt: skip
        crop_box = fit_crop(box - np.array([0, 0, 1, 1]), picture.shape[:2], 1.25)
        crop = crop_person(picture, crop_box, "area")[::2, ::2]
        size = crop_box[2:] - crop_box[:2]
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None] / 255
            maps = thunder.trunk(images)
            one = find_keypoints(maps)
            both = find_keypoints(average_with_mirrored(maps, thunder.trunk(images.flip(3))))
        # A crop's pixel i covers i/W to (i+1)/W, and the crop's box is mapped to pixels, first centre at 0.
        points, points2 = (
            (found.points[0].numpy() - 0.5 / np.array([192, 256])) * size + crop_box[:2] for found in (one, both)
        )
        region = region_of_body(points, one.scores[0].numpy(), box)
        look = pose(picture, region)
        again = pose(picture, look.next_region)
        keep(
            box=box, joints_px=sample.joints_px, joints_cam=sample.joints_cam, seen=sample.joint_visible,
            thunder=points, thunder_score=one.scores[0].numpy(), center=float(one.center_score[0]),
            regressed=(one.regressed[0].numpy() - 0.5 / np.array([192, 256])) * size + crop_box[:2],
            thunder_mirrored=points2, thunder_mirrored_score=both.scores[0].numpy(),
            pose=look.points_px, pose_m=look.points_m, pose_depth=look.depth_px, pose_score=look.score,
            visibility=look.visibility, presence=look.presence, region=region, next=look.next_region,
            pose2=again.points_px, pose2_m=again.points_m, pose2_score=again.score, visibility2=again.visibility,
            next2=again.next_region, hw=picture.shape[:2],
        )  # fmt: skip
    found = {name: np.array(value) for name, value in rows.items()}
    if arguments.out:
        np.savez_compressed(arguments.out, **found)  # type: ignore[arg-type]
    report(found)


def report(found: dict[str, np.ndarray]) -> None:
    true, seen = found["joints_px"][:, BODY], found["seen"][:, BODY]
    size = (found["box"][:, 2:] - found["box"][:, :2]).max(1)[:, None]
    coco = [POSE_33.index(name) for name in COCO_BODY_17]
    limbs = np.arange(17) >= 5
    places = {
        "thunder": found["thunder"], "thunder, mirrored too": found["thunder_mirrored"],
        "regressed": found["regressed"], "pose": found["pose"][:, coco], "pose, second look": found["pose2"][:, coco],
    }  # fmt: skip
    print(f"{len(true)} people")
    for name, points in places.items():
        error = np.linalg.norm(points - true, axis=2) / size
        e = error[seen & limbs]
        print(
            f"{name:24s} limbs: median {np.median(e):.4f}, 90 % {np.quantile(e, 0.9):.4f}, PCK@0.05 "
            f"{(e < 0.05).mean():.3f}, PCK@0.1 {(e < 0.1).mean():.3f}; all 17 median {np.median(error[seen]):.4f}"
        )
    for key, again in (("pose_m", "first look"), ("pose2_m", "second look")):
        p = found[key][:, coco][:, limbs]
        t = found["joints_cam"][:, BODY][:, limbs]
        t = t - t[:, 6:8].mean(1, keepdims=True)
        p = p - p[:, 6:8].mean(1, keepdims=True)
        scale = (p * t).sum((1, 2)) / (p * p).sum((1, 2))
        d = p * scale[:, None, None] - t
        print(
            f"BlazePose 3D, {again}: scale {np.median(scale):.3f}, mean error "
            f"{np.linalg.norm(d, axis=2).mean():.3f} m, by axis {np.abs(d).mean((0, 1)).round(3)}"
        )
    whole = (found["next"][:, 2] / found["region"][:, 2])[found["pose_score"] > 0.8]
    print(f"region found over region given: {np.quantile(whole, [0.1, 0.25, 0.5, 0.75, 0.9]).round(2)}")


if __name__ == "__main__":
    main()
