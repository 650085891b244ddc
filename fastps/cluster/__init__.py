"""Ray: connecting, placing, naming and watching processes; users' code on its way to them."""
