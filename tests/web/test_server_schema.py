"""The API against its own description: requests made from the schema, good and bad, find no fault of the server."""

import shutil

import pytest
from browsing import HOST, Browser, Served

from perdure import Workspace

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
hypothesis = pytest.importorskip("hypothesis")

EXAMPLES, SEED = 12, 20_26


@pytest.fixture(scope="module")
def person(peopled_shop, tmp_path_factory):
    """The application, and the headers of somebody with every role who signed in."""
    folder = tmp_path_factory.mktemp("schema") / "shop"
    shutil.copytree(peopled_shop, folder)
    served = Served(Workspace.open(folder))
    served.join("all", "requester", "approver", "operator", "auditor", "admin")
    browser = Browser(served, "all")
    cookies = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    return served, {"cookie": cookies, "origin": f"http://{HOST}", "x-form-token": browser.token}


def test_the_api_keeps_to_its_description(person):
    from schemathesis.specs.openapi import checks as known

    served, headers = person
    schema = schemathesis.openapi.from_dict(served.app.openapi())
    app = served.app.state.shielded
    checks = [
        schemathesis.checks.not_a_server_error,
        known.status_code_conformance,
        known.content_type_conformance,
        known.response_schema_conformance,
    ]
    seen, found = 0, {}
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.seed(SEED)
        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=False,
            suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy())
        def meet(case):
            nonlocal seen
            seen += 1
            answer = case.call(app=app, headers=headers, base_url=f"http://{HOST}")
            found[answer.status_code // 100] = found.get(answer.status_code // 100, 0) + 1
            case.validate_response(answer, checks=checks)

        meet()
    assert seen > 100 and found[2] > 20 and found[4] > 20
