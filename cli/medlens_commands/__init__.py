"""The commands, a module per family: parse, one library call, write. Heavy modules are imported where one runs."""
