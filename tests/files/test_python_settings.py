"""Python files read as settings: literals and what follows from them, and nothing is ever run."""

import pytest

from wholebody.errors import BadInput
from wholebody.files.python_settings import Unknown, read_python_settings


@pytest.fixture
def read(tmp_path):
    def of(text, **others):
        for name, content in others.items():
            (tmp_path / f"{name}.py").write_text(content)
        path = tmp_path / "config_base.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_python_settings(path)

    return of


@pytest.mark.parametrize(
    "expression, value",
    [
        ("1e-5", 1e-5),
        ("-1", -1),
        ("(512, 384)", (512, 384)),
        ("['A', 'B',]", ["A", "B"]),
        ("{'a': {'b': None}}", {"a": {"b": None}}),
        ("dict(a=1, b=dict(c=[2]))", {"a": 1, "b": {"c": [2]}}),
        ("shape[1] / 2", 96.0),
        ("[*names, 'C'] + names * 2", ["A", "B", "C", "A", "B", "A", "B"]),
        ("{**table, 'x': 2}", {"lr": 1, "x": 2}),
        ("1 if len_ > 3 else 2", 2),
        ("not flag or names", ["A", "B"]),
        ("true", True),
        ("null", None),
        ("'a' in names", False),
        ("2 ** 10 // 3 % 7 - +1", 4),
    ],
)
def test_literals_and_what_follows_from_them(read, expression, value):
    before = "shape = (256, 192); names = ['A', 'B']; table = {'lr': 1}; len_ = 3; flag = True\n"
    assert read(f"{before}x = {expression}").values["x"] == value


@pytest.mark.parametrize(
    "expression, why",
    [
        ("open('touched', 'w')", "is a call, and calls are not run"),
        ("os.environ['LR']", "os is imported, and imports are not run|looked up in something"),
        ("__import__('os').system('touch touched')", "is a call"),
        ("[open('touched', 'w') for _ in (1,)]", "no value that is written out"),
        ("lambda: 1", "no value that is written out"),
        ("nowhere", "nowhere is not assigned in this file"),
        ("[1, nowhere]", "nowhere is not assigned"),
        ("f'{1}'", "no value that is written out"),
        ("9 ** 9 ** 9", "a power of 387420489 is no setting"),
        ("'a' * 10 ** 9", "entries is no setting"),
        ("1 / 0", "has no value: .*division"),
        ("{}['a']", "has no value"),
        ("'%s' % 1", "put together by %"),
        ("dict(a=open('touched', 'w'))['a']", "is a call"),
    ],
)
def test_what_only_running_could_tell_is_unknown_and_is_not_run(read, expression, why, tmp_path, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    found = read(f"import os\ny = 1\nx = {expression}\nz = 2\n")
    assert isinstance(found.values["x"], Unknown) and re.search(why, found.values["x"].why), found.values["x"]
    assert found.values["x"].line == 3 and found.values["y"] == 1 and found.values["z"] == 2
    assert found.imports == ["line 1: import os"] and not (tmp_path / "touched").exists()


def test_statements_that_are_not_run_leave_what_they_set_unknown(read):
    found = read(
        "lr = 1\nsets = ['A']\nfor i in range(3):\n    lr = i\nif lr > 2:\n    epochs = 3\n"
        "def f():\n    return 1\nsets.append('B')\nprint('x')\nsize, other = 1, 2\nsize += 4\n"
    )
    assert isinstance(found.values["lr"], Unknown) and "loop" in found.values["lr"].why
    assert isinstance(found.values["epochs"], Unknown) and isinstance(found.values["sets"], Unknown)
    assert found.values["size"] == 5 and found.values["other"] == 2
    assert found.calls == ["line 9: sets.append('B')", "line 10: print('x')"]
    assert found.rest == ["line 3: for i in range(3):", "line 5: if lr > 2:", "line 7: def f():"]


def test_a_condition_that_is_known_is_followed(read):
    found = read("big = True\nif big:\n    lr = 1\nelse:\n    lr = 2\nif not big:\n    a = 1\nelif big:\n    a = 3\n")
    assert (found.values["lr"], found.values["a"]) == (1, 3)


def test_tables_are_changed_by_their_keys_and_not_by_calls(read):
    found = read("c = {'train': {'lr': 1}}\nc['train']['lr'] = 2\nc['data'] = dict(a=1)\nd = {'x': 1}\nd.update(x=2)\n")
    assert found.values["c"] == {"train": {"lr": 2}, "data": {"a": 1}}
    assert isinstance(found.values["d"], Unknown)
    found = read("c = {'lr': 1}\nx = c.pop('lr')\ne = {'lr': 1}\ny = e.get('lr')\n")
    assert isinstance(found.values["c"], Unknown) and found.values["e"] == {"lr": 1}


def test_a_table_with_one_value_that_is_unknown_keeps_the_others(read):
    found = read("import os\nconfig = {'train': {'lr': os.cpu_count(), 'end_epoch': 3}}\n")
    assert found.values["config"]["train"]["end_epoch"] == 3
    assert isinstance(found.values["config"]["train"]["lr"], Unknown)


def test_the_body_of_a_class_is_kept_apart(read):
    found = read(
        "import os.path as osp\nroot = 'r'\nclass Config:\n    a = 1; b = (2, a)\n    p = osp.join(root, 'x')\n"
        "    def go(self):\n        self.a = 3\ncfg = Config()\ncfg.a = 2\n"
    )
    assert found.classes["Config"]["a"] == 1 and found.classes["Config"]["b"] == (2, 1)
    assert isinstance(found.classes["Config"]["p"], Unknown) and isinstance(found.values["cfg"], Unknown)


def test_files_that_a_config_builds_on_are_read_too(read):
    found = read(
        "_base_ = ['one.py']\ntrain = dict(lr=2)\nmodel = dict(_delete_=True, size='b')\n",
        one="_base_ = 'two.py'\ntrain = dict(lr=1, epochs=3)\nmodel = dict(size='l', x=1)\nimport os\n",
        two="train = dict(batch=4)\nseed = 5\n",
    )
    assert found.values["train"] == {"lr": 2, "epochs": 3, "batch": 4}
    assert found.values["model"] == {"size": "b"} and found.values["seed"] == 5
    assert found.imports == ["one.py, line 4: import os"]
    with pytest.raises(BadInput, match="without end"):
        read("_base_ = 'config_base.py'")
    with pytest.raises(BadInput, match="cannot be read"):
        read("_base_ = 'nowhere.py'")


@pytest.mark.parametrize(
    "text, message",
    [
        ("lr = ", "is no Python"),
        (b"\xff\xfe\x00", "is no Python"),
        ("x = " + "(" * 5000 + ")" * 5000, "is no Python"),
        ("from config_base_0 import *\nlr = 1", "brings in settings that are not written here"),
    ],
)
def test_what_is_no_config_is_refused(read, text, message):
    with pytest.raises(BadInput, match=message):
        read(text)


def test_a_config_with_a_byte_order_mark_and_crlf_is_read(read):
    assert read(b"\xef\xbb\xbflr = 1\r\nend_epoch = 2\r\n").values == {"lr": 1, "end_epoch": 2}
