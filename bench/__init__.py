"""The measuring: pytest files, one per question; behind them engine/, the report and the CLI."""
