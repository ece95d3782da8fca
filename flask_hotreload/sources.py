"""What a reload runs: files from under the roots, each read once per transaction.

:class:`Roots` says from where code may come. It keeps the folders as they were written, so that a link such as
``current`` → ``releases/42`` may be switched; :meth:`Roots.resolve` fixes, for one transaction, where they lead now.
:class:`Source` is the bytes of one file, and what is compiled from exactly these bytes. :class:`Snapshot` holds the
sources of one transaction: however often a file is asked for, it is read once.
"""

from __future__ import annotations

import copy
import hashlib
import io
import marshal
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import decode_source
from types import CodeType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from flask_hotreload.errors import LoadError, ReloadInvalid
from flask_hotreload.python_files import python_files_below
from flask_hotreload.verdicts import Verdicts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# A real path has no link in its last part, and a fifo put there must not block us. (Windows has neither.)
_OPEN = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_OPEN |= getattr(os, "O_BINARY", 0)

_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
_STANDARD_LIBRARY = os.path.realpath(os.path.dirname(os.__file__))


@dataclass(frozen=True)
class Place:
    """Where a file lies, told so that it stays the same when a link above it is switched.

    ``root``
        The root, as it was written.
    ``relative``
        The path below it; ``"."`` for the root itself.
    """

    root: str
    relative: str


