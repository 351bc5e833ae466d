"""Build a set to train on out of folders of images: find faces, reject bad images, choose a spread of the good ones.

`python -m dynamicid_core.data build SOURCE OUT --face-pack FOLDER` writes WebDataset shards and an index.
"""
