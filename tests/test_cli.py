"""The command, as a user meets it: what it writes, what it says, and its exit status."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_pictures import bad_files
from PIL import Image

from wholebody.cli import main
from wholebody.model.checkpoint import Conventions, save
from wholebody.model.config import HANDS_WITHOUT_DECODER, OSXConfig
from wholebody.model.encoder import ViTConfig
from wholebody.model.osx import build_osx

ASTRONAUT = Path(__file__).parent.parent / "demo" / "astronaut.jpg"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny network that has learnt nothing, of the open body."""
    torch.manual_seed(0)
    config = OSXConfig("tiny", ViTConfig(width=32, depth=1, heads=2, drop_path=0.0), HANDS_WITHOUT_DECODER, None,
                       hidden=16, box_channels=(16, 16, 16))  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(build_osx(config).eval(), path, Conventions(body="open"))
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("a.jpg", "more/b.jpg"):
        (folder / name).write_bytes(ASTRONAUT.read_bytes())
    return folder


def predict(checkpoint, out, *arguments) -> int:
    return main(["predict", "--out", str(out), "--model", str(checkpoint), "--device", "cpu", *map(str, arguments)])


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"wholebody_run.json"}


def test_predict_writes_everything_and_says_where(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(checkpoint, out, photos) == 0
    each = {"_overlay.jpg", ".json", "_person0.npz", "_person0.obj", "_person0.ply", "_person0.glb", ".glb"}
    assert files_in(out) == {name + end for name in ("a", "more/b") for end in each}
    said = capsys.readouterr().out
    assert "2 pictures done, 2 people" in said and str(out) in said
    for step in ("load", "read", "detect", "network", "overlay"):
        assert step in said
    with np.load(out / "a_person0.npz") as stored:
        conventions = json.loads(str(stored["conventions"]))
    assert conventions["body"] == "open" and conventions["model"] == "tiny" and conventions["image_hw"] == [512, 512]


def test_one_bad_picture_does_not_stop_the_rest(checkpoint, photos, tmp_path, capsys):
    bad = bad_files()
    for name, (content, _) in bad.items():
        (photos / name).write_bytes(content)
    out = tmp_path / "out"
    assert predict(checkpoint, out, photos, tmp_path / "none.jpg", "--save", "json") == 1
    assert files_in(out) == {"a.json", "more/b.json"}
    said = capsys.readouterr()
    assert f"2 pictures done, 2 people, 0 skipped as complete, {len(bad) + 1} failed" in said.out
    for name in [*bad, "none.jpg"]:
        assert said.err.count(f"/{name}: ") == 1
    assert "Traceback" not in said.err


def test_a_picture_that_breaks_the_network_does_not_stop_the_rest(checkpoint, photos, tmp_path, capsys, monkeypatch):
    """Both pictures go through the network together; only the one to blame may fail."""
    from wholebody.people.predictor import Predictor

    real = Predictor.predict_many

    def breaks(self, images, found):
        if any(image.shape[0] == 300 for image in images):
            raise RuntimeError("too strange")
        return real(self, images, found)

    monkeypatch.setattr(Predictor, "predict_many", breaks)
    Image.open(ASTRONAUT).resize((300, 300)).save(photos / "strange.jpg")
    assert predict(checkpoint, tmp_path / "out", photos, "--save", "json", "--batch-size", "8") == 1
    assert files_in(tmp_path / "out") == {"a.json", "more/b.json"}
    assert "strange.jpg: unexpected RuntimeError: too strange" in capsys.readouterr().err


def test_nobody_found_is_said_and_whole_always_works(checkpoint, tmp_path, capsys):
    Image.new("RGB", (200, 100), (90, 120, 90)).save(tmp_path / "meadow.png")
    assert predict(checkpoint, tmp_path / "out", tmp_path / "meadow.png") == 0
    said = capsys.readouterr().out
    assert "nobody was found" in said and "meadow.png" in said and "--boxes whole" in said
    assert json.loads((tmp_path / "out" / "meadow.json").read_text()) == []
    assert predict(checkpoint, tmp_path / "out", tmp_path / "meadow.png", "--boxes", "whole", "--save", "json") == 0
    (row,) = json.loads((tmp_path / "out" / "meadow.json").read_text())
    assert row["bbox"] == [0, 0, 200, 100] and len(row["keypoints"]) == 399


def test_boxes_from_a_file(checkpoint, photos, tmp_path, capsys):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.jpg": [[20, 10, 370, 510], [100, 60, 300, 260]], "more/b.jpg": [[9, 9, 2, 99]]}))
    assert predict(checkpoint, tmp_path / "out", photos, "--boxes", boxes, "--save", "npz,json") == 1
    assert files_in(tmp_path / "out") == {"a.json", "a_person0.npz", "a_person1.npz"}
    assert "b.jpg: box 0 [9, 9, 2, 99] is inverted" in capsys.readouterr().err


def test_resume_skips_what_is_complete(checkpoint, photos, tmp_path, capsys):
    quick = ("--save", "npz,json", "--boxes", "whole")
    out = tmp_path / "out"
    assert predict(checkpoint, out, photos / "a.jpg", *quick) == 0
    made = (out / "a_person0.npz").stat().st_mtime_ns
    assert predict(checkpoint, out, photos, *quick, "--resume") == 0
    assert "1 picture done, 1 person, 1 skipped" in capsys.readouterr().out
    assert (out / "a_person0.npz").stat().st_mtime_ns == made and (out / "more/b_person0.npz").exists()
    (out / "more/b.json").unlink()  # as if the run had been stopped before its last file
    assert predict(checkpoint, out, photos, *quick, "--resume") == 0
    assert "1 picture done, 1 person, 1 skipped" in capsys.readouterr().out
    assert predict(checkpoint, out, photos, "--save", "npz,json", "--resume") == 2
    assert "--boxes whole then, None now" in capsys.readouterr().err


def test_results_inside_the_input_folder_are_not_inputs(checkpoint, photos, capsys):
    for _ in range(2):
        assert predict(checkpoint, photos / "out", photos, "--save", "overlay", "--boxes", "whole") == 0
        assert "2 pictures done" in capsys.readouterr().out


def test_a_full_disk_stops_the_run(checkpoint, photos, tmp_path, monkeypatch, capsys):
    quick = ("--save", "npz,json", "--boxes", "whole")
    real, calls = os.fsync, []

    def fsync(number):
        calls.append(number)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    out = tmp_path / "out"
    assert predict(checkpoint, out, photos, "--batch-size", "1", *quick) == 2
    said = capsys.readouterr().err
    assert "disk is full" in said and "--resume" in said and "Traceback" not in said
    assert files_in(out) == {"a.json", "a_person0.npz"}  # the first picture whole, of the second nothing
    monkeypatch.setattr(os, "fsync", real)
    assert predict(checkpoint, out, photos, *quick, "--resume") == 0
    assert files_in(out) == {"a.json", "a_person0.npz", "more/b.json", "more/b_person0.npz"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing_here.jpg"], "no such file"),
        ([ASTRONAUT, "--save", "overlay,stl"], "stl"),
        ([ASTRONAUT, "--opacity", "2"], "opacity"),
        ([ASTRONAUT, "--batch-size", "0"], "batch-size"),
        ([ASTRONAUT, "--device", "cuda:99"], "--device cpu"),
        ([ASTRONAUT, "--boxes", "nothing.json"], "nothing.json"),
        ([ASTRONAUT, "--body", "/nothing/here"], "smpl-x.is.tue.mpg.de"),
    ],
)
def test_what_cannot_be_done_is_said(checkpoint, tmp_path, capsys, arguments, says):
    assert predict(checkpoint, tmp_path / "out", *arguments) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    assert files_in(tmp_path / "out") == set()


