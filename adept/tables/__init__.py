"""Tables: which runs they hold, carrying them out, and reporting them beside the paper's numbers."""
