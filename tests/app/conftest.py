"""What tests of the app share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def main_module():
    """A page that is tested runs as `__main__`; processes that later tests start would run it again."""
    mine = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = mine