def test_an_output_folder_that_cannot_be(checkpoint, tmp_path, capsys):
    (tmp_path / "taken").write_text("x")
    assert predict(checkpoint, tmp_path / "taken", ASTRONAUT) == 2
    assert "taken" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x10\0\0\0\0\0\0\0{nonsense", bytes(range(256))])
def test_a_model_file_that_is_none(tmp_path, capsys, content):
    (tmp_path / "bad.pth.tar").write_bytes(content)
    assert predict(tmp_path / "bad.pth.tar", tmp_path / "out", ASTRONAUT) == 2
    said = capsys.readouterr().err
    assert "bad.pth.tar" in said and "Traceback" not in said and files_in(tmp_path / "out") == set()


def test_info(checkpoint, tmp_path, capsys):
    assert predict(checkpoint, tmp_path / "out", ASTRONAUT, "--save", "npz,json") == 0
    capsys.readouterr()
    results = [tmp_path / "out" / "astronaut_person0.npz", tmp_path / "out" / "astronaut.json", tmp_path / "out"]
    assert main(["info", str(checkpoint), "open", *map(str, results)]) == 0
    said = capsys.readouterr().out
    for words in ("size tiny", "wo_decoder", "open, neutral", "13,718 vertices", "CC0", "body_pose", "21×3", "radians",
                  "COCO-WholeBody", "keypoints each", "pictures"):  # fmt: skip
        assert words in said, words


@pytest.mark.parametrize("name", ["missing.npz", "empty.npz", "broken.npz", "text.json", "picture.jpg"])
def test_info_of_what_it_does_not_know(tmp_path, capsys, name):
    content = {"empty.npz": b"", "broken.npz": b"PK\x03\x04", "text.json": b"{}", "picture.jpg": b"\xff\xd8"}
    if name in content:
        (tmp_path / name).write_bytes(content[name])
    assert main(["info", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert name in said and "Traceback" not in said


def test_body_export_and_checkpoint_convert(checkpoint, tmp_path, capsys):
    assert main(["body", "export", str(tmp_path / "SMPLX_NEUTRAL.npz")]) == 0
    with np.load(tmp_path / "SMPLX_NEUTRAL.npz", allow_pickle=True) as body:
        assert body["v_template"].shape == (13718, 3) and body["posedirs"].shape[2] == 486
    assert main(["info", str(tmp_path / "SMPLX_NEUTRAL.npz")]) == 0
    assert "13,718 vertices" in capsys.readouterr().out


def test_commands_pass_on_what_they_are_given(monkeypatch, tmp_path):
    """Each command calls one function of another room, with all of its options."""
    from wholebody import synthesis

    calls: dict = {}
    monkeypatch.setattr(synthesis, "run", lambda *a, **k: calls.update(synth=(a, k)), raising=False)
    arguments = ["--count", "7", "--seed", "3", "--workers", "2", "--motion", "m", "--hdri", "h", "--backgrounds", "b"]
    assert main(["synth", "--out", str(tmp_path), *arguments, "--split", "heldout", "--layers"]) == 0
    (out, count, seed), options = calls["synth"]
    config = options["config"]
    assert (out, count, seed, options["workers"], options["layers"]) == (tmp_path, 7, 3, 2, True)
    assert (config.motion, config.hdri, config.backgrounds, config.split) == ("m", "h", "b", "heldout")


def test_help_knows_every_command_and_option(capsys):
    for words, names in HELP.items():
        with pytest.raises(SystemExit) as ended:
            main([*words.split(), "--help"])
        said = capsys.readouterr().out
        assert ended.value.code == 0
        for name in names.split():
            assert re.search(rf"^  {name}\b", said, re.M), (words, name)


HELP = {  # every command and option of the first version
    "": "predict annotate info body checkpoint synth data train slurm evaluate reproduce --version",
    "predict": "INPUT --out --model --body --boxes --detector --device --batch-size --save --refine --opacity --resume",
    "annotate": "DIR --keypoints --split --detector --model --body --device --min-quality",
    "info": "PATH",
    "body export": "OUT",
    "checkpoint convert": "SRC DST",
    "checkpoint merge-hand": "WHOLE HAND DST",
    "checkpoint reset-epoch": "SRC DST",
    "synth": "--out --count --seed --workers --motion --hdri --assets --backgrounds --split --recombine --layers "
    "--poses",
    "data check": "ROOT --set --split --sheet --each --body --quick",
    "data index": "ROOT SET --out --every --tars",
    "data shard": "ROOT SET --out --size",
    "data agora-json": "ROOT --split --vertices",
    "data agora-crops": "ROOT --split --height --width --workers",
    "data ubody-frames": "ROOT --scene --workers",
    "train": "CONFIG KEY=VALUE --out --devices --nodes",
    "slurm train": "JOB NUM_GPU CONFIG KEY=VALUE --out --partition --account --time --gpus-per-node --gres",
    "slurm test": "JOB NUM_GPU TRAIN_OUTPUT_DIR CKPT_ID --testset --root --body --partition --account --time --gres",
    "evaluate": "MODEL --testset --root --out --body --any-gender --family --box-scale --device --batch-size --limit "
    "--every --gallery",
    "reproduce": "--root --checkpoints --body --out --only --device --batch-size --limit --every",
}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "which command"),
        ("data", "wholebody data --help"),
        ("pridict a.jpg", '"predict"'),
        ("predict a.jpg --out o --reume", "--resume"),
        ("predict a.jpg", "predict needs --out"),
        ("predict --out o", "predict needs INPUT"),
        ("predict a.jpg --out", "--out needs a value"),
        ("predict a.jpg --out o --batch-size many", "--batch-size many: is not a whole number"),
        ("predict a.jpg --out o --opacity", "--opacity"),
        ("checkpoint convert a b c", "with c"),
        ("info t --steps=3", "--steps"),
    ],
)
def test_words_that_make_no_command(capsys, words, says):
    """One line, exit status 2, and what it may have meant."""
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    said = capsys.readouterr()
    assert ended.value.code == 2 and not said.out
    assert says in said.err and said.err.startswith("wholebody: ") and said.err.count("\n") == 1


