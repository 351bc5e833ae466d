"""A person: the value and its file, faces found in photographs, and the network that encodes them."""
