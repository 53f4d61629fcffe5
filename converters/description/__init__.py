"""Where a detector's description comes from: options, zoo yaml, sidecar, and what the model file itself tells.

What an option states wrongly, or what nobody states, is an OptionError; what a file holds wrongly is a SourceFileError.
Readers of single values raise ValueError; ``values.located`` adds where the value stands.
"""
