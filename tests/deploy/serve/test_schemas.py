"""The OpenAPI document's schemas."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fullconv.deploy.serve.schemas import ErrorResponse, PredictResponse, error_responses


def test_an_error_has_two_fields() -> None:
    table = {"error": "too dark.", "try": "a lamp"}
    assert ErrorResponse.model_validate(table).model_dump(by_alias=True) == table
    with pytest.raises(ValidationError, match="try"):
        ErrorResponse.model_validate({"error": "too dark."})


def test_images_in_json_are_optional() -> None:
    table = {"height": 1, "width": 2, "seconds": 0.1, "classes": []}
    response = PredictResponse.model_validate(table)
    assert (response.ids, response.mask, response.confidence) == ("", "", "")
    with pytest.raises(ValidationError, match="height"):
        PredictResponse.model_validate({**table, "height": "tall"})


def test_each_error_is_described_with_its_headers() -> None:
    table = error_responses(401, 413, 503)
    assert list(table) == [401, 413, 503]
    assert all(row["model"] is ErrorResponse and row["description"] for row in table.values())
    headers = {status: list(row.get("headers", ())) for status, row in table.items()}
    assert headers == {401: ["WWW-Authenticate"], 413: [], 503: ["Retry-After"]}
    with pytest.raises(KeyError):
        error_responses(418)
