"""Building input-addressed derivations."""

import pytest


@pytest.mark.every_client
def test_nix_build_builds_one_output(world):
    path = world.output("sh \"hello\" \"echo hello > $out\" {}")
    assert path.read_text() == "hello\n"
    assert world.is_valid(path)
