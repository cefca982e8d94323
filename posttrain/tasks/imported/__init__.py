"""Other people's tasks and environments, unmodified, a file each: a function `task(variant)` that makes a Task.

What they need is installed by whoever wants them: `pip install posttrain[NAME]`.
"""
