"""Published Python configs as recipes, and runs' settings as published configs. The configs are written here anew, with
the names that the published ones use."""

import dataclasses
import re
import runpy
import sys

import pytest
import tiny

from wholebody.cli import main
from wholebody.errors import BadInput
from wholebody.training import loop
from wholebody.training.config import TrainConfig, config_from_table, people_of, read_config
from wholebody.training.export_config import published_config_text
from wholebody.training.import_config import import_config, recipe_text
from wholebody.training.recipes import recipe_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLAT = """
import os
import os.path as osp
num_gpus = -1
exp_name = 'output/exp/trial'
lr = 2e-5
end_epoch = 7
train_batch_size = 12
syncbn = True
bbox_ratio = 1.2
continue_train = False
pretrained_model_path = None
trainset_3d = ['MSCOCO', 'UBody']
trainset_2d = []
trainset_humandata = ['BEDLAM', 'SPEC'] + [
    'ARCTIC']
testset = 'EHF'
BEDLAM_train_sample_interval = 5
train_sample_interval = 10   # of UBody
RICH_train_sample_interval = 3
data_strategy = 'balance'
total_data_len = 1_000 * 2
smplx_loss_weight = 1.5
smplx_pose_weight = 8.0
smplx_kps_3d_weight = 50
model_type = 'smpler_x_l'
encoder_pretrained_model_path = '../pretrained_models/vitpose_large.pth'
feat_dim = 1024
input_body_shape = (256, 192)
princpt = (input_body_shape[1] / 2, input_body_shape[0] / 2)
output_dir, model_dir = None, None
"""
NESTED = """
'''What one was.'''
config = {
    'data': {'data_dir': './data', 'trainset_humandata': ['SynHand', 'BEDLAM'], 'SynHand_train_sample_interval': 4,
             'data_strategy': 'concat', 'total_data_len': 'auto', 'bbox_ratio': 1.2, 'no_aug': true},
    'train': {'num_gpus': 2, 'continue_train': True, 'start_over': False, 'end_epoch': 3, 'train_batch_size': 4,
              'num_thread': 2, 'lr': 3e-6, 'min_lr': 1e-7, 'smplx_pose_weight': 5.0, 'smplx_orient_weight': 2.0,
              'hand_root_weight': 0.5, 'hand_consist_weight': 1.0, 'smplx_kps_3d_weight': 10},
    'inference': {'detection': {'conf': 0.5}},
    'test': {'test_batch_size': 1},
    'model': {'model_type': 'vit_huge', 'pretrained_model_path': '../pretrained_models/smplest_x_h.pth.tar',
              'encoder_config': {'embed_dim': 1280, 'depth': 32}, 'decoder_config': {'dim_out': 512},
              'human_model_path': './human_models/human_model_files', 'focal': (5000, 5000), 'princpt': (192 / 2, 128)},
    'log': {'exp_name': null},
}
"""
CLASS = """
import os.path as osp
class Config:
    trainset_3d = ['Human36M']; trainset_2d = ['MSCOCO', 'MPII']; testset = 'EHF'
    end_epoch = 14
    train_batch_size = 48
    encoder_setting, decoder_setting = 'osx_b', 'wo_face_decoder'
    root_dir = osp.join(osp.dirname(__file__), '..')
    human_model_path = osp.join(root_dir, 'common')
    smplx_loss_weight = 1
    def set_args(self, lr):
        self.lr = lr
cfg = Config()
for i in range(3):
    print(cfg, i)
"""


@pytest.fixture
def config_of(tmp_path):
    """`config_of(text)` -> (the recipe read back from its TOML, what was left out)."""

    def of(text, name="config_trial.py", *overrides):
        (tmp_path / name).write_text(text)
        imported = import_config(tmp_path / name)
        toml = recipe_text(imported, name)
        assert all(line in toml for line in imported.left_out)
        table = tomllib.loads(toml)
        assert table == imported.table
        return config_from_table(table, name), "\n".join(imported.left_out)

    return of


