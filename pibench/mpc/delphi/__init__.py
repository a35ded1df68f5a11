"""The papers' own system: linear layers on masked inputs, ReLUs in garbled circuits."""
