"""What runs leave behind: records, adapters, predictions, metrics, and the claim that lets one process at a time do a
run.
"""