def test_a_flat_config_becomes_a_recipe(config_of):
    config, left_out = config_of(FLAT)
    assert (config.family, config.network, config.name) == ("smpler_x", "l", "trial")
    assert (config.learning_rate, config.final_learning_rate, config.epochs, config.batch_size) == (2e-5, 1e-6, 7, 12)
    assert config.encoder_from == "pretrained_models/vitpose_large.pth" and config.start_from is None
    assert (config.objective, config.sync_norms, config.warmup_steps, config.clip_norm) == ("published", True, 0, 0)
    people = config.people
    assert [(one.name, one.every) for one in people.sets] == [
        ("MSCOCO", 1), ("UBody", 10), ("BEDLAM", 5), ("SPEC", 1), ("ARCTIC", 1),
    ]  # fmt: skip
    assert (people.mix, people.epoch_length, people.targets) == ("balance", 2000, "published")
    published = config.published
    assert (published.shape_weight, published.pose_weight, published.joints_weight) == (1.5, 8.0, 50.0)
    assert (published.projection_weight, published.positions_weight) == (1.0, 1.0)  # as there where nothing is said
    for line in ("line 2: import os: imports are not run", "testset = 'EHF': of testing", "num_gpus = -1: how many",
                 "RICH_train_sample_interval = 3: RICH is not learnt from",
                 "input_body_shape, princpt: built in, as it says"):  # fmt: skip
        assert line in left_out
    assert "osp" not in left_out.replace("import os.path as osp", "")


def test_a_nested_config_becomes_a_recipe(config_of):
    config, left_out = config_of(NESTED)
    assert (config.family, config.network, config.epochs, config.batch_size) == ("smplest_x", "h", 3, 4)
    assert (config.learning_rate, config.final_learning_rate, config.workers) == (3e-6, 1e-7, 2)
    assert config.start_from == "pretrained_models/smplest_x_h.pth.tar"
    assert (config.body, config.people.root) == ("human_models/human_model_files", "data")
    assert [(one.name, one.every) for one in config.people.sets] == [("SynHand", 4), ("BEDLAM", 1)]
    assert config.people.mix == "concat" and config.people.augment.flip_probability == 0
    published = config.published
    assert (published.pose_weight, published.orient_weight, published.hand_root_weight) == (5.0, 2.0, 0.5)
    for line in ("inference: of inference", "test: of testing", "log: where a run is written", "start_over = False:",
                 "hand_consist_weight = 1.0: read by nothing"):  # fmt: skip
        assert line in left_out


def test_the_body_of_a_class_becomes_a_recipe(config_of):
    config, left_out = config_of(CLASS, "config.py")
    assert (config.family, config.network, config.variant) == ("osx", "b", "wo_face_decoder")
    assert (config.learning_rate, config.epochs, config.batch_size) == (1e-4, 14, 48)
    assert config.body == "human_model_files"  # the recipe's own: theirs is worked out by a call
    groups = {one.name: one.group for one in config.people.sets}
    assert config.people.mix == "equal" and groups == {"Human36M": "3d", "MSCOCO": "2d", "MPII": "2d"}
    assert re.search("human_model_path .*is a call.*the recipe's own is used", left_out)
    assert "def set_args(self, lr):: is not run" in left_out and "for i in range(3):" in left_out


def test_osx_on_agora_alone(config_of):
    text = CLASS.replace("end_epoch = 14", "end_epoch = 140; agora_benchmark = True")
    config, _ = config_of(text)
    assert [one.name for one in config.people.sets] == ["AGORA"] and config.people.mix == "all"
    assert config.published.shape_weight == 2.0 and config.published.detach_projection


