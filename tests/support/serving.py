"""The app on a free port, and requests to it."""

import base64
import io
import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import uvicorn


@contextmanager
def serving(app):
    """Run the app on a free port; yields its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)


def ask(url, body=None, headers=None, raw=None):
    """(status, answer, headers) of a request."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            content = answer.read()
            kind = answer.headers["content-type"]
            return answer.status, json.loads(content) if "json" in kind else content, answer.headers
    except urllib.error.HTTPError as problem:
        return problem.code, json.loads(problem.read()), problem.headers


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()
