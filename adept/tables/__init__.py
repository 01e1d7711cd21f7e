"""Tables: which runs they hold, carrying them out, and reporting them beside the paper's numbers.

table_file.py reads a table's YAML file into a Table (table.py), whose runs() are carried out by sweep.py through one of
the launchers. report.py lays the records out as a View, which markdown.py, page/ and publish.py print and write;
claims.py tests what the paper claims on them.
"""
