"""The README's Python example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(blocks[0], "README.md", "exec"), names)
    assert (tmp_path / "runs" / "smoke" / "report.html").stat().st_size > 10_000
    assert names["table"].shape[0] > 50  # type: ignore[attr-defined]


def test_the_scenario_in_the_readme_is_valid(tmp_path: Path) -> None:
    from tsdf_ray.scenario import Scenario

    (block,) = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "readme.yaml"
    path.write_text("name: readme\n" + block)
    assert Scenario.load(path).pairs == [("found", "retinaface"), ("tsdf", "retinaface")]
