"""The command line: parse, call an engine, render what it yields."""
