"""How everything here is timed, what a benchmark prints and keeps, and the machine that it ran on."""