def test_options_stand_before_or_after_the_pictures(monkeypatch):
    """`--refine` takes no word; the last of two values counts, as ever."""
    from wholebody.pipeline import predict

    seen = []
    monkeypatch.setattr(predict, "predict_files", lambda config, say: seen.append(config) or predict.Summary())
    before = "predict --refine --save json,npz --out o --resume --batch-size 3 a.jpg b.jpg"
    after = "predict a.jpg b.jpg --batch-size 3 --resume --out o --save json,npz --refine"
    between = "predict a.jpg --save=json,npz --refine b.jpg --batch-size=7 --batch-size=3 --out=o --resume"
    for words in (before, after, between):
        assert main(words.split()) == 0
    assert seen[0] == seen[1] == seen[2]
    assert (seen[0].inputs, seen[0].refine, seen[0].save) == (("a.jpg", "b.jpg"), "auto", ("json", "npz"))
    assert main("predict --out o --refine=keys.json -- -a.jpg --refine".split()) == 0
    assert (seen[3].inputs, seen[3].refine) == (("-a.jpg", "--refine"), "keys.json")
    for words in ("predict a.jpg --out o --refine k.json", "predict --refine k.json a.jpg --out o"):
        assert main(words.split()) == 0  # as it was written once: this word cannot be a picture
        assert (seen[-1].inputs, seen[-1].refine) == (("a.jpg",), "k.json")


