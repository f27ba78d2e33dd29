"""The SMPL body, in which 3DPW's truth is given: 24 joints, no hands or face. Nothing is predicted with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wholebody.body.kinematics import pose_arrays
from wholebody.data.sample import Sample, axis_angle_to_matrix
from wholebody.errors import AssetMissing, BadInput

H36M_REGRESSOR = ("J_regressor_h36m.npy", "J_regressor_h36m_correct.npy")
"""It comes with the data of SPIN and its successors, and Pose2Mesh's repository has it in data/Human36M."""
# Which of the 17 joints of that regressor each of `BODY_14` is, if its first leg and its first arm are left ones.
_BODY_14_FROM_H36M = np.array([6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10])
_OTHER_SIDE = np.array([0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13])


class SmplBody:
    """One gender's body, with the regressor of the benchmarks' joints."""

    def __init__(self, arrays: dict[str, np.ndarray], h36m: np.ndarray | None) -> None:
        self.arrays = arrays
        self.regressor_14: np.ndarray | None = None
        if h36m is None:
            return
        # Two files of that name are in use, one with left and right legs exchanged: ask the body where left is (+x).
        sides = (h36m @ arrays["v_template"])[:, 0]
        rows = _BODY_14_FROM_H36M.copy()
        for limb, first in ((slice(0, 6), 1), (slice(6, 12), 11)):
            if sides[first] < 0:
                rows[limb] = _OTHER_SIDE[rows[limb]]
        self.regressor_14 = h36m[rows]

    @staticmethod
    def load(folder: str | Path, gender: str) -> SmplBody:
        """`SMPL_{GENDER}.pkl` and, if it is there, the Human3.6M joint regressor from `folder` or the folder `smpl` in
        or beside it."""
        from wholebody.files.npz import read_npy
        from wholebody.files.unpickle import as_array, as_dense, read_pickle

        folder = Path(folder)
        name = f"SMPL_{gender.upper()}.pkl"
        path = _find(folder, (name,))
        if path is None:
            raise AssetMissing(
                f"3DPW's truth needs {name}, and neither {folder} nor smpl/ there has it: register at "
                f"https://smpl.is.tue.mpg.de, download SMPL, and put it in {folder / 'smpl'}"
            )
        regressor = find_h36m(folder)
        stored = read_pickle(path)
        names = ("v_template", "weights", "J_regressor", "shapedirs", "posedirs", "kintree_table")
        try:
            arrays = {name: np.asarray(as_array(as_dense(stored[name])), np.float64) for name in names}
            h36m = None if regressor is None else np.asarray(read_npy(regressor), np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path} or {regressor} is not what its name says ({error!r}); fetch it again") from error
        if arrays["weights"].shape[1] != 24 or (h36m is not None and h36m.shape != (17, len(arrays["v_template"]))):
            other = "" if h36m is None else f" and {regressor} is {h36m.shape}"
            raise BadInput(
                f"{path} has {arrays['weights'].shape} skinning weights{other}: SMPL has 24 joints and the regressor "
                f"17 rows of its {len(arrays['v_template'])} vertices"
            )
        return SmplBody(arrays, h36m)

    def vertices(self, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> np.ndarray:
        """The mesh (V, 3) of axis-angle rotations (24, 3), betas (10,) and a translation (3,)."""
        a = self.arrays
        shaped = a["v_template"] + a["shapedirs"][..., : len(betas)] @ betas
        joints = a["J_regressor"] @ shaped
        turns = axis_angle_to_matrix(pose)
        posed = shaped + a["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
        turned, places = pose_arrays(turns, joints, a["kintree_table"][0].astype(np.int64).tolist())
        shifts = places - (turned @ joints[..., None])[..., 0]
        per_vertex = np.tensordot(a["weights"], np.concatenate([turned, shifts[..., None]], -1), (1, 0))
        return (per_vertex[:, :, :3] @ posed[..., None])[..., 0] + per_vertex[:, :, 3] + transl

    def mesh(self, sample: Sample) -> np.ndarray:
        """A person's mesh (V, 3)."""
        pose = np.zeros((24, 3))
        pose[:22] = sample.full_pose[:22]  # SMPL's hands (its last two joints) move no joint that is measured
        pelvis = self.arrays["J_regressor"][0] @ (
            self.arrays["v_template"] + self.arrays["shapedirs"][..., :10] @ sample.betas
        )
        return self.vertices(pose, np.asarray(sample.betas, np.float64), sample.transl_cam(pelvis))

    def own_joints(self, mesh: np.ndarray) -> np.ndarray:
        """SMPL's 24 joints (24, 3) of a mesh (V, 3), by the body's own regressor."""
        return self.arrays["J_regressor"] @ mesh


def find_h36m(folder: Path) -> Path | None:
    """The Human3.6M regressor; None where it is not."""
    return _find(folder, H36M_REGRESSOR)


def _find(folder: Path, names: Sequence[str]) -> Path | None:
    places = (folder, folder / "smpl", folder.parent / "smpl")
    return next((place / name for place in places for name in names if (place / name).is_file()), None)
