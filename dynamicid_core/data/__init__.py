"""A set to train on out of folders of pictures: faces found, the bad left out, the good spread over what they show.

`python -m dynamicid_core.data build SOURCE OUT --face-pack FOLDER` writes WebDataset shards and an index.
"""
