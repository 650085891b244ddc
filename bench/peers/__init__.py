"""What fastps is measured against, one small file each."""
