"""A headless Chromium, for tests of HTML pages. Without one they are skipped, with their names as the reason."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
Browser = Callable[..., Any]

# All requests go to a proxy that does not exist, as without a network.
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--proxy-server=127.0.0.1:9"),
    *("--disable-background-networking", "--no-first-run", "--virtual-time-budget=2000"),
)


@pytest.fixture
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Browser:
    """Return a function that opens a page without a network, and returns what a program says of it.

    The program is the body of a JavaScript function that returns plain data; it runs after the page's own script.
    """
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip(f"{request.node.name}: there is no Chromium (Debian: apt-get install chromium)")

    def open_page(text: str, program: str, *options: str) -> Any:
        script = f"document.documentElement.dataset.result = JSON.stringify((() => {{{program}}})())"
        allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        # The page allows its own script only.
        text = text.replace("script-src ", f"script-src {allowed} ", 1)
        path = tmp_path / "page.html"
        path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        call = [command, *_OPTIONS, *options, profile, "--dump-dom", path.as_uri()]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120)
        result = re.search(r'data-result="([^"]*)"', done.stdout)
        assert result, done.stderr
        return json.loads(html.unescape(result[1]))

    return open_page
