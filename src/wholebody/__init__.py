"""wholebody: whole-body 3D meshes of the people in a photo."""

__version__ = "0.1.0"
