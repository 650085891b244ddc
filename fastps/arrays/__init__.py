"""Arrays: their element types, what is checked of them, and conversion from and to other libraries."""
