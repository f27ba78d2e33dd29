"""From 21 noisy points of a hand in 3D to how its joints are turned: a small network that learnt from poses alone.

Points are first laid onto the palm at rest, so that it does not matter how the hand is held, how large it is and which
of the two it is. `tools/train_hand_pose.py` trains it; the card is `weights/hand_pose.md`.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import torch
from torch import Tensor, nn

from wholebody.body.joints import JOINTS_144, LEFT_HAND_JOINTS, SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing
from wholebody.geometry.rotation import rotation_6d_to_matrix
from wholebody.model.embedded.hand_landmarks import HAND_21

PALM = [HAND_21.index(name) for name in ("wrist", "index1", "middle1", "ring1", "pinky1")]
"""What moves as one piece when fingers bend."""
FILE = "hand_pose.safetensors"
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")  # in the order of the points


class HandPose(nn.Module):
    """`hand_pose(points, left)`: see `forward`."""

    rest: Tensor  # 21×3: the mean left hand, flat, about its wrist, in metres and the body's axes

    def __init__(self, width: int = 256, blocks: int = 3) -> None:
        super().__init__()
        self.register_buffer("rest", torch.zeros(21, 3))
        self.start = nn.Linear(2 * 63, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.end = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 6 * 16))
        nn.init.normal_(self.end[1].weight, std=0.01)  # type: ignore[arg-type]
        with torch.no_grad():
            self.end[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).repeat(16))  # type: ignore[operator]

    def forward(self, points: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Hands as they are seen.

        Args:
            points: N×21×3 `HAND_21`, camera axes (x right, y down, z away), any unit and origin.
            left: N bool; the others are right hands.

        Returns: the palms' rotations from the T-pose N×3×3 (what turns the wrist), and of each hand's 15 joints, in
            their parents' frames, from the flat hand N×15×3×3, in the order of the body's.
        """
        mirror = points.new_tensor([-1.0, 1.0, 1.0])
        as_left = torch.where(left[:, None, None], points, points * mirror)
        placed, turn = lay_on_palm(as_left, self.rest)
        fingers = rotation_6d_to_matrix(self.network(placed))
        palm, fingers = turn @ fingers[:, 0], fingers[:, 1:]
        flip = mirror[:, None] * mirror
        return (
            torch.where(left[:, None, None], palm, palm * flip),
            torch.where(left[:, None, None, None], fingers, fingers * flip),
        )

    def network(self, placed: Tensor) -> Tensor:
        """Left hands' points N×21×3 in the palm's frame → 6D rotations N×16×6: what the palm is off, then 15 joints."""
        bones = torch.cat([placed[:, :1], placed[:, 1:] - placed[:, _PARENT_POINTS]], 1)
        x = self.start(10 * torch.cat([placed, 2 * bones], 1).flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.end(x).unflatten(1, (16, 6))


_PARENT_POINTS = [0 if k % 4 == 1 else k - 1 for k in range(1, 21)]


def lay_on_palm(points: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Points N×21×3 scaled, and turned back by the rotation N×3×3 that best turns the palm at rest (21×3) into theirs.

    The scale makes wrist to knuckles as long as at rest; the wrist becomes the origin. Kabsch's rotation, by SVD.
    """
    about = points - points[:, :1]
    size = about[:, PALM[1:]].norm(dim=2).mean(1)
    about = about * (rest[PALM[1:]].norm(dim=1).mean() / size.clamp_min(1e-6))[:, None, None]
    palm, still = about[:, PALM], rest[PALM]
    # In double precision: palms are nearly flat, and so one of the three directions has little weight.
    u, _, vt = torch.linalg.svd(torch.einsum("npi,pj->nij", palm, still).double())
    sign = torch.ones(len(points), 3, dtype=u.dtype, device=u.device)
    sign[:, 2] = torch.det(u @ vt).sign()
    turn = ((u * sign[:, None]) @ vt).to(points.dtype)
    return about @ turn, turn


def rest_hands(body: BodyModel, betas: Tensor) -> Tensor:
    """The 21 points N×21×3 of flat left hands of people with these betas N×10, about the wrist, in metres."""
    still = torch.eye(3, dtype=body.dtype).expand(len(betas), len(SMPLX_JOINTS), 3, 3)
    joints = body.from_matrices(still, betas.to(body.dtype), betas.new_zeros(len(betas), 10).to(body.dtype)).joints
    return joints[:, POINT_ROWS] - joints[:, POINT_ROWS[:1]]


POINT_ROWS = [JOINTS_144.index("left_wrist")] + [
    JOINTS_144.index(f"left_{finger}{end}") for finger in _FINGERS for end in ("1", "2", "3", "_tip")
]
"""The rows of `HAND_21` among the 144, for the left hand."""
_CHAIN_ROWS = [[LEFT_HAND_JOINTS.index(f"left_{finger}{k}") for k in (1, 2, 3)] for finger in _FINGERS]


def pose_points(rotations: Tensor, rest: Tensor) -> Tensor:
    """Where the 21 points of left hands are: rotations N×15×3×3 from the flat hand, rest points N×21×3 → N×21×3."""
    points = [rest[:, :1]]
    for finger, rows in enumerate(_CHAIN_ROWS):
        first = 1 + 4 * finger
        place, turn = rest[:, first], None
        points.append(place[:, None])
        for k, row in enumerate(rows):
            turn = rotations[:, row] if turn is None else turn @ rotations[:, row]
            bone = rest[:, first + k + 1] - rest[:, first + k]
            place = place + (turn @ bone[..., None])[..., 0]
            points.append(place[:, None])
    return torch.cat(points, 1)


def load_hand_pose() -> HandPose:
    """The embedded network, in eval mode; it never learns."""
    from safetensors.torch import load_file

    with as_file(files("wholebody") / "weights" / FILE) as path:
        if not path.is_file():
            raise AssetMissing(f"{path}: the hands' network is missing; reinstall the package")
        state = load_file(path)
    network = HandPose(state["start.weight"].shape[0], len({name.split(".")[1] for name in state if "blocks" in name}))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
