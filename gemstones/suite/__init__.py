"""What to train: shapes and their counts, the recipe's numbers for each shape, runs and their segments."""
