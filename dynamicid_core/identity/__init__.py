"""A person: the value and its file, faces in images, face assignment, and the network that encodes them."""
