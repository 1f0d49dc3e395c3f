"""Update a foundation model without making it forget."""