def test_an_unexpected_error_is_one_line_with_its_own_status(monkeypatch, capsys):
    from wholebody.pipeline import info

    def breaks(*_, **__):
        raise RuntimeError("a wheel\ncame off")

    monkeypatch.setattr(info, "describe", breaks)
    assert main(["info", "t"]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "RuntimeError: a wheel came off" in said and "report" in said
    for words in (["--debug", "info", "t"], ["info", "t", "--debug"]):
        with pytest.raises(RuntimeError, match="wheel"):
            main(words)


def test_a_closed_pipe_ends_quietly():
    script = "import sys\nfrom wholebody.cli import main\nsys.exit(main(['info', *['open'] * 40]))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_sigterm_ends_the_workers_too(tmp_path):
    """A command that waits for worker processes: none of them outlives it, and its status says what ended it."""
    script = (
        "import multiprocessing, os, sys, time\n"
        "from wholebody import cli\n"
        "from wholebody.pipeline import info\n"
        "def wait(place):\n"
        "    open(f'{place}/{os.getpid()}', 'w').close()\n"
        "    time.sleep(60)\n"
        "def describe(place, *_, **__):\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        return pool.map(wait, [place, place])\n"
        "info.describe = describe\n"
        "sys.exit(cli.main(['info', sys.argv[1]]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143 and "SIGTERM" in said and "Traceback" not in said
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) >= 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            for _ in range(100):
                os.kill(worker, 0)
                time.sleep(0.05)


@pytest.fixture(scope="module", params=["pipe", "device"])
def endless(request, tmp_path_factory) -> Path:
    """A folder with files that cannot be read to their end: named pipes that nobody writes to, links to /dev/zero."""
    folder = tmp_path_factory.mktemp("endless")
    for name in ("x.jpg", "x.mp4", "x.json", "x.pth.tar", "x.safetensors", "x.npz", "x.toml"):
        if request.param == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to("/dev/zero")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "predict {x}.jpg --out {out} --model {checkpoint}",
        "predict {x}.mp4 --out {out} --model {checkpoint}",
        "predict {photos} --out {out} --model {checkpoint} --boxes {x}.json",
        "predict {photos} --out {out} --model {checkpoint} --refine={x}.json",
        "predict {photos} --out {out} --model {x}.safetensors",
        "predict {photos} --out {out} --model {x}.pth.tar",
        "predict {photos} --out {out} --model {checkpoint} --body {x}.npz",
        "annotate {own} --keypoints {x}.json --model {checkpoint}",
        "evaluate {x}.pth.tar --testset EHF --root {photos} --out {out}",
        "evaluate {checkpoint} --testset EHF --root {photos} --out {out} --body {x}.npz",
        "info {x}.npz",
        "info {x}.json",
        "checkpoint convert {x}.pth.tar {out}.safetensors",
        "convert {x}.npz --to smplx --out {out}",
        "train {x}.toml --out {out}",
    ],
)
def test_what_has_no_end_is_refused(command, endless, checkpoint, photos, tmp_path, capsys):
    """Nothing waits for a pipe's writer, and nothing reads a device until the memory is full."""
    shutil.copytree(photos, tmp_path / "own" / "images")
    places = {"x": endless / "x", "out": tmp_path / "out", "checkpoint": checkpoint, "photos": photos,
              "own": tmp_path / "own"}  # fmt: skip
    assert main(command.format(**places).split()) in (1, 2)
    said = capsys.readouterr().err
    assert re.search("is a (pipe|device)|no recipe|Options: | no film", said), said


