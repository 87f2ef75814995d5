"""The legend of axis letters, as every annotated tensor and array of kshot uses them.

b  batch (packs, blocks)          h  query heads          q  queries
t  tokens of a pass               g  key-value heads      c  candidate labels of a query
p  tokens of a prefix             d  width of a head      k  demonstrations (shots)
s  scored positions               e  width of the model   v  vocabulary        l  layers

In synth/, where prompts are pairs of numbers: b prompts, n pairs, d coordinates of an input, m functions or features.
"""