@pytest.mark.parametrize("size", "sblh")
def test_sizes_are_told_by_each_of_their_names(config_of, size):
    words = {"s": ("small", 384), "b": ("base", 768), "l": ("large", 1024), "h": ("huge", 1280)}
    word, width = words[size]
    flat = "trainset_humandata = ['BEDLAM']; smplx_pose_weight = 1.0\n"
    for line in (f"model_type = 'smpler_x_{size}'", f"encoder_config_file = 'x/body_encoder_{word}.py'",
                 f"encoder_pretrained_model_path = '../vitpose_{word}.pth'", f"feat_dim = {width}"):  # fmt: skip
        config, _ = config_of(flat + line)
        assert (config.family, config.network) == ("smpler_x", size), line
    with pytest.raises(BadInput, match="of which size its network is cannot be told"):
        config_of(flat)


@pytest.mark.parametrize("tuned", ["backbone", "neck_and_head", "head"])
def test_what_is_fine_tuned_is_kept(config_of, tuned):
    text = FLAT.replace("continue_train = False", "continue_train = True").replace(
        "pretrained_model_path = None", "pretrained_model_path = '../pretrained_models/smpler_x_l32.pth.tar'"
    )
    config, _ = config_of(f"{text}\nfine_tune = {tuned!r}; min_lr = 5e-7")
    assert (config.fine_tune, config.final_learning_rate) == (tuned, 5e-7)
    assert config.start_from == "pretrained_models/smpler_x_l32.pth.tar"


@pytest.mark.parametrize(
    "change, message",
    [
        ("lr = float(os.environ['LR'])", r"only running it could tell 1 of its settings.*lr \(line \d+: .*is a call"),
        ("lr = osp.x\nend_epoch = osp.y", "could tell 2 of its settings.*lr .*end_epoch"),
        ("os.system('touch touched')", r"calls functions \(line \d+: os.system"),
        ("__import__('os').system('touch touched')", "calls functions"),
        ("exec('lr = 1')", "calls functions"),
        ("from other import *", "brings in settings"),
        ("from other import lr", r"lr \(line \d+: lr is imported"),
        ("for lr in (1, 2):\n    pass", "in a loop"),
        ("BEDLAM_train_sample_interval = len('abc')", "BEDLAM_train_sample_interval"),
        ("trainset_humandata = 'BEDLAM'", "not a list of names"),
        ("trainset_3d = trainset_humandata = []", "names no set"),
        ("lr = 'fast'", "lr is 'fast', not a number"),
        ("end_epoch = 1.5", "not a whole number"),
        ("data_strategy = 'mixed'", "known are balance and concat"),
        ("total_data_len = 1.5", "total_data_len is 1.5"),
        ("fine_tune = 'neck'", "fine_tune is 'neck'"),
        ("RICH_train_sample_interval = 0; trainset_3d = ['RICH']", "not a whole number from 1"),
    ],
)
def test_what_cannot_be_told_is_refused_and_nothing_is_run(config_of, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        config_of(f"{FLAT}\n{change}\n")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1", "no setting of OSX, SMPLer-X or SMPLest-X"),
        ("config = load('x')", "no setting of OSX.*only running it could tell: config"),
        (NESTED.replace("'embed_dim': 1280", "'embed_dim': 768"), "embed_dim 768; the published SMPLest-X"),
        (NESTED.replace("vit_huge", "vit_base"), "published as vit_huge alone"),
        (NESTED.replace("'train': {", "'train': dict(a(), **{").replace("10},", "10}),"), "section 'train' cannot be"),
        (NESTED.replace("3e-6", "1 / 0"), "lr .*has no value"),
        ("{", "is no Python"),
    ],
)
def test_what_is_no_such_config_is_refused(config_of, text, message):
    with pytest.raises(BadInput, match=message):
        config_of(text)


