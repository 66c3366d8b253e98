"""The commands of the command line, a module each.

Each has ``NAME``; ``add(commands)``, which makes its parser with help, options and examples; and
``run(options)``, which does it and returns the exit code. What a command needs is imported by its ``run``, so that
``--help`` and the shell's completion stay quick. A `RedislogkitError` or ``OSError`` that leaves ``run`` is printed
and ends with `EXIT_USAGE`.
"""
