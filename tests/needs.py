"""Skips that say which Debian package would lift them; in CI such a skip is a failure (tests/conftest.py)."""

from __future__ import annotations

import shutil

import pytest


def program(name: str, package: str) -> str:
    """The path of a program, or a skip that names the package it comes in."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs the package {package} (program {name})")
    return found
