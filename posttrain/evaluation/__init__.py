"""What was answered, how good that was, and what may be concluded from it."""
