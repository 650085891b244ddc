"""What creates servers, and the handles with which they are used."""
