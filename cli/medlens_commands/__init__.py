"""The commands, one module each: parse the options, make one library call, write the result.

Heavy modules are imported inside the functions that need them.
"""