def test_names_cannot_disturb_the_terminal(tmp_path, capsys, monkeypatch):
    (tmp_path / "a\x1b[2J\nfailed: b.npz").write_bytes(b"")
    assert main(["info", str(tmp_path / "a\x1b[2J\nfailed: b.npz")]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\\x1b[2J" in said


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "wholebody", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[0] == "wholebody"


def test_importing_does_nothing():
    """`import wholebody` and `--help` must not wait for PyTorch, numba, OpenCV or the like."""
    script = (
        "import sys, wholebody, wholebody.cli\n"
        "for words in ([], ['predict'], ['synth'], ['evaluate'], ['reproduce'], ['slurm', 'train']):\n"
        "    try: wholebody.cli.main([*words, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'numba', 'cattrs', 'cv2', 'trimesh', 'PIL', 'tqdm', 'ai_edge_litert'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_lazy_names():
    import wholebody

    assert set(wholebody.__all__) <= set(dir(wholebody)) | {"__version__"}
    for name in wholebody.__all__:
        assert getattr(wholebody, name) is not None
    with pytest.raises(AttributeError, match="load_model"):
        wholebody.nothing  # noqa: B018


def test_the_examples_of_the_conventions_hold(checkpoint, tmp_path, monkeypatch):
    """The code in docs/conventions.md, run on a result: the camera and the parameters give back what was written."""
    text = (ASTRONAUT.parent.parent / "docs" / "conventions.md").read_text()
    shutil.copy(ASTRONAUT, tmp_path / "photo.jpg")
    assert predict(checkpoint, tmp_path, tmp_path / "photo.jpg", "--save", "npz,ply,json", "--boxes", "whole") == 0
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, space)
    np.testing.assert_allclose(space["again"].numpy(), space["vertices_cam"], atol=1e-4)
    nearest = [np.abs(space["pixels"] - point).sum(1).min() for point in space["person"]["keypoints_px"][23:91]]
    assert np.median(nearest) < 3  # face landmarks lie on the skin


def test_settings_may_follow_options(tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("steps = 1\n")
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "stepz=3"]) == 2
    assert "stepz" in capsys.readouterr().err
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "three"]) == 2
    assert "key=value" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(recipe), "--out", str(tmp_path / "run"), "--stepz=3"])
    with pytest.raises(SystemExit):
        main(["info", "t", "--steps=3"])


@pytest.mark.parametrize("command", [["predict", "", "--out", "results"], ["info", ""], ["view", ""]])
def test_an_empty_name_is_not_this_folder(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2 and "empty" in capsys.readouterr().err
