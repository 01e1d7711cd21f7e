"""adept: ADePT, DePT, prompt tuning and their rivals on the paper's tasks, reproducibly. Begin with adept/loop.py."""
