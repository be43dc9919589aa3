"""The workflows and hooks call scripts that exist, and only such with a version of actions."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.install.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_scripts_of_the_project(path: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(path.read_text())
    assert set(workflow["permissions"]) == {"contents"}  # nothing else may be written
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    called = [word for step in steps for word in re.findall(r"[.\w]+/\w+", step.get("run", ""))]
    called = [word for word in called if word.startswith(("scripts/", ".ci/"))]
    assert called
    for name in called:
        assert os.access(ROOT / name, os.X_OK), name
    for step in steps:
        assert "run" in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
    assert "secrets." not in path.read_text()


def test_the_hook_calls_the_check() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == ["scripts/check"]
    assert os.access(ROOT / "scripts" / "check", os.X_OK)


def test_what_is_watched_for_updates_exists() -> None:
    found = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {each["package-ecosystem"] for each in found} >= {"pip", "cargo", "gomod"}
    for each in found:
        for folder in each.get("directories") or [each["directory"]]:
            assert list(ROOT.glob(folder.strip("/") or "*")), folder


def test_the_forms_for_issues_are_whole() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert form["name"]
            assert all(each["attributes"]["label"] for each in form["body"])
