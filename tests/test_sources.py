"""Where code may come from, and what its bytes are."""

import os

import pytest

from flask_hotreload.errors import LoadError, ReloadInvalid
from flask_hotreload.sources import Place, Roots, Snapshot, Source


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "api.py").write_text("answer = 1\n")
    return folder


def test_a_script_under_a_root_is_its_real_path(root, tmp_path):
    (root / "alias.py").symlink_to(root / "api.py")
    roots = Roots([root, tmp_path / "missing"]).resolve()
    assert roots.resolve(root / "api.py") == str(root / "api.py")
    assert roots.resolve(root / "alias.py") == str(root / "api.py")
    assert roots.resolve(root / "not_yet.py") == str(root / "not_yet.py")


@pytest.mark.parametrize(
    "path", ["../outside.py", "leaving.py", "leaving/inside.py", "folder", "queue.fifo", "a\0b.py"]
)
def test_what_is_no_file_under_the_roots_is_refused(root, tmp_path, path):
    (tmp_path / "outside.py").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "inside.py").write_text("")
    (root / "leaving.py").symlink_to(tmp_path / "outside.py")
    (root / "folder").mkdir()
    os.mkfifo(root / "queue.fifo")
    if path.startswith("leaving/"):
        (root / "leaving").symlink_to(tmp_path / "other")
    with pytest.raises(ReloadInvalid) as caught:
        Roots([root]).resolve().resolve(f"{root}/{path}")
    if "\0" not in path:
        assert path.rpartition("/")[2] in str(caught.value)
        assert str(root) in str(caught.value)


def test_a_root_is_no_prefix_of_its_neighbour(root, tmp_path):
    (tmp_path / "service2").mkdir()
    with pytest.raises(ReloadInvalid):
        Roots([root]).resolve().resolve(tmp_path / "service2" / "api.py")


def test_a_relative_script_is_refused(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(ReloadInvalid, match="absolute"):
        Roots([root]).resolve().resolve("api.py")


def test_installed_packages_inside_a_root_are_refused(root):
    packages = root / ".venv" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (root / ".venv" / "pyvenv.cfg").write_text("")
    (root / "vendored" / "dist-packages").mkdir(parents=True)
    roots = Roots([root]).resolve()
    for path in (packages / "x.py", root / ".venv" / "bin" / "x.py", root / "vendored" / "dist-packages" / "x.py"):
        with pytest.raises(ReloadInvalid, match="virtual environment"):
            roots.resolve(path)
    assert roots.resolve(root / "vendored" / "x.py")


def test_a_root_may_itself_lie_in_a_virtual_environment(tmp_path):
    root = tmp_path / "site-packages" / "service"
    root.mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text("")
    assert Roots([root]).resolve().contains(str(root / "api.py"))


def test_no_root_at_all_is_an_error():
    with pytest.raises(ValueError, match="HOTRELOAD_ROOTS"):
        Roots([])


def test_a_switched_link_is_followed_by_the_next_transaction_only(tmp_path):
    for release in ("41", "42"):
        (tmp_path / "releases" / release).mkdir(parents=True)
        (tmp_path / "releases" / release / "api.py").write_text(f"release = {release}\n")
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "releases" / "41")
    roots = Roots([current])
    before = roots.resolve()
    current.unlink()
    current.symlink_to(tmp_path / "releases" / "42")
    after = roots.resolve()
    old, new = (str(tmp_path / "releases" / release / "api.py") for release in ("41", "42"))
    assert after.resolve(current / "api.py") == new
    assert before.contains(old)
    assert not before.contains(new)
    assert not after.contains(old)
    # A file of the old release is still known as the one that the new release has at the same place.
    assert after.place(old) == after.place(new) == Place(str(current), "api.py")
    assert after.now(old) == new
    with pytest.raises(ReloadInvalid):
        after.resolve(old)


def test_a_file_is_read_once_in_a_transaction(root):
    snapshot = Snapshot(Roots([root]).resolve())
    first = snapshot.read(str(root / "api.py"))
    (root / "api.py").write_text("answer = 2\n")
    assert snapshot.read(str(root / "api.py")) is first
    assert first.data == b"answer = 1\n"
    assert first.code() is first.code()


