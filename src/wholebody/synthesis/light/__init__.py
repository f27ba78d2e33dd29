"""What lights people and stands behind them.

An *environment* is a map of the light from all around, recorded or made up; *lighting* is what of it reaches a person;
a *background* is a picture behind them: a view of an environment, a photo, a made-up *room*, or *clutter*.
"""
