"""An S3 of the tests' own: moto's server in a thread, with one bucket, found by the environment as a real one is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

BUCKET = "darkroom-tests"


@contextmanager
def serving() -> Iterator[str]:
    """The URL of an empty bucket, for this process and its children."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setitem(os.environ, name, value)
        client: Any = import_module("boto3").client("s3")
        client.create_bucket(Bucket=BUCKET)
        known: Any = import_module("s3fs").S3FileSystem
        known.clear_instance_cache()  # fsspec keeps clients by their arguments, and the address is in none of them
        yield f"s3://{BUCKET}"
        known.clear_instance_cache()
    server.stop()
