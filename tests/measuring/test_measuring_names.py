import subprocess
import sys

import pytest

import perdure.measuring


def test_every_public_name_is_there():
    assert all(getattr(perdure.measuring, name) is not None for name in perdure.measuring.__all__)
    with pytest.raises(AttributeError, match="no attribute 'measure_nothing'"):
        _ = perdure.measuring.measure_nothing


def test_reading_a_report_needs_no_torch():
    code = "import sys, perdure.measuring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
