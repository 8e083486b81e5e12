"""What is remembered: records, the front, MLflow runs, plots and the exported bundle."""
