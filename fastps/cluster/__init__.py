"""Ray: connecting, placing and naming processes, and sending users' code to them."""