class Roots:
    """The folders from which code may be loaded, kept as written.

    A relative folder is taken from the working folder of now. Where the folders lead is remembered from each
    :meth:`resolve`, so that a module that was loaded from ``releases/41`` is still known as the one that is now
    in ``releases/42``.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        """Raise ``ValueError`` when there is none."""
        self.folders = tuple(dict.fromkeys(os.path.abspath(folder) for folder in folders))
        if not self.folders:
            raise ValueError("HOTRELOAD_ROOTS names no folder; name the folder that holds the application")
        self._history: dict[str, str] = {}
        self._verdicts = Verdicts()
        self.resolve()

    def resolve(self, led: Mapping[str, str] | None = None) -> ResolvedRoots:
        """The roots as they lead now, or as they ``led``, root as written → folder, for one transaction."""
        real = {folder: os.path.realpath(folder) for folder in self.folders} | dict(led or {})
        known = len(self._history)
        for folder, target in real.items():
            self._history.setdefault(folder, folder)
            self._history[target] = folder
        if len(self._history) != known:
            self._verdicts.clear()
        return ResolvedRoots(real, self._history, self._verdicts)

    def __repr__(self) -> str:
        return f"<Roots {', '.join(self.folders)}>"


class ResolvedRoots:
    """Where the roots lead during one transaction, and for what comes of it: whatever links do afterwards.

    ``real``
        Root as written → the folder that it leads to now.
    ``history``
        Folder to which a root led at any time → that root as written. It may grow: what a root comes to lead to
        afterwards is known as the project's, too.
    ``verdicts``
        Which of the loaded modules are known to be the project's, as far as ``history`` goes.
    """

    def __init__(self, real: dict[str, str], history: Mapping[str, str], verdicts: Verdicts) -> None:
        self.real = real
        self.verdicts = verdicts
        self._history = history
        self._longest_first: list[str] = []
        self._folders = _fixed(real)
        # Remembered for the transaction: each question to the disk waits for requests' threads afterwards.
        self._foreign: dict[str, bool] = {}
        self._concerned: dict[str, bool] = {}
        self._moved: dict[str, str] = {}

    def resolve(self, path: str | os.PathLike[str]) -> str:
        """The real path of a script that may be loaded; it need not exist.

        :raises ReloadInvalid: the path is not absolute, lies outside the roots (also by a link that leaves
            them), in a hidden folder, a virtual environment or ``site-packages`` inside a root, or is not a regular
            file.
        """
        shown = os.fspath(path)
        if "\0" in shown or not os.path.isabs(shown):
            raise ReloadInvalid(f"scriptPath {shown!r} is not an absolute path")
        real = os.path.realpath(shown) if os.pardir in shown.split(os.sep) else self.real_path(shown)
        if not self.contains(real):
            aim = shown if real == shown else f"{shown} (that is {real})"
            raise ReloadInvalid(
                f"scriptPath {aim} may not be loaded: it lies outside the roots {', '.join(self.real)}, or in a "
                "hidden folder, virtual environment or site-packages inside them; "
                "HOTRELOAD_ROOTS says from where code may come"
            )
        if os.path.exists(real) and not os.path.isfile(real):
            kind = "a folder" if os.path.isdir(real) else "not a regular file"
            raise ReloadInvalid(f"scriptPath {shown} is {kind}; name a Python file under {', '.join(self.real)}")
        return real

    def contains(self, real: str) -> bool:
        """Whether a real path lies under a root as it leads now, and is the project's own."""
        return any(_is_below(real, root) and not self._is_foreign(real, root) for root in self.real.values())

    def concerns(self, folder: str) -> bool:
        """Whether the project's files, or a root, may lie directly or deeper in a folder."""
        known = self._concerned.get(folder)
        if known is None:
            real = self.real_path(folder)
            inside = self.contains(os.path.join(real, "_"))
            known = inside or any(_is_below(root, real) for root in self.real.values())
            self._concerned[folder] = known
        return known

    def place(self, path: str) -> Place | None:
        """Where a file or folder lies under the roots as they lead now *or once led*; ``None``: not the project's."""
        return self.place_of(self.real_path(path))

    def place_of(self, real: str) -> Place | None:
        """The same for a real path, without a question to the disk about it."""
        if len(self._longest_first) != len(self._history):
            self._longest_first = sorted(list(self._history), key=len, reverse=True)  # noqa: C414  # it may grow now
            self._moved.clear()
        for root in self._longest_first:
            if _is_below(real, root):
                if self._is_foreign(real, root):
                    return None
                return Place(self._history[root], real[len(root) :].strip(os.sep) or os.curdir)
        return None

    def told(self, place: Place) -> str:
        """Where a file lies, told so that it is the same on every host, in whatever folders the roots are."""
        number = list(self.real).index(place.root)
        return f"{number}:{place.relative}" if number else place.relative

    def now(self, path: str) -> str:
        """The path that a file or folder has now, after links to the roots were switched; others are as they were."""
        known = self._moved.get(path)
        if known is None:
            place, known = self.place(path), path
            if place is not None and not _is_below(self.real_path(path), self.real[place.root]):
                known = os.path.normpath(os.path.join(self.real[place.root], place.relative))
            self._moved[path] = known
        return known

    def real_path(self, path: str) -> str:
        """``os.path.realpath``, by links as they were when the roots were resolved. It remembers folders."""
        full = os.path.abspath(path)
        known = self._folders.get(full)
        return self._followed(full) if known is None else known

    def _real_folder(self, folder: str) -> str:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self._followed(folder)
        return known

    def _followed(self, path: str) -> str:
        folder, name = os.path.split(path)
        if folder == path:
            return path
        full = os.path.join(self._real_folder(folder), name)
        return os.path.realpath(full) if os.path.islink(full) else full

    def _is_foreign(self, real: str, root: str) -> bool:
        """Whether a virtual environment, an installed Python, or a hidden folder lies between root and path."""
        folder = os.path.dirname(real)
        if not _is_below(folder, root) or folder == root:
            return False
        known = self._foreign.get(folder)
        if known is None:
            name = os.path.basename(folder)
            known = self._foreign[folder] = (
                name in _PACKAGE_FOLDERS
                or name.startswith(".")
                or folder == _STANDARD_LIBRARY
                or os.path.exists(os.path.join(folder, "pyvenv.cfg"))
                or self._is_foreign(folder, root)
            )
        return known


def _fixed(real: Mapping[str, str]) -> dict[str, str]:
    """The roots, and the folders above each as far as a link there leads to it, with where they lead now."""
    fixed = dict(real)
    for root, led in real.items():
        now, above = os.path.realpath(root), os.path.dirname(root)
        while above != os.path.dirname(above):
            below = os.path.relpath(root, above)
            if now != os.path.join(os.path.realpath(above), below) or not led.endswith(os.sep + below):
                break
            fixed.setdefault(above, led[: -len(below) - 1] or os.sep)
            above = os.path.dirname(above)
    return fixed


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


