"""One module a command: reads its arguments, calls, prints. Each has `run(arguments) -> exit code`."""
