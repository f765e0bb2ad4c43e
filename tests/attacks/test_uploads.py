"""Hostile uploads through the real endpoint: a clear refusal, and nothing left behind."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image

from platform_api.app import UPLOADS_PER_ACCOUNT
from platform_api.http import request_body
from storage.records.jobs.photos import photo_layouts
from storage.records.jobs.photos.photo_layouts import PlacedPhoto
from storage.settings import UploadSettings
from tests.platform_api.door import Door, form, photo, register_starter, serving, upload
from tests.storage.blobs.test_images import frames, png_header

LIMITS = UploadSettings(
    max_images=5, max_image_bytes=200_000, max_upload_bytes=600_000, max_unpacked_bytes=400_000, max_pixels=1_000_000
)
PATH = "/api/v1/data-sets"


@pytest.fixture(scope="module")
def strict_door(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door with small limits."""
    with serving(tmp_path_factory.mktemp("strict"), module_database_url, uploads=LIMITS) as door:
        register_starter(door.database)
        yield door


@pytest.fixture
def untouched(strict_door: Door) -> Iterator[Door]:
    """The door, which must hold the same rows, blobs and staged files after the test as before."""

    def everything() -> tuple[object, ...]:
        with strict_door.database.connect() as connection:
            rows = [
                connection.execute(f"select count(*) as n from {table}".encode()).fetchone()
                for table in ("data_sets", "data_set_images", "outbox", "jobs")
            ]
        return rows, sorted(strict_door.blobs), strict_door.staging

    before = everything()
    yield strict_door
    deadline = time.monotonic() + 20
    while (after := everything()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert after == before


def zipped(*entries: tuple[str, bytes]) -> bytes:
    """A zip of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


GOOD = ("good.png", photo(1))
REFUSED: dict[str, tuple[list[tuple[str, bytes]], int, str]] = {
    "no images": ([], 422, "No photo was sent"),
    "one image": ([GOOD], 422, "3 to 6 photos"),
    "the same image twice": ([GOOD, ("copy.png", GOOD[1])], 422, "the same one"),
    "10,000 images": ([("a.png", b"x")] * 10_000, 413, "more than 600,000 bytes"),
    "one image too many": ([(f"{n}.png", photo(n, (20, 20))) for n in range(6)], 422, "More than 5 files"),
    "a zip and too many beside it": (
        [("a.zip", zipped(*((f"{n}.png", b"x") for n in range(4)))), GOOD, GOOD],
        422,
        "6 photos",
    ),
    "20,000 x 20,000 PNG": ([GOOD, ("huge.png", png_header(20_000, 20_000))], 422, "'huge.png' has"),
    "text named .jpg": ([GOOD, ("a.jpg", b"hello there, I am text" * 9)], 422, "'a.jpg' is not a PNG"),
    "zip named .png": ([GOOD, ("a.png", zipped(GOOD))], 422, "'a.png' is not a PNG"),
    "animated WebP": ([GOOD, ("a.webp", frames("WEBP"))], 422, "'a.webp' is an animated WebP; export one frame"),
    "half a PNG": ([GOOD, ("a.png", photo(2)[:4000])], 422, "'a.png' is damaged"),
    "an empty file": ([GOOD, ("a.png", b"")], 422, "'a.png' is not a PNG"),
    "zip bomb": ([("bomb.zip", zipped(*((f"{n}.png", b"\0" * 190_000) for n in range(3))))], 422, "bomb.zip: "),
    "../ in a zip": ([("a.zip", zipped(("../../evil.png", GOOD[1])))], 422, "'../../evil.png' is not a plain"),
    "a script in a zip": ([("a.zip", zipped(GOOD, ("run.sh", b"#!")))], 422, "a.zip: 'run.sh' is not a .png"),
    "a broken zip": ([("a.zip", b"PK\x03\x04 nothing")], 422, "a.zip: The file is not a zip"),
    "an image over the limit": ([("a.png", b"\x89PNG" + b"0" * 200_001)], 422, "'a.png' has more than 200,000 bytes"),
    "an upload over the limit": ([(f"{n}.png", b"0" * 199_000) for n in range(4)], 413, "more than 600,000 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_each_bad_upload_is_refused_and_leaves_nothing(untouched: Door, name: str):
    files, status, said = REFUSED[name]
    response = untouched.client().post(PATH, files=form(*files) or {"name": (None, "x")})
    assert response.status_code == status, response.text
    assert said in response.json()["detail"]
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("", b"x", 415),
        ("multipart/form-data", b"x", 415),
        ("multipart/form-data; boundary=b", b"", 400),
        ("multipart/form-data; boundary=b", b"nonsense" * 99, 400),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx', 400),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 500 + b"\r\n--b--", 400),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n',
            422,
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\0\r\n--b--\r\n',
            422,
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n--b--\r\n',
            422,
        ),
        ("multipart/form-data; boundary=" + "b" * 3000, b"x", 400),
        ("application/zip", b"", 422),
        ("application/zip", b"x" * 600_001, 413),
    ],
)
def test_bodies_that_are_no_upload_are_refused(untouched: Door, kind: str, body: bytes, status: int):
    response = untouched.client().post(PATH, content=body, headers={"Content-Type": kind})
    assert response.status_code == status, response.text


def test_an_honest_upload_passes_whole(strict_door: Door):
    made = strict_door.client().post(
        PATH,
        files=[
            *form(GOOD, ("b.jpg", photo(2, kind="JPEG")), ("more.zip", zipped(("x/c.webp", photo(3, kind="WEBP")))))
        ],
        data={"name": " my mug "},
    )
    assert made.status_code == 201, made.text
    body = made.json()
    assert (body["name"], [image["name"] for image in body["images"]]) == ("my mug", ["good.png", "b.jpg", "c.webp"])
    assert strict_door.client().get(made.headers["location"]).json() == body
    assert strict_door.staging == []


def test_what_is_said_of_photos_comes_with_them(strict_door: Door):
    lines = '{"file_name": "good.png", "text": "on  the beach"}\n{"file_name": "c.webp", "repeats": 3}'
    files = form(GOOD, ("b.png", photo(2)), ("more.zip", zipped(("x/c.webp", photo(3, kind="WEBP")))))
    made = strict_door.client().post(PATH, files=[*files], data={"metadata": lines})
    assert made.status_code == 201, made.text
    said = [(image["name"], image["caption"], image["repeats"]) for image in made.json()["images"]]
    assert said == [("good.png", "on the beach", 1), ("b.png", "", 1), ("c.webp", "", 3)]
    assert strict_door.client().get(made.headers["location"]).json() == made.json()
    plain = strict_door.client().post(PATH, files=[*files])
    assert plain.json()["contentHash"] != made.json()["contentHash"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("not JSON", "line 1: "),
        ('{"file_name": "gone.png"}', "'gone.png' was not sent"),
        ('{"file_name": "b.png"}', "'b.png' was sent twice"),
        ('{"file_name": "good.png", "repeats": 0}', "line 1: "),
        ('{"file_name": "good.png", "text": "' + "x" * 2001 + '"}', "line 1: "),
    ],
)
def test_what_is_said_of_no_photo_is_refused(untouched: Door, lines: str, said: str):
    files = form(GOOD, ("b.png", photo(2)), ("b.png", photo(3)))
    response = untouched.client().post(PATH, files=[*files], data={"metadata": lines})
    assert response.status_code == 422, response.text
    assert said in response.json()["errors"]["metadata"]


def test_a_raw_zip_is_an_upload_too(strict_door: Door):
    body = zipped(GOOD, ("b.png", photo(2)), ("__MACOSX/._b.png", b"junk"))
    made = strict_door.client().post(PATH, content=body, headers={"Content-Type": "application/zip"})
    assert made.status_code == 201
    assert made.json()["imageCount"] == 2


def test_what_an_archive_says_of_its_photos_comes_with_them(strict_door: Door):
    kohya = zipped(
        ("img/3_sks mug/a.png", photo(1)),
        ("img/3_sks mug/a.txt", b"on the beach"),
        ("img/3_sks mug/a.json", b"{}"),
        ("img/2_sks mug/a.png", photo(2)),
    )
    two = zipped(("img/3_sks mug/a.png", photo(5)), ("img/3_ohwx mug/b.png", photo(6)))
    lines = zipped(
        ("c.png", photo(3)),
        ("d.png", photo(4)),
        ("metadata.jsonl", b'{"file_name": "c.png", "text": "at sea"}'),
    )
    form_says = '{"file_name": "c.png", "text": "in the snow", "repeats": 9, "whole_prompt": true}'
    made = strict_door.client().post(
        PATH, files=[*form(("kohya.zip", kohya), ("lines.zip", lines), ("two.zip", two))], data={"metadata": form_says}
    )
    assert made.status_code == 201, made.text
    said = [
        (image["name"], image["caption"], image["repeats"], image["wholePrompt"]) for image in made.json()["images"]
    ]
    assert said == [
        ("1-a.png", "", 2, False),
        ("2-a.png", "on the beach", 3, False),
        ("c.png", "in the snow", 9, True),
        ("1-b.png", "ohwx mug", 3, True),
        ("2-a.png", "sks mug", 3, True),
    ]
    assert made.json()["leftOut"] == [
        "kohya.zip: 3_sks mug/a.json is neither a photo nor a caption of one",
        "kohya.zip: 'sks mug', which its folders are named for; set it in the training",
        "lines.zip: d.png has no line in metadata.jsonl",
    ]
    assert strict_door.client().get(made.headers["location"]).json() == made.json() | {"leftOut": []}
    assert strict_door.staging == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\xff\xfe", "photos.zip: a.txt is not UTF-8 text"),
        ("a.txt", b"x" * 2001, "photos.zip: a.txt has 2,001 characters"),
        ("a.txt", b"x" * 65_537, "photos.zip: 'a.txt' has 65,537 bytes; the limit is 65,536"),
        ("metadata.jsonl", b"{oh", "photos.zip: metadata.jsonl, line 1: "),
        ("metadata.jsonl", b'{"file_name": "/etc/passwd"}', "names '/etc/passwd', which is not inside"),
        ("metadata.jsonl", b"[" * 100_000, "photos.zip: metadata.jsonl, line 1: "),
        ("set.toml", b"a = " + b"[" * 60_000, "photos.zip: set.toml is not TOML"),
        ("set.toml", b"a = 1" + b"0" * 60_000, "photos.zip: set.toml is not TOML"),
        ("set.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/etc'", "which is no folder"),
    ],
)
def test_what_an_archive_says_wrongly_is_refused(untouched: Door, name: str, content: bytes, said: str):
    response = untouched.client().post(
        PATH, files=[*form(("photos.zip", zipped(("a.png", photo(1)), ("b.png", photo(2)), (name, content))))]
    )
    assert response.status_code == 422, response.text
    assert said in response.json()["detail"]


@pytest.mark.parametrize(("subsets", "said"), [(5, "more than 5 photos"), (20_000, "more than 5 subsets")])
def test_an_archive_whose_subsets_name_all_photos_again_is_refused_at_once(
    untouched: Door, monkeypatch: pytest.MonkeyPatch, subsets: int, said: str
):
    placed: list[PlacedPhoto] = []

    def counted(*arguments: Any) -> PlacedPhoto:
        placed.append(PlacedPhoto(*arguments))
        return placed[-1]

    monkeypatch.setattr(photo_layouts, "PlacedPhoto", counted)
    toml = f"datasets=[{{image_dir='a',subsets=[{'{},' * subsets}]}}]".encode()
    assert len(toml) < 65_536
    files = [(f"a/{number}.png", photo(number, (20, 20))) for number in range(4)]
    response = untouched.client().post(PATH, files=[*form(("photos.zip", zipped(*files, ("set.toml", toml))))])
    assert response.status_code == 422, response.text
    assert said in response.json()["detail"]
    assert len(placed) <= LIMITS.max_images


def test_what_many_archives_leave_out_is_named_of_the_first_and_counted_of_the_others(strict_door: Door) -> None:
    toml = b"datasets=[{image_dir='a',subsets=[{},{},{}]}]"
    empty = [(f"a/{number}.jsonl", b"") for number in range(30)]
    loud = zipped(*empty, ("set.toml", toml))
    photos = zipped(("a.png", photo(1)), ("b.png", photo(2)))
    files = [*form(("photos.zip", photos)), *(form((f"{number}.zip", loud))[0] for number in range(4))]
    made = strict_door.client().post(PATH, files=files)
    assert made.status_code == 201, made.text
    left_out = made.json()["leftOut"]
    assert left_out[0] == "0.zip: a/0.jsonl is neither a photo nor a caption of one"
    assert left_out[20:] == ["0.zip: ... and 10 more files like these", "... and of 3 more archives"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.zip", "file:///etc/passwd", "memory://shots", "s3://bucket/a"])
def test_an_address_is_never_opened(untouched: Door, url: str):
    client = untouched.client()
    for response in (
        client.post(PATH, json={"url": url, "files": [url]}),
        client.post(PATH, files=[*form((url, photo(1)), (url, url.encode()))]),
        client.post(PATH, files={"files": (None, url)}),
        client.post(PATH, files={"url": (None, url)}),
    ):
        assert response.status_code in (415, 422), response.text


WATCHED: list[str] = []
"""Texts that this process, the server's too, gave to the system while a test watched."""
watching = False


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: files opened, renamed, linked, deleted, listed, and processes started."""
    if watching and event.startswith(("open", "os.", "shutil.", "subprocess.", "glob.", "tempfile.")):
        WATCHED.append(f"{event} {arguments!r}")


sys.addaudithook(watch)

MARK = "mark7f3a"
NAMES = {
    f"../../etc/{MARK}.png": f"{MARK}.png",
    f"/{MARK}/../x.png": "x.png",
    f"C:\\x\\{MARK}.png": f"{MARK}.png",
    MARK + "x" * 500 + ".png": MARK + "x" * (110 - len(MARK)) + ".png",
    f"\u202egnp.{MARK}.png": f"gnp.{MARK}.png",
    f"{MARK};rm -rf $HOME `id`.png": f"{MARK};rm -rf $HOME `id`.png",
    f"..{MARK}": f"..{MARK}",
    f"CON.{MARK}": f"CON.{MARK}",
}
"""What a sender calls a photo, and what everybody is shown."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrapped", ["form", "zip"])
def test_file_names_are_shown_and_used_nowhere(
    strict_door: Door, caplog: pytest.LogCaptureFixture, name: str, wrapped: str
):
    global watching
    caplog.set_level(0)
    files = [(name, photo(1)), ("b.png", photo(2))]
    if wrapped == "zip":
        files = [("photos.zip", zipped((f"{MARK}.png", photo(1)), ("b.png", photo(2))))]
    WATCHED.clear()
    watching = True
    try:
        made = strict_door.client().post(PATH, files=form(*files))
    finally:
        watching = False
    assert made.status_code == 201, made.text
    assert made.json()["images"][0]["name"] == (NAMES[name] if wrapped == "form" else f"{MARK}.png")
    assert any("received-000000" in line for line in WATCHED)  # the hook sees what the server does
    assert not [line for line in WATCHED if MARK in line]
    assert not [path for path in strict_door.settings.data_folder.rglob("*") if MARK in str(path)]
    assert MARK not in caplog.text
    image = made.json()["images"][0]
    [blob] = [path for path in strict_door.blobs if path.name == image["sha256"]]
    assert MARK.encode() not in blob.read_bytes()


