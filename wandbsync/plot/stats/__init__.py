"""What is computed of the points of a figure, with numpy alone.

smoothing   the table of all smoothings: what each is called, its parameter, what a figure says of it
centred     the default: a centred mean that stays on its data
ema, sums   averages that look back
windows     W&B's averages that look before and after
resampling  means of ordered values (mean, median, IQM ...), bootstrap intervals, performance profiles
"""
