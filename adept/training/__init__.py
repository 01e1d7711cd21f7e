"""Training: a model adapted by a method (session), one run (run), the loop over runs, their steps, and evaluation."""
