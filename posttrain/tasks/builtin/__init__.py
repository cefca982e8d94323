"""Tasks that come along, a file each: a function `task(variant)` that makes a Task without reading any data."""
