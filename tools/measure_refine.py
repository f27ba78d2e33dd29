"""Does refining by noisy keypoints improve the 3D? `python tools/measure_refine.py --layers output/synth/heldout`.

Draw the people first: `wholebody synth --layers --count 2000 --seed 7 --split heldout --out output/synth/heldout`.
Exit status 1 if PA-MPVPE does not fall by a quarter.
"""

from __future__ import annotations

import argparse
import sys

from wholebody.evaluation.refining import KEYPOINT_SETS, measure, report
from wholebody.model.load import load_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default="output/synth/heldout", help="folder of held-out people")
    parser.add_argument("--model", default="t", help="an embedded name or a checkpoint, on the open body")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.02, help="of the larger side of the box; default 0.02")
    parser.add_argument("--outliers", type=float, default=0.0, help="share of keypoints that are far off; default 0")
    parser.add_argument("--keypoints", default="wholebody", choices=tuple(KEYPOINT_SETS))
    options = parser.parse_args()
    errors = measure(
        load_model(options.model),  # type: ignore[arg-type]
        options.layers, options.count,
        noise=options.noise, outliers=options.outliers, keypoints=options.keypoints,
    )  # fmt: skip
    print(report(errors))
    return 0 if errors["pa_mpvpe_all"] <= 0.75 * errors["pa_mpvpe_all_before"] else 1


if __name__ == "__main__":
    sys.exit(main())
