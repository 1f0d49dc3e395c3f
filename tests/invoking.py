"""The program called as a user calls it: what it printed, or the error that it must end with."""

import json

from typer.testing import CliRunner

from perdure.cli.app import app


def run(*words, error=None):
    """The result of a command, which must succeed, or end with an error of this kind."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if error is not None:
        assert isinstance(result.exception, error), (result.output, result.exception)
        return result
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def run_json(*words):
    """What a command gives machines."""
    return json.loads(run(*words, "--json").stdout)


def run_text(*words, error=None):
    """What a command printed, or the message of the error that it must end with."""
    result = run(*words, error=error)
    return result.stdout if error is None else str(result.exception)
