"""Samplers of other libraries under sdekit's checks: `python -m sdekit.verify.conformance NAME`.

`rows` says what is measured, `libraries` makes a function of it that the checks can ask, `table`
measures errors and orders by exact laws, `shown` holds what single commands show, `page` writes
the tables of docs/conformance.md.
"""
