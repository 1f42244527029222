"""`python -m bench.runfile`: print the JSON schema of a run file."""

import json

from bench.runfile import schema

if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
