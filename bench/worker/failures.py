"""What fails in one arm alone, in words, instead of an exception that ends the worker."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from bench.worker.protocol import Failed
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

TRACEBACK_LINES = 12
"""Lines of a failure's traceback that are kept."""


def guarded[Found](action: Callable[[], Found]) -> Found | Failed:
    """Return what `action` returns, or why it failed."""
    try:
        return action()
    except BakeoffError as error:
        return Failed(str(error))
    except Exception:
        tail = "\n".join(traceback.format_exc().splitlines()[-TRACEBACK_LINES:])
        return Failed(f"raised {last_line()}", tail)


def last_line() -> str:
    """Return the exception being handled, on one line."""
    return " ".join("".join(traceback.format_exception_only(*sys.exc_info()[:2])).split())
