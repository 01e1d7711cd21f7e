"""What runs leave behind: records, adapters, predictions and metrics; and the claim, so that one process does a run."""