class Compiled(NamedTuple):
    """Marshalled code by its digest; ``data``: ``None`` for whoever has it."""

    digest: str
    data: bytes | None


@dataclass(frozen=True)
class Source:
    """One file's bytes, and what is made from them.

    ``path``
        As modules and tracebacks show it (``__file__``, ``co_filename``).
    ``data``
        The bytes, as they were read.
    ``digest``
        ``"sha256:"`` and 64 hexadecimal digits.
    """

    path: str
    data: bytes = field(repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of_bytes(self.data))

    @cached_property
    def text(self) -> str:
        r"""The bytes decoded as PEP 263 says, lines ended by ``\n``.

        :raises LoadError: they are not what the file's encoding (UTF-8, unless a comment names another) allows.
        """
        try:
            return decode_source(self.data)
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            self._refuse(SyntaxError(f"{error.encoding} can't decode this line: {error.reason}"), line)
        except (SyntaxError, LookupError) as error:
            self._refuse(SyntaxError(str(error)), 1)

    @cached_property
    def lines(self) -> list[str]:
        """The text's lines with their ends, as ``linecache`` holds them."""
        lines = io.StringIO(self.text).readlines()
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        return lines

    @property
    def is_compiled(self) -> bool:
        return "_code" in vars(self)

    def compiled(self, known: Collection[str] = ()) -> Compiled | None:
        """What the bytes were compiled to, marshalled for this interpreter; ``None``: nobody has yet.

        The same code marshalled again may be other bytes. So its digest stays what it was as long as that is among
        those that are ``known``, and then the bytes, which whoever knows the digest has, are left out.
        """
        if not self.is_compiled:
            return None
        digest = vars(self).get("_compiled_digest")
        if digest is not None and digest in known:
            return Compiled(digest, None)
        data = marshal.dumps(self._code)
        digest = vars(self)["_compiled_digest"] = digest_of_bytes(data)
        return Compiled(digest, data)

    def use_compiled(self, data: bytes, digest: str) -> None:
        """Take over what another process has compiled from the same bytes, wherever it has them."""
        if not self.is_compiled:
            code = marshal.loads(data)  # signed, as the bytes are
            vars(self)["_compiled_digest"] = digest
            vars(self)["_code"] = code if code.co_filename == self.path else _shown_as(self.path, code)

    def code(self) -> CodeType:
        """The compiled bytes: made once, never from a ``.pyc``.

        :raises LoadError: it does not compile.
        """
        return self._code

    @cached_property
    def _code(self) -> CodeType:
        null = self.data.find(b"\0")
        if null >= 0:
            line = self.data.count(b"\n", 0, null) + 1
            self._refuse(SyntaxError("source code cannot contain null bytes"), line)
        lines = self.lines
        try:
            return compile(self.data, self.path, "exec", dont_inherit=True)
        except SyntaxError as error:
            error.filename = self.path
            if error.lineno is not None and 0 < error.lineno <= len(lines):
                # The compiler quotes some lines from the disk, where they may be others by now.
                error.text = lines[error.lineno - 1]
            raise self._error(error, error.lineno) from error
        except (ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise self._error(error, None) from error

    def _refuse(self, error: SyntaxError, line: int) -> NoReturn:
        error.filename, error.lineno, error.offset = self.path, line, 1
        raise self._error(error, line) from None

    def _error(self, error: Exception, line: int | None) -> LoadError:
        where = self.path if line is None else f"{self.path}:{line}"
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        return LoadError(f"{where}: {type(error).__name__}: {what}", file=self.path, line=line, original=error)


def _shown_as(path: str, code: CodeType) -> CodeType:
    """``code``, and all code inside it, as if it had been compiled from a file of this path."""
    inside = tuple(_shown_as(path, each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_filename=path, co_consts=inside)


class Snapshot:
    """The sources of one transaction.

    ``roots``
        Where the roots lead during the transaction.
    ``sources``
        Real path → source, to start from: what another process has read.
    ``sealed``
        True: there is nothing beyond ``sources``; the disk is never read.
    ``undecided``
        Real paths of ``sources`` that nobody has said yet how to show: the first who reads one does.
    ``refused``
        Real path → why a file that is there could not be read; who asks for it is told.
    """

    def __init__(
        self,
        roots: ResolvedRoots,
        sources: Mapping[str, Source] | None = None,
        *,
        sealed: bool = False,
        undecided: Iterable[str] = (),
        refused: Mapping[str, LoadError] | None = None,
    ) -> None:
        self.roots = roots
        self.sealed = sealed
        self._sources = dict(sources or {})
        self._undecided = set(undecided)
        self._refused = dict(refused or {})
        self._digest: tuple[int, str] | None = None  # of so many sources; one that was read stays as it is

    @property
    def sources(self) -> dict[str, Source]:
        """Real path → source, of what was read so far; a copy."""
        return self._sources.copy()

    def has(self, real: str) -> bool:
        """Whether :meth:`read` of a real path finds a file. It may still not compile."""
        return real in self._sources or real in self._refused or (not self.sealed and os.path.isfile(real))

    def is_shown(self, real: str) -> bool:
        """Whether it was said how a source that is read is to be shown."""
        return real in self._sources and real not in self._undecided

    def has_folder(self, real: str) -> bool:
        """Whether there is a folder in which :meth:`read` may find something, or one of data files alone.

        Data come from the disk, always. So does a folder without sources; one whose sources are not those of a
        sealed snapshot is no part of it.
        """
        if not self.sealed and os.path.isdir(real):
            return True
        if any(_is_below(path, real) for path in (*self._sources.copy(), *self._refused)):
            return True
        return os.path.isdir(real) and next(python_files_below(real, self.roots), None) is None

    def read(self, real: str, *, shown: str | None = None) -> Source:
        """The source of a real path under the roots, to be shown as ``shown``; read at the first call only.

        :raises LoadError: missing, or it can't be read.
        """
        source = self._sources.get(real)
        if source is None:
            path = shown or real
            if real in self._refused:
                raise copy.copy(self._refused[real])  # a raise would hang its traceback on the one that is kept
            if self.sealed:
                raise LoadError(f"{path}: there is no such file in the sources of this reload", file=path)
            # Two threads that read at once get one source all the same.
            source = self._sources.setdefault(real, Source(path, read_source(real, path)))
        elif real in self._undecided:
            self._undecided.discard(real)
            if shown is not None and shown != source.path:
                source = self._sources[real] = Source(shown, source.data)
        return source

    def with_sources(self, others: Mapping[str, Source]) -> Snapshot:
        """A sealed snapshot of these sources with ``others`` over them, wherever the roots led to those."""
        over = {self._here(real): source for real, source in others.items()}
        return Snapshot(self.roots, {**self._sources, **over}, sealed=True, undecided=self._undecided - over.keys())

    def _here(self, real: str) -> str:
        place = self.roots.place_of(real)
        return real if place is None else os.path.normpath(os.path.join(self.roots.real[place.root], place.relative))

    @property
    def digest(self) -> str:
        """One digest over all sources that were read so far, and where they lie below their roots."""
        sources = self._sources.copy()
        if self._digest is None or self._digest[0] != len(sources):
            digests = {self._told(real): source.digest for real, source in sources.items()}
            self._digest = len(sources), digest_of(digests)
        return self._digest[1]

    def _told(self, real: str) -> str:
        place = self.roots.place_of(real)
        return real if place is None else self.roots.told(place)

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self._sources)} files{', sealed' if self.sealed else ''}>"


def digest_of_bytes(data: bytes) -> str:
    """``"sha256:"`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of(digests: Mapping[str, str]) -> str:
    """One digest over many: name → digest."""
    return digest_of_bytes(repr(sorted(digests.items())).encode())


def read_source(real: str, shown: str) -> bytes:
    """The bytes of a regular file. Raise :class:`LoadError`, with the ``OSError``."""
    try:
        descriptor = os.open(real, _OPEN)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise LoadError(f"{shown}: not a regular file", file=shown)
            chunks = []
            while chunk := os.read(descriptor, max(status.st_size + 1, 4096)):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            os.close(descriptor)
    except OSError as error:
        text = f"{shown}: {error.strerror or error}"
        raise LoadError(text, file=shown, original=error) from error