@pytest.mark.parametrize("name", [f"{MARK}\x00.png", f"{MARK}\r\nX-Injected: 1.png", f'{MARK}".png'])
def test_file_names_that_would_end_a_header_are_one_name_or_refused(strict_door: Door, name: str):
    escaped = name.replace('"', "%22").replace("\r\n", "%0D%0A").replace("\x00", "%00")
    for sent, statuses in ((escaped, {201}), (name.replace('"', '\\"'), {201, 400, 422})):
        content = photo(1), photo(2)
        parts = [
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + title.encode() + b'"\r\n\r\n' + one
            for title, one in zip((sent, "b.png"), content, strict=True)
        ]
        body = b"\r\n".join([*parts, b"--b--\r\n"])
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        made = strict_door.client().post(PATH, content=body, headers=headers)
        assert made.status_code in statuses, made.text
        assert "x-injected" not in made.headers
        if made.status_code == 201:
            shown = made.json()["images"][0]["name"]
            assert shown.isprintable()
            assert not set(shown) & set("/\\\r\n\0")


def raw_request(door: Door, headers: str, *pieces: bytes, wait: bool = True) -> bytes:
    """Bytes sent as they are, and what comes back; without `wait`, gone as soon as the server has begun to receive."""
    address = urlsplit(door.url)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n{headers}\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode())
        for piece in pieces:
            connection.sendall(piece)
        if wait:
            return connection.recv(4096)
        while not door.staging:
            time.sleep(0.01)
        return b""


