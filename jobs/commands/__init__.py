"""Typer's declarations of the commands, a module per stage; the work is in the modules of `jobs`."""
