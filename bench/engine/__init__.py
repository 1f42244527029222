"""The parent process: chooses what to measure next, runs the workers, collects the results.

Sides whose workers alternate are a *group*. A *visit* of a group opens its workers, measures
blocks, and closes them; as many visits as there are *lanes*, sets of cores, go on at a time.
"""