def test_a_content_length_over_the_limit_is_refused_before_the_body(untouched: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "DRAIN_SECONDS", 0.3)
    response = raw_request(untouched, "Content-Type: application/zip\r\nContent-Length: 600001\r\n")
    assert response.startswith(b"HTTP/1.1 413")


def test_a_body_longer_than_its_content_length_is_cut_there(untouched: Door):
    response = raw_request(untouched, "Content-Type: application/zip\r\nContent-Length: 5\r\n", b"x" * 5000)
    assert response.startswith(b"HTTP/1.1 422")


def test_chunks_without_a_length_are_counted_as_they_come(untouched: Door):
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    response = untouched.client().post(PATH, content=endless(), headers={"Content-Type": "application/zip"})
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_client_that_stops_sending_is_sent_unavailable(untouched: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "SILENT_SECONDS", 0.3)
    response = raw_request(untouched, "Content-Type: application/zip\r\nContent-Length: 1000\r\n", b"x" * 990)
    assert response.startswith(b"HTTP/1.1 408")


def test_a_client_that_goes_unavailable_leaves_nothing(untouched: Door):
    raw_request(untouched, "Content-Type: application/zip\r\nContent-Length: 1000\r\n", b"x" * 990, wait=False)


def test_more_uploads_at_once_than_allowed_are_told_to_come_back(untouched: Door):
    address = urlsplit(untouched.url)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {untouched.key}\r\n"
    head += "Content-Type: application/zip\r\nContent-Length: 1000\r\n\r\nx"
    with contextlib.ExitStack() as under_way:
        for _ in range(UPLOADS_PER_ACCOUNT):
            unfinished = socket.create_connection((address.hostname, address.port), timeout=20)
            under_way.enter_context(unfinished).sendall(head.encode())
        while len(untouched.staging) < UPLOADS_PER_ACCOUNT:
            time.sleep(0.01)
        response = untouched.client().post(PATH, content=b"", headers={"Content-Type": "application/zip"})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "5"


