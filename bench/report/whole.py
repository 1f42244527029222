"""Where `Whole` was: it is `bench.runfile.whole`'s."""

from bench.runfile.whole import Whole, written

__all__ = ["Whole", "written"]
