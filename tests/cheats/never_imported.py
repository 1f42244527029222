"""Does not come to the end of its file."""

import time

time.sleep(600)
