"""Synthetic people as files, and as training samples.

A *picture* is finished; a *layer* is a person alone with alpha, before no background; a *crop* is composed of layers
and backgrounds anew each time it is seen; *poses* have no picture at all. A *set* is a folder of one of these with its
`recipe.json`; a *shard* is the part of a set that is written at once.
"""
