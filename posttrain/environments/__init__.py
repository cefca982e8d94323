"""The worlds in which rows are attempted.  Each file is one: who speaks when, until there is an answer.

An environment is a module with

    async def attempt(candidate, rows, *, n, sampling) -> list[list[Rollout]]

which gives `n` rollouts per row, in row order; a failure is a rollout with an error ("environment: ...").  What it has
not scored itself is given to the task's grader.  A task names its environment in task.toml; to add one, add a file.
"""
