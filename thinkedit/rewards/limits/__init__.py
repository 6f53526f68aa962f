"""Rates, prices and the budget of calls that cost something, and the ledger of what they cost."""
