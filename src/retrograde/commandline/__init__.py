"""What a user's QEMU arguments say, as data, and arguments made of that; starts no machine."""
