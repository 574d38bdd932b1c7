"""Arrays to numbers: statistics, colour scales, feature maps, weights, histograms, a classifier's answer.

Nothing is drawn here, and matplotlib is never imported. Import from the modules.
"""
