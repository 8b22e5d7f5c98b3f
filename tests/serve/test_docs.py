"""What docs/serve.md shows to be typed: every curl command is answered, and every option exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from fgsbir_edge.cli import main
from fgsbir_edge.samples import write_samples
from tests.serve.browser import demo_kiosk
from tests.serve.running import running

TEXT = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
CURLS = [
    line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines() if line.startswith("curl")
]
HOME = "http://127.0.0.1:8000/"


def test_every_curl_command_is_answered(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    write_samples(tmp_path)
    assert len(CURLS) > 10
    with running(demo_kiosk()) as client:
        for line in CURLS:
            command = line.replace(HOME, str(client.base_url)) + " --fail --silent --show-error"
            done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stderr)
        assert client.get("/people").json()["total"] == 0, "the last one forgets"


def test_every_path_and_option_is_named(client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    for path in client.get("/openapi.json").json()["paths"]:
        last = "/" + path.rsplit("/", 1)[1]
        assert path.replace("{photo}", "{id}") in TEXT or last in TEXT, path
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    for option in set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}:
        assert option in TEXT, option
