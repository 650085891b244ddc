"""Other libraries' arrays: what they are converted from and to, and what is checked of them."""
