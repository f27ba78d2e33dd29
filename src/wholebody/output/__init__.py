"""What a prediction becomes: files that appear whole, and pictures to look at."""

KINDS = ("overlay", "npz", "obj", "ply", "glb", "scene", "json")
"""Of results of a picture: `glb` is a mesh a person, `scene` one `NAME.glb` with everybody, rigged, on one floor;
`.json` is always written."""

FILM_KINDS = ("glb", "bvh", "npz", "json", "mot", "overlay", "html")
"""Of results of a film; `.json` is always written."""

SMPLER_X = "smpler-x"
"""Of both, where it is asked for: the files that SMPLer-X's inference script writes, see `output.smpler_x`."""
