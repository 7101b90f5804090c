"""Numbers, tables and figures as a terminal, a page and a paper show them."""
