"""Numbers out of numbers, with numpy alone.

resampling   means of ordered values (mean, median, IQM ...), bootstrap intervals, performance profiles
"""