PUBLISHED = [name for name in recipe_names() if read_config(name).network != "t"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_runs_settings_come_back_from_its_published_config(name, tmp_path):
    """What the published codes know of a recipe survives the way there and back."""
    config = read_config(name)
    path = tmp_path / "config_base.py"
    path.write_text(published_config_text(config))
    written = runpy.run_path(str(path))
    assert "config" in written if config.family == "smplest_x" else written["lr"] == config.learning_rate
    again = config_from_table(import_config(path).table, name)
    same = ("family", "network", "variant", "name", "learning_rate", "final_learning_rate", "epochs", "batch_size",
            "body", "published", "fine_tune", "objective", "workers")  # fmt: skip
    for key in same:
        assert getattr(again, key) == getattr(config, key), key
    ours, theirs = people_of(config), people_of(again)
    assert [(one.name, one.every) for one in theirs.sets] == [(one.name, one.every) for one in ours.sets]
    mixes = {"all": "concat"}
    assert (theirs.mix, theirs.epoch_length) == (mixes.get(ours.mix, ours.mix), ours.epoch_length)
    if ours.mix == "equal":
        assert len({one.group for one in theirs.sets}) == len({one.group for one in ours.sets})


def test_a_run_keeps_a_config_that_the_published_tools_read(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "open_data", tiny.open_made_up)
    (tmp_path / "config_base.py").write_bytes(b"# mine\n" + published_config_text(read_config("smpler_x")).encode())
    start = tiny.write_start(tmp_path, family="smpler_x")
    overrides = f"network=small start_from={start} body=open batch_size=2 epochs=1 workers=0 vertices=2 threads=1"
    run = loop.train(tmp_path / "config_base.py", [*overrides.split(), "learning_rate=3e-5"], tmp_path / "run")
    kept = runpy.run_path(str(run / "code" / "config_base.py"))
    assert kept["lr"] == 3e-5 and kept["end_epoch"] == 1 and len(kept["trainset_humandata"]) == 26
    assert (run / "code" / "recipe_config_base.py").read_bytes().startswith(b"# mine\n")


def test_the_command_prints_or_writes_the_recipe_and_says_what_it_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main" / "config").mkdir(parents=True)
    (tmp_path / "main" / "config" / "config_trial.py").write_text(FLAT)
    assert main(["recipe", "import", "main/config/config_trial.py"]) == 0
    printed = capsys.readouterr()
    assert tomllib.loads(printed.out)["learning_rate"] == 2e-5 and "left out: testset = 'EHF'" in printed.err
    assert main(["recipe", "import", "config_trial.py", "--out", "trial.toml"]) == 0
    assert capsys.readouterr().out.strip() == "trial.toml" and read_config("trial.toml").epochs == 7
    assert main(["recipe", "import", "config_trial.py", "--out", "trial.toml"]) == 2
    assert "not written over" in capsys.readouterr().err
    assert main(["recipe", "import", "config_other.py"]) == 2
    assert "main/config" in capsys.readouterr().err
    (tmp_path / "bad.py").write_text("import os\nos.system('touch touched')\nlr = 1\n")
    assert main(["recipe", "import", "bad.py"]) == 2 and main(["train", "bad.py"]) == 2
    assert "calls functions" in capsys.readouterr().err and not (tmp_path / "touched").exists()


def test_train_takes_a_config_and_says_what_it_leaves_out(tmp_path, capsys, monkeypatch):
    from wholebody.training import launch

    (tmp_path / "config_trial.py").write_text(FLAT)
    trained = []
    monkeypatch.setattr(launch, "train", lambda *arguments: trained.append(read_config(*arguments[:2])) or tmp_path)
    assert main(["train", str(tmp_path / "config_trial.py"), "epochs=2", "people.root=elsewhere"]) == 0
    assert (trained[0].epochs, trained[0].people.root, trained[0].network) == (2, "elsewhere", "l")
    said = capsys.readouterr().err
    assert "is read as a recipe of smpler_x; left out of it:" in said and "testset = 'EHF'" in said


def test_every_setting_of_a_published_config_has_one_fate():
    from wholebody.training import import_config as room

    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert {key.split(".")[0] for key in room.NUMBERS.values()} <= names
    assert not set(room.LEFT_OUT) & (room.READ | set(room.BUILT_IN)) and not room.READ & set(room.BUILT_IN)
