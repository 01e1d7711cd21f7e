"""adept: ADePT, DePT, prompt tuning and their rivals on the paper's tasks, reproducibly.

>>> from adept import load, predict
>>> session = load("results/runs/<run_id>")
>>> predict(session, ["a quiet, lovely film"])
"""
