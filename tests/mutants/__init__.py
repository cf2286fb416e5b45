"""Mutants: every lowering, expression and pass in turn is taken away and made wrong, and the tests that name it must fail.

``python -m tests.mutants`` (``make mutants``) runs them. What a mutant is of comes from the registers of the product
(``families.py``), and which test files name it from one convention (``named_tests.py``).
"""
