"""Ways of teaching, one file each.

A technique is a module with `async def teach(candidate, task, run) -> candidate` and, where it has settings, a
frozen dataclass `Config` that `teach` takes as a fourth argument.  Its defaults are the vetted setting.
"""