def test_a_data_set_that_a_job_needs_is_kept_until_the_job_ends(strict_door: Door):
    client = strict_door.client()
    path = f"{PATH}/{upload(client)['id']}"
    job = client.post("/api/v1/training-jobs", json={"dataSetId": path[-36:], "classWord": "mug"}).json()
    refused = client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    client.post(job["links"]["cancel"])
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.post(job["links"]["retry"]).json()["errors"].keys() == {"dataSetId"}


def test_large_uploads_take_little_memory_of_the_server(database_url: str, tmp_path: Path):
    """Photos of 6 million pixels pass through; the server itself decodes none of them."""
    stream = io.BytesIO()
    Image.effect_noise((3000, 2000), 20).convert("RGB").save(stream, "JPEG", quality=92)
    content = stream.getvalue()
    with serving(tmp_path, database_url) as door:
        before = psutil.Process().memory_info().rss
        peak, stop = [before], threading.Event()

        def watch() -> None:
            while not stop.wait(0.02):
                peak[0] = max(peak[0], psutil.Process().memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        photos = [(f"{n}.jpg", content + bytes([n])) for n in range(2)] + [("s.png", photo(9))]
        made = door.client().post(PATH, files=form(*photos))
        stop.set()
        watcher.join()
    assert made.status_code == 201
    assert peak[0] - before < 64 * 1024 * 1024
