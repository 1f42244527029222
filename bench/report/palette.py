"""The colours of entrants and curves."""

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6BB1",
    "#7F7F7F",
)
"""After Okabe and Ito, told apart by the colour-blind too."""
