"""What the service keeps: files, jobs, events, models, in a database and a folder beside it."""
