"""What a prediction becomes: files that appear whole, and pictures to look at."""

KINDS = ("overlay", "npz", "obj", "ply", "glb", "scene", "json")
"""Of results of a picture: `glb` is a mesh a person, `scene` one `NAME.glb` with everybody, rigged, on one floor;
`.json` is always written."""

FILM_KINDS = ("glb", "bvh", "npz", "json", "mot", "overlay", "html")
"""Of results of a film; `.json` is always written."""
