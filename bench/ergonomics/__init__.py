"""What a library asks of who writes with it, counted and never timed: `bakeoff ergonomics`.

Files are read, not run. What changes by the day comes from dated files: `releases.json`, which
`python -m bench.ergonomics.releases` makes anew, and `candidates.json`, whose entries
`python -m bench.ergonomics.candidates NAME` tries again. Only these two use the network.
"""
