"""`wholebody evaluate`: a network's errors on a named test set, printed beside what a constant answer scores."""

from __future__ import annotations

from pathlib import Path

from wholebody.errors import BadInput

HELDOUT_COUNT, HELDOUT_SEED = 1000, 7
"""The held-out synthetic set, with `split="heldout"` and otherwise the default `SynthesisConfig`."""

TESTSETS = ("synthetic", "real")


def run(model: str | Path, testset: str, root: str | Path | None = None) -> dict[str, float]:
    """Measure `model` and print a table.

    Args:
        model: an embedded name or a checkpoint, on the open body.
        testset: "synthetic": held-out people; "real": photos with measured joints.
        root: where the set lies. Synthetic people are drawn there if the folder is missing or incomplete (default
            `output/synth/heldout`).
    """
    from wholebody.model.load import load_model

    if testset not in TESTSETS:
        raise BadInput(f"testset is {testset!r}: choose one of {', '.join(TESTSETS)}")
    network = load_model(model)
    if testset == "real":
        from wholebody.evaluation.real import measure_real

        if root is None:
            raise BadInput("--testset real needs --root DIR, the folder with real3d.json")
        errors = measure_real(network, root)
        print("PA-MPJPE, mm, 12 joints")
        for name, value in errors.items():
            print(f"  {name:<44}{value:8.1f}")
        return errors

    from wholebody.evaluation.synthetic import measure_layers
    from wholebody.synthesis import SynthesisConfig
    from wholebody.synthesis import run as synthesize

    folder = Path(root) if root else Path("output/synth/heldout")
    synthesize(folder, HELDOUT_COUNT, HELDOUT_SEED, config=SynthesisConfig(split="heldout"), layers=True)
    errors = measure_layers(network, str(folder), constants=True)
    print(f"{HELDOUT_COUNT} held-out synthetic people, mm              network   best constant   ratio")
    for name, value in errors.items():
        constant = errors.get(f"constant_{name}")
        if constant is not None:
            print(f"  {name:<44}{value:10.1f}{constant:16.1f}{value / constant:8.2f}")
    print(f"  projected body joints, % of the box's height {errors['body_2d_percent']:9.1f}")
    print("of these, people whose body is whole in the picture")
    print(f"  pa_mpvpe_all {errors['pa_mpvpe_all_whole']:.1f}, mpvpe_all {errors['mpvpe_all_whole']:.1f}")
    print(f"  projected body joints, % of the box's height {errors['body_2d_percent_whole']:9.1f}")
    return errors
