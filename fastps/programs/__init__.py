"""Programs that use the library, started by the command line. They use it as any other program would.

Each has a folder: `run` is the program from beginning to end, `settings` its options and their defaults, `screen` what
it prints. What programs share lies here: `screen` (output, progress) and `crew` (worker processes).

A program prints its results and returns what is wrong with them in one line, None where nothing is. It raises
KeyboardInterrupt, ConnectionError or FastPSError; by then the Ray cluster that it started is down again.
"""
