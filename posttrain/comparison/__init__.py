"""Many techniques on one task: the table, the money, the verdict and the report."""
