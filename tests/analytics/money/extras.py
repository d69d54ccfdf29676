"""What the extra `business` brings; requirements/dev.txt has it, so that nothing is skipped in CI."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_linearmodels = pytest.mark.skipif(
    find_spec("linearmodels") is None, reason="needs linearmodels: pip install 'tailsight[business]'"
)
