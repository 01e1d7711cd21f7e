"""Tables of the paper: their runs, their cells, and what is published of them."""
