"""Places on any storage: tried again when that may help, whole, and without a word of a URI's secrets."""

from __future__ import annotations

import errno
import itertools
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from tsdf_ray import storage, tries
from tsdf_ray.errors import UserError
from tsdf_ray.files import hider, without_secrets
from tsdf_ray.storage import Place
from tsdf_ray.tries import Failure, reason_of

SECRET = st.text("abcXYZ0189/+=@:?&#%. '\"_-\n", min_size=4, max_size=24)


def failed(failure: Failure) -> UserError:
    return UserError(f"{failure.name}: {failure.done} ({failure.reason}) {failure.tries} tries")


class Broken(fs.FileSystemHandler):  # type: ignore[misc]
    """A file system that raises the same error whatever it is asked; `quiet` calls go well before that."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls: list[str] = []

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def get_type_name(self) -> str:
        return "broken"

    def normalize_path(self, path: str) -> str:
        return path

    def _asked(self, *args: Any, **more: Any) -> Any:
        self.calls.append(str(args[0]))
        raise self.error

    get_file_info = get_file_info_selector = create_dir = delete_dir = delete_dir_contents = _asked
    delete_root_dir_contents = delete_file = move = copy_file = open_input_stream = open_input_file = _asked
    open_output_stream = open_append_stream = _asked


def operations(folder: Path) -> dict[str, Callable[[Place], object]]:
    return {
        "info": lambda place: place.info(),
        "below": lambda place: place.below(),
        "read": lambda place: place.read(),
        "get": lambda place: place.get(folder / "got"),
        "write": lambda place: place.write(b"content"),
        "put": lambda place: place.put(Path(__file__)),
        "delete": lambda place: place.delete(),
    }


def said(ask: Callable[[], object]) -> str:
    """All that is told of the error, as a traceback would."""
    with pytest.raises((UserError, FileNotFoundError)) as caught:
        ask()
    return str(caught.value) + "".join(traceback.format_exception(caught.value))


def of_broken(uri: str, handler: Broken) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open_uri", lambda uri: (fs.PyFileSystem(handler), "bucket/folder"))
        return Place.of(uri, failed)


def resolved(uri: str, error: Exception) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open_uri", lambda uri: (_ for _ in ()).throw(error))
        Place.of(uri, failed)


@settings(max_examples=25)
@given(SECRET, SECRET, SECRET, st.sampled_from([OSError, FileNotFoundError, PermissionError, pa.ArrowInvalid]))
def test_no_error_tells_a_secret(
    tmp_path_factory: pytest.TempPathFactory, user: str, password: str, key: str, kind: type[Exception]
) -> None:
    secrets = (user, password, key)
    folder = tmp_path_factory.getbasetemp()
    name, word, option = (quote(secret, safe="") for secret in secrets)
    uris = [
        f"s3://{name}:{word}@bucket/folder?region=eu&secret_key={option}",
        f"s3://bucket/folder?access_key={quote(user)}&secret_key={quote(password)}&token={quote(key)}",
        f"s3://{quote(user, safe='+=')}:{quote(password, safe='+=')}@bucket/folder?secret_key={quote(key, safe='+/')}",
    ]
    parts = [*secrets, name, word, option, name.lower(), word.lower(), option.lower()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tries, "PAUSE", 0)
        patch.setattr(tries, "TRIES", 2)
        for uri in uris:
            text = " | ".join([f"Cannot parse URI: '{uri}' due to", f"{user}:{password}@bucket", *parts])
            asked: list[Callable[[str], object]] = [lambda text, uri=uri: resolved(uri, kind(text))]
            for stores, ask in itertools.product((frozenset(), {"py::broken"}), operations(folder).values()):

                def of(text: str, uri: str = uri, stores: Any = stores, ask: Any = ask) -> None:
                    patch.setattr(storage, "OBJECT_STORES", stores)
                    ask(of_broken(uri, Broken(kind(text))))

                asked.append(of)
            for one in asked:
                told = said(partial(one, text))
                assert "secret_key=" not in told
                hidden = {*secrets, name, word, option}
                if any(secret in told for secret in hidden):  # by chance, in words of ours?
                    harmless = said(partial(one, "Cannot parse URI bucket due"))
                    assume(not any(secret in harmless for secret in hidden))
                    pytest.fail(told)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("s3://user:secret@bucket/folder?region=eu", "s3://bucket/folder"),
        ("s3://user:sec@ret@bucket/folder", "s3://bucket/folder"),
        ("s3://user:sec/ret+@bucket/folder", "s3://bucket/folder"),
        ("s3://user:sec?ret@bucket/folder?region=eu", "s3://bucket/folder"),
        ("s3://user:12/ret@bucket/folder", "s3://bucket/folder"),
        ("s3://user:secret/folder", "s3:///folder"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("s3://user:secret@bucket/a@b/c", "s3://bucket/a@b/c"),
        ("hdfs://host:8020/a@b", "hdfs://host:8020/a@b"),
        ("hdfs://[::1]:8020/a", "hdfs://[::1]:8020/a"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("/folder/a@b:c", "/folder/a@b:c"),
        ("s3://bucket/a@b/c?region=x", "s3://bucket/a@b/c"),
        ("s3://KEY:hidden@bucket/run", "s3://bucket/run"),
        ("s3://KEY:hid/den+/x@bucket/run?region=x", "s3://bucket/run"),
        ("s3://KEY:hid@den@bucket/run", "s3://bucket/run"),
        ("s3://KEY:hid?den#x@bucket/run", "s3://bucket/run"),
        ("s3://KEY:hidden/bucket", "s3:///bucket"),
        ("s3://KEY@bucket/run#hidden", "s3://bucket/run"),
        ("hdfs://user:hidden@host:9000/run", "hdfs://host:9000/run"),
        ("hdfs://host:9000/a@b", "hdfs://host:9000/a@b"),
        ("http://[::1]:8265", "http://[::1]:8265"),
        ("abfs://box:hidden@account.dfs.core.windows.net/run", "abfs://box@account.dfs.core.windows.net/run"),
        ("abfs://box@account.dfs.core.windows.net/run", "abfs://box@account.dfs.core.windows.net/run"),
        ("file:///a/b", "file:///a/b"),
        ("/a?b/c:d@e", "/a?b/c:d@e"),
    ],
)
def test_how_a_uri_is_shown(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown
    for secret in ("secret", "hidden"):
        assert secret not in hider(uri)(f"{uri} {secret}") or secret not in uri


def test_no_piece_of_a_secret_of_two_lines_is_told() -> None:
    hide = hider("s3://user:first%0Asecond@bucket")
    assert reason_of(OSError("refused: first\nsecond is wrong\nmore"), hide) == "refused: *** is wrong"


def test_what_says_nothing_secret_stays() -> None:
    hide = hider("s3://k:s@b/x?region=eu&scheme=http&endpoint_override=host:9000&n=1")
    text = "AWS Error 100 during HeadObject in region eu at http, keys [x1]"
    assert hide(text) == text
    assert hide("key k, secret s, see https://host/b?X-Amz-Signature=abc 's3://o:p@b/x'") == (
        "key ***, secret ***, see https://host/b 's3://b/x'"
    )
    assert hider("/a/path")("s3://b/x?y=z") == "s3://b/x"


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"), 3),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during PutObject operation: SlowDown"), 3),
        (OSError(errno.EIO, "Input/output error"), 3),
        (OSError("AWS Error ACCESS_DENIED during ListObjectsV2 operation: Access Denied"), 1),
        (OSError("AWS Error INVALID_ACCESS_KEY_ID during HeadObject operation"), 1),
        (PermissionError(errno.EACCES, "Permission denied"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (pa.ArrowNotImplementedError("no such thing"), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    error: Exception, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tries, "PAUSE", 0)
    monkeypatch.setattr(tries, "TRIES", 3)
    for name, ask in operations(tmp_path).items():
        place = of_broken("s3://bucket/folder", Broken(error))
        with pytest.raises(UserError, match=rf"s3://bucket/folder: .* {times} tries"):
            ask(place)
        assert not list(tmp_path.iterdir()), name


def test_what_is_missing_is_an_answer_to_readers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "PAUSE", 0)
    gone = Broken(FileNotFoundError(errno.ENOENT, "no such bucket"))
    for name, ask in operations(tmp_path).items():
        kind = FileNotFoundError if name in ("read", "get") else UserError
        with pytest.raises(kind, match="s3://bucket/folder"):
            ask(of_broken("s3://bucket/folder", gone))


def test_a_storage_that_does_not_answer_when_a_uri_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow asks it for the bucket's region."""
    monkeypatch.setattr(tries, "PAUSE", 0)
    answers = iter([OSError("timeout"), OSError("timeout"), None])

    def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
        if error := next(answers):
            raise error
        return fs.LocalFileSystem(), "/a"

    monkeypatch.setattr(storage, "open_uri", open_uri)
    assert Place.of("s3://a", failed).path == "/a"
    with pytest.raises(UserError, match=r"hf://a/b: cannot be used .*give a path"):
        resolved("hf://a/b", ImportError("Install huggingface_hub"))