def test_the_digest_names_the_bytes():
    assert Source("/x.py", b"").digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_missing_file_names_itself(root):
    with pytest.raises(LoadError) as caught:
        Snapshot(Roots([root]).resolve()).read(str(root / "missing.py"))
    assert caught.value.file == str(root / "missing.py")
    assert isinstance(caught.value.original, FileNotFoundError)


def test_what_turned_into_a_fifo_neither_blocks_nor_leaks(root):
    os.mkfifo(root / "fifo.py")
    descriptors = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    for name in ("fifo.py", "."):
        with pytest.raises(LoadError):
            Snapshot(Roots([root]).resolve()).read(str(root / name))
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == len(descriptors)


def test_a_sealed_snapshot_never_reads_the_disk(root):
    path = str(root / "api.py")
    snapshot = Snapshot(Roots([root]).resolve(), {path: Source(path, b"answer = 9\n")}, sealed=True)
    assert snapshot.read(path).text == "answer = 9\n"
    (root / "other.py").write_text("")
    assert not snapshot.has(str(root / "other.py"))
    with pytest.raises(LoadError):
        snapshot.read(str(root / "other.py"))
    assert snapshot.has_folder(str(root))
    assert not snapshot.has_folder(str(root.parent / "elsewhere"))


def test_a_folder_without_sources_belongs_to_every_snapshot_and_one_of_other_sources_to_none(root):
    snapshot = Snapshot(Roots([root]).resolve(), {}, sealed=True)
    folder = root / "data" / "deeper"
    assert not snapshot.has_folder(str(folder))
    folder.mkdir(parents=True)
    (folder / "table.json").write_text("{}")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.py").write_text("")
    assert snapshot.has_folder(str(folder))
    (folder / "x.py").write_text("")
    assert not snapshot.has_folder(str(folder.parent))
    refused = Snapshot(snapshot.roots, {}, sealed=True, refused={str(folder / "x.py"): LoadError("not readable")})
    assert refused.has_folder(str(folder.parent))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"name = '\xc3\xa9'\n", "name = 'é'\n"),
        (b"\xef\xbb\xbfname = 1\r\n", "name = 1\n"),
        (b"# -*- coding: latin-1 -*-\nname = '\xe9'\n", "# -*- coding: latin-1 -*-\nname = 'é'\n"),
    ],
)
def test_text_is_decoded_as_the_interpreter_does(data, text):
    source = Source("/x.py", data)
    assert source.text == text
    assert "".join(source.lines) == text
    source.code()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a = 1\nb = '\xff'\n", 2),
        (b"# coding: no-such-encoding\n", 1),
        (b"# coding: rot13\n", 1),
        (b"a = 1\n\nb = '\0'\n", 3),
        (b"a = 1\ndef f(:\n", 2),
        (b"a = 1\nreturn 5\n", 2),
        (b"if 1:\nx\n", 2),
    ],
)
def test_what_does_not_compile_says_file_and_line(data, line):
    with pytest.raises(LoadError) as caught:
        Source("/srv/x.py", data).code()
    assert (caught.value.file, caught.value.line) == ("/srv/x.py", line)
    assert str(caught.value).startswith(f"/srv/x.py:{line}: ")
    assert isinstance(caught.value.original, SyntaxError)


def test_a_syntax_error_quotes_the_bytes_and_not_the_disk(root):
    (root / "api.py").write_text("first\nsomething else\n")
    with pytest.raises(LoadError) as caught:
        Source(str(root / "api.py"), b"a = 1\nreturn 5\n").code()
    assert caught.value.original.text == "return 5\n"


def test_too_deeply_nested_code_is_a_load_error():
    with pytest.raises(LoadError):
        Source("/x.py", b"(" * 5000 + b")" * 5000).code()


def test_code_does_not_inherit_our_future_imports():
    namespace = {}
    exec(Source("/x.py", b"def f(a: int): pass\n").code(), namespace)
    assert namespace["f"].__annotations__ == {"a": int}
