"""One tidy table of losses: its schema, its producers and its selections."""
