"""The folder that the images of a run go to, drawn ones and downloaded ones alike.

    names       what it is called, and how any text becomes part of a path
    metadata    metadata.json in it: what each file shows and where it is from; the lock for changing it
    scratch     files that are being made: hidden until they are whole, swept up after a process that was killed

It knows neither W&B nor the cache: whoever makes images tells it what they are.
"""
