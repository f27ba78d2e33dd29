"""How many people of synthetic groups a detector finds.

    wholebody synth --layers --count 500 --seed 41 --out output/layers
    python tools/measure_detection.py output/layers --groups 100 [--sheet sheet.jpg]

A group is 2 to 8 people of the layers, the nearer before the farther, over a background of 640×480 to 1280×720 pixels:
side by side, in contact, one behind the other, and some far away, down to 4 % of the picture's height. Somebody of whom
less than 40 % can be seen is left out of the account. A box is found if one of the detector's overlaps it by half
(IoU 0.5, each given once).
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from wholebody.people.detect import make_detector
from wholebody.people.detections import Detections, box_iou
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.sets.compose import blend, camera_effects
from wholebody.synthesis.sets.crops import warp_layer
from wholebody.synthesis.sets.layers import LayerSet


def whole_people(layers: LayerSet) -> np.ndarray:
    """Layers of people who are drawn from head to foot."""
    truth = layers.samples()
    inside = ((truth["box_xyxy"][:, :2] > 2) & (truth["box_xyxy"][:, 2:] < [285, 381])).all(1)
    frames = truth["frame_xyxy"]
    framed = ((truth["box_xyxy"][:, :2] >= frames[:, :2] + 1) & (truth["box_xyxy"][:, 2:] <= frames[:, 2:] - 1)).all(1)
    return np.flatnonzero(inside & framed)


def group(
    layers: LayerSet, rows: np.ndarray, bank: BackgroundBank, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture, the boxes (N, 4) of what can be seen of its people, and how much of each can be seen (N,)."""
    rng = np.random.default_rng((11, seed))
    width, height = [(1280, 720), (960, 720), (640, 480), (720, 960)][rng.integers(4)]
    picture = bank.sample(rng, height, width)
    count = int(rng.integers(2, 9))
    kind = rng.choice(["row", "contact", "scattered", "far"], p=[0.3, 0.3, 0.2, 0.2])
    tall = height * rng.uniform(0.35, 0.85)
    people = []
    for k in range(count):
        high = tall * rng.uniform(0.85, 1.15)
        x, ground = rng.uniform(0.05, 0.95) * width, min(height * rng.uniform(0.8, 0.99), height - 2)
        if kind == "row":
            x = width * (k + 0.5 + rng.normal(0, 0.1)) / count
            high = min(high, 1.6 * width / count)
        elif kind == "contact":
            x = width / 2 + (k - (count - 1) / 2) * 0.3 * high + rng.normal(0, 0.05) * high
        elif kind == "far" and k % 2:
            high = height * np.exp(rng.uniform(np.log(0.04), np.log(0.2)))
            ground = height * rng.uniform(0.45, 0.7)
        elif kind == "scattered":
            high = height * rng.uniform(0.12, 0.7)
            ground = height * 0.35 + high * 0.8 + rng.normal(0, 10)
        people.append((float(np.clip(ground, high * 0.9, height - 1)), float(x), float(high), int(rng.choice(rows))))
    people.sort()
    alphas: list[np.ndarray] = []
    for ground, x, high, row in people:
        layer = layers.get(row)
        box = layer.sample.box_xyxy
        scale = high / (box[3] - box[1])
        affine = np.array([[scale, 0, x - scale * (box[0] + box[2]) / 2], [0, scale, ground - scale * box[3]]])
        colour, alpha = warp_layer(layer.color, layer.alpha, affine, (height, width))
        picture = blend(picture, colour, alpha)
        alphas = [before * (1 - alpha / 255.0) for before in alphas] + [alpha / 255.0]
        people[len(alphas) - 1] = (ground, x, high, float((alpha > 127).sum()))  # type: ignore[assignment]
    boxes, shown = [], []
    for (*_, area), alpha in zip(people, alphas, strict=True):
        down, across = np.nonzero(alpha > 0.5)
        shown.append(len(across) / max(area, 1) if area > 60 else 0.0)
        corners = [across.min(), down.min(), across.max() + 1, down.max() + 1] if len(across) else [0, 0, 1, 1]
        boxes.append(corners)
    return camera_effects(picture, rng), np.array(boxes, float), np.array(shown)


def account(found: Detections, boxes: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Which people (N,) were found; how many boxes are nobody's; how many are those of people left out."""
    overlap = np.array([[box_iou(a, b) for b in boxes] for a in found.boxes_xyxy]).reshape(len(found), len(boxes))
    hit, taken = np.zeros(len(boxes), bool), np.zeros(len(found), bool)
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        a, b = divmod(int(flat), len(boxes))
        if overlap[a, b] < 0.5:
            break
        if not taken[a] and not hit[b]:
            taken[a] = hit[b] = True
    excused = sum(
        not taken[a] and any(overlap[a, b] > 0.2 and shown[b] < 0.4 for b in range(len(boxes)))
        for a in range(len(found))
    )
    return hit, int((~taken).sum()) - excused, excused


def main() -> None:
    import cv2

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers")
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--detector", default="movenet")
    parser.add_argument("--first", type=int, default=0, help="number of the first group")
    parser.add_argument("--sheet", help="a picture of the first groups with boxes")
    arguments = parser.parse_args()
    layers, bank = LayerSet(arguments.layers), BackgroundBank(None, None, seed=0)
    rows, detector = whole_people(layers), make_detector(arguments.detector)
    heights, hits, false, seconds = [], [], 0, []
    shots: list[np.ndarray] = []
    for seed in range(arguments.first, arguments.first + arguments.groups):
        picture, boxes, shown = group(layers, rows, bank, seed)
        start = time.process_time()
        found = detector(picture)
        seconds.append(time.process_time() - start)
        hit, wrong, _ = account(found, boxes, shown)
        counts = shown >= 0.4
        hits += hit[counts].tolist()
        heights += ((boxes[:, 3] - boxes[:, 1]) / len(picture))[counts].tolist()
        false += wrong
        if arguments.sheet and len(shots) < 12:
            for box, ok, share in zip(boxes, hit, shown, strict=True):
                colour = (0, 200, 0) if ok else (255, 0, 0) if share >= 0.4 else (120, 120, 120)
                cv2.rectangle(picture, box[:2].astype(int).tolist(), box[2:].astype(int).tolist(), colour, 2)
            for box in found.boxes_xyxy:
                cv2.rectangle(picture, box[:2].astype(int).tolist(), box[2:].astype(int).tolist(), (255, 255, 0), 1)
            shots.append(cv2.resize(picture, (480, 360)))
    hit, height = np.array(hits), np.array(heights)
    time_ms = 1000 * np.quantile(seconds, [0.5, 0.9])
    print(
        f"{len(hit)} people in {arguments.groups} groups: recall {hit.mean():.3f}, precision "
        f"{hit.sum() / max(hit.sum() + false, 1):.3f}; processor time a picture {time_ms[0]:.0f} ms "
        f"(90 %: {time_ms[1]:.0f})"
    )
    for low, high in ((0, 0.06), (0.06, 0.12), (0.12, 0.25), (0.25, 0.5), (0.5, 2)):
        part = (height >= low) & (height < high)
        if part.any():
            print(f"  height {low:.2f} to {high:.2f}: {part.sum():4d} people, recall {hit[part].mean():.3f}")
    if arguments.sheet:
        shots += [np.zeros_like(shots[0])] * (-len(shots) % 4)
        sheet = np.vstack([np.hstack(shots[k : k + 4]) for k in range(0, len(shots), 4)])
        cv2.imwrite(arguments.sheet, sheet[:, :, ::-1])


if __name__ == "__main__":
    main()
