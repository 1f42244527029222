"""The measuring: pytest files, one per question; behind them measure/, the report and the CLI."""
