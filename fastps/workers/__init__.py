"""Workers' sessions: an identity and a clock."""
